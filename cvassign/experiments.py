# LLM-assisted: prompts P1, P2, P5, P7, P10, P11, see report.md
"""Every training run that the report needs, as data, and the command that trains them.

    python -m cvassign.experiments list [--preset P] [--section S] [--model M]
    python -m cvassign.experiments run  [--preset P] [--section S] [--model M] [--jobs J] [--out DIR]
                                        [--stop-after SECONDS]

An experiment is a base recipe and what is changed in it, one thing at a time. The ViT and the
Diff-ViT go through the same list; only `attention` differs. Presets say how large it all is:
`full` is what is reported, `cpu` shows every experiment on a laptop, `smoke` is for tests, on
generated pictures.
"""

import multiprocessing
import re
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path

from cvassign.command import Parser
from cvassign.device import cores, pick_device
from cvassign.results import RESULTS, Busy, ResultError, Run, load, load_all, run_or_load
from cvassign.train import Diverged, TimeUp, TrainConfig
from cvassign.vit import ViTConfig, gflop_per_image

MODELS = ("vit", "diff")
BUSY = 3  # exit code: nothing failed, but another process still trains
# Assignment sections of an experiment: of the ViT, of the Diff-ViT.
SECTIONS = {
    "reference": ("1.1", "2.1.3"),
    "patch": ("1.2.1", "2.1.3"),
    "hyper": ("1.2.2", "2.2.1"),
    "candidates": ("1.2.2", "2.2.1"),
    "best": ("1.2.2", "2.2.1"),
    "augment": ("1.2.3", "2.2.2"),
    "position": ("1.3", "2.2.3"),
    "controls": ("2.2", "2.2"),
}
POSITION_LABELS = {"none": "none", "learned_1d": "1-D learned", "learned_2d": "2-D learned",
                   "sinusoidal": "sinusoidal"}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """How large the experiments are on one kind of machine."""

    name: str
    model: dict  # the reference recipe: changes to ViTConfig ...
    train: dict  # ... and to TrainConfig
    long: dict  # the long recipe: changes to the reference recipe
    # Changes to the long recipe that were tried; validation chooses among them and the long recipe.
    candidates: tuple[dict, ...] = ()
    winner: dict = field(default_factory=dict)  # the chosen one: long | winner is the best recipe
    short_best: dict = field(default_factory=dict)  # long made short: positions are compared on it
    hyper: tuple[dict, ...] = (  # one change each to the reference recipe
        dict(depth=3), dict(embed_dim=64), dict(num_heads=2),
        dict(learning_rate=0.006), dict(learning_rate=0.0015),
        dict(optimizer="adamw", learning_rate=0.00075),  # AdamW's best rate is a lower one
        dict(mlp_ratio=4.0), dict(depth=9),
    )  # fmt: skip
    hyper_gpu: tuple[dict, ...] = (
        dict(optimizer="adamw", learning_rate=0.0015), dict(optimizer="adamw", learning_rate=0.003),
        dict(embed_dim=192), dict(num_heads=16), dict(num_heads=32),
    )  # fmt: skip
    augments: tuple[str, ...] = (  # compared in 1.2.3; one of them is the reference recipe's
        "none",
        "crop+flip",
        "crop+flip+jitter",
        "crop+flip+cutmix",
        "crop+flip+randaugment(2,9)",
        "crop+flip+randaugment(2,9)+cutmix",
    )
    seeds: dict = field(default_factory=dict)  # experiment -> number of seeds; else one
    dataset: str = "cifar10"


# The experiments by priority.
ORDER = ("best", "reference", "hyper", "controls", "augment", "position", "patch", "candidates")

# The reference recipe, as far as it does not depend on the preset's size.
MODEL = dict(mlp_ratio=2.0)
TRAIN = dict(optimizer="muon", learning_rate=3e-3, augment="crop+flip")
PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "full",
            model=MODEL | dict(embed_dim=128, depth=6, num_heads=8),
            train=TRAIN | dict(epochs=15, batch_size=256, warmup_epochs=1),
            long=dict(embed_dim=256, drop_path=0.05, epochs=50, warmup_epochs=2,
                      augment="crop+flip+randaugment(2,9)+cutmix"),
            candidates=(
                dict(unmixed_epochs=10),
                dict(depth=9, unmixed_epochs=10, weight_decay=0.2),
            ),
            winner=dict(depth=9, unmixed_epochs=10, weight_decay=0.2),
            short_best=dict(epochs=20),
            seeds=dict(best=3, reference=3),
        ),
        Preset(
            "cpu",  # the same lists on a smaller model for three epochs
            model=MODEL | dict(embed_dim=96, depth=4, num_heads=8),
            train=TRAIN | dict(epochs=3, batch_size=128, warmup_epochs=0.3),
            long=dict(epochs=10, augment="crop+flip+randaugment(2,9)"),
            short_best=dict(epochs=3),
        ),
        Preset(
            "smoke",
            model=MODEL | dict(embed_dim=24, depth=2, num_heads=4),
            train=TRAIN | dict(epochs=2, batch_size=64, warmup_epochs=0.2, learning_rate=5e-3),
            long=dict(embed_dim=40, augment="crop+flip+cutmix"),
            candidates=(dict(unmixed_epochs=1),),
            short_best=dict(epochs=1),
            hyper=(dict(depth=3), dict(learning_rate=0.006), dict(num_heads=2)),
            hyper_gpu=(),
            augments=("none", "crop+flip", "crop+flip+cutmix"),
            seeds=dict(best=2, reference=2),
            dataset="generated",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """One row of an experiment's table: what is changed in a base recipe."""

    base: str  # "reference" or "long"
    slug: str  # in the file name; empty for the base recipe itself
    label: str
    changes: dict = field(default_factory=dict)
    on_gpu: bool = False


def _text(changes: dict) -> str:
    """Changes as a label: "learning_rate 0.004"."""
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in changes.items()
    )


def _slug(changes: dict) -> str:
    """Changes as a part of a file name: "learning-rate-0.004"."""
    return re.sub(r"[^a-z0-9.]+", "-", _text(changes)).strip("-")


def _candidate(changes: dict) -> _Row:
    """The long recipe with `changes`; the name "best" is that of its stored files."""
    slug = f"best-{_slug(changes)}" if changes else "best"
    return _Row("long", slug, _text(changes) or "long recipe", changes)


def _rows(preset: Preset, experiment: str, model: str) -> list[_Row]:
    """The rows of an experiment."""
    ref = preset.model | preset.train
    if experiment == "reference":
        return [_Row("reference", "", "reference recipe")]
    if experiment == "best":
        return [replace(_candidate(preset.winner), label="best recipe")]
    if experiment == "candidates":
        return [_candidate(c) for c in ({}, *preset.candidates)]
    if experiment == "patch":
        return [
            _Row("reference", f"patch-{s}" if s != 4 else "", f"patch {s}", dict(patch_size=s),
                 on_gpu=s == 2)
            for s in (2, 4, 8)
        ]  # fmt: skip
    if experiment == "position":
        return [
            _Row("long", f"best-position-{key}", label, preset.short_best | dict(position=key))
            for key, label in POSITION_LABELS.items()
        ]
    if experiment == "augment":
        epochs = (ref | preset.long)["epochs"]
        short = [
            _Row("reference", "" if a == ref["augment"] else f"augment-{_slug({a: ''})}", a,
                 dict(augment=a))
            for a in preset.augments
        ]  # fmt: skip
        long = (ref | preset.long).get("augment", "crop+flip")
        return short + [
            _Row("long", "best-crop-flip", f"{epochs} epochs, crop+flip", dict(augment="crop+flip"),
                 on_gpu=True),
            _Row("long", "best", f"{epochs} epochs, {long}"),
        ]  # fmt: skip
    if experiment == "hyper":
        lists = (preset.hyper, False), (preset.hyper_gpu, True)
        return [_Row("reference", "", "reference")] + [
            _Row("reference", _slug(c), _text(c), c, on_gpu) for many, on_gpu in lists for c in many
        ]
    if experiment == "controls" and model == "vit":
        norm = _Row("reference", "head-norm", "ViT + per-head norm", dict(head_norm=True))
        return [_Row("reference", "", "ViT"), norm]
    if experiment == "controls":
        return [
            _Row("reference", "", "Diff-ViT"),
            _Row("reference", "no-norm", "Diff-ViT, no per-head norm", dict(head_norm=False)),
            _Row("reference", "constant", "Diff-ViT, λ_init 0.8 in all layers",
                 dict(lambda_init=0.8)),
        ]  # fmt: skip
    raise ValueError(f"experiment must be one of {tuple(SECTIONS)}, got {experiment!r}")


def _run(preset: Preset, model: str, row: _Row, section: str, seed: int) -> Run:
    """The run of a row, for one model and seed."""
    fields = preset.model | preset.train | (preset.long if row.base == "long" else {})
    fields |= dict(attention="diff") if model == "diff" else {}
    fields |= row.changes
    of_model = {k: v for k, v in fields.items() if k in ViTConfig.__dataclass_fields__}
    of_train = {k: v for k, v in fields.items() if k not in of_model}
    is_best = row.slug == _candidate(preset.winner).slug
    return Run(
        name=f"{model}-{row.slug or 'reference'}",
        section=section,
        label=row.label,
        preset=preset.name,
        seed=seed,
        model=ViTConfig(**of_model),
        train=TrainConfig(**of_train),
        dataset=preset.dataset,
        # What figures and studies need; the rest would fill the repository.
        keep_weights=seed == 0 and (is_best or (model == "vit" and not row.slug)),
        keep_logits=is_best,
        on_gpu=row.on_gpu or (preset.name == "full" and row.base == "long"),
    )


def experiment_runs(experiment: str, model: str, preset: str) -> list[Run]:
    """The runs of one experiment (a key of SECTIONS) for one model, all its seeds; `label` says
    what differs within it. The controls belong to both models, each gives its own."""
    for value, known, what in (
        (experiment, SECTIONS, "experiment"),
        (model, MODELS, "model"),
        (preset, PRESETS, "preset"),
    ):
        if value not in known:
            raise ValueError(f"{what} must be one of {tuple(known)}, got {value!r}")
    p = PRESETS[preset]
    section = SECTIONS[experiment][MODELS.index(model)]
    return [
        _run(p, model, row, section, seed)
        for row in _rows(p, experiment, model)
        for seed in range(p.seeds.get(experiment, 1))
    ]


def all_runs(preset: str, section: str = "", model: str | None = None) -> list[Run]:
    """Every run of a preset once, the most important first; of the sections that begin with
    `section` ("1.2" has 1.2.1 to 1.2.3), of one model if one is named."""
    runs: dict[str, Run] = {}
    for experiment in ORDER:
        for kind in MODELS:
            if model in (None, kind):
                for run in experiment_runs(experiment, kind, preset):
                    if run.section.startswith(section):
                        runs.setdefault(run.file_name, run)
    # One seed of everything before the second of anything.
    return sorted(runs.values(), key=lambda run: run.seed)


def stored(experiment: str, model: str, presets=("full", "cpu"), results: Path = RESULTS):
    """The results of an experiment under the first preset that has any: (preset, results)."""
    for preset in presets:
        if got := load_all(experiment_runs(experiment, model, preset), results):
            return preset, got
    return presets[0], []


def _worker(runs: list[Run], results: Path, device: str | None, threads: int,
            deadline: float | None, show: bool) -> int:  # fmt: skip
    """Trains those of `runs` that nobody has done or is doing; returns how many failed."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    failed = 0
    pace = 0.0  # seconds of an epoch for each GFLOP per image, as the last run had it
    for run in runs:
        try:
            if load(run, results) is not None:
                continue
            cost = gflop_per_image(run.model) if deadline is not None else 1.0
            if deadline is not None and time.time() + pace * cost > deadline:
                continue  # not one epoch of it could be done
            result = run_or_load(run, results, device=device, progress=show, deadline=deadline)
            pace = result["train_seconds"] / result["epochs"] / cost
        except Busy:
            continue
        except TimeUp as stop:
            print(f"{run.file_name}: stopped in time, {stop}", flush=True)
            break
        except ResultError as error:
            print(f"failed: {error}", file=sys.stderr, flush=True)
            failed += 1
        except (Diverged, ValueError) as error:  # the run's own fault: one line says it
            print(f"failed: {run.file_name}: {error}", file=sys.stderr, flush=True)
            failed += 1
        except Exception:  # one broken run must not stop the others
            print(f"failed: {run.file_name}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            failed += 1
        else:
            print(
                f"{run.file_name}: validation {result['val_accuracy']:.2f} %, test "
                f"{result['test_accuracy']:.2f} %, {result['train_seconds']:.0f} s",
                flush=True,
            )
    return failed


def run_all(runs: list[Run], results: Path, jobs: int = 1, device: str | None = None,
            progress: bool = True, deadline: float | None = None) -> int:  # fmt: skip
    """Trains `runs` in `jobs` processes, until `deadline`; returns 0 if all went well.

    There is no scheduler: each process walks down the list and takes what has neither a result
    nor a lock. So any number of processes, started at any time, can share one list.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be positive, got {jobs}")
    if jobs == 1:
        return _worker(runs, results, device, 0, deadline, progress)
    threads = max(1, cores() // jobs)
    context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
    # Not a Pool: it waits for ever for a process that was killed, by the system for its memory
    # for example. Daemons end with this process, whatever ends it.
    workers = [
        context.Process(target=_job, args=(runs, results, device, threads, deadline), daemon=True)
        for _ in range(jobs)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    codes = [worker.exitcode for worker in workers]
    for code in codes:
        if code < 0:
            print(f"failed: a process was killed by signal {-code}", file=sys.stderr, flush=True)
    return max(1 if code < 0 else code for code in codes)


def _job(*args) -> None:
    """A worker as a process, whose exit code is the number of its failures."""
    sys.exit(min(_worker(*args, False), 125))


def show(runs: list[Run], results: Path) -> None:
    """Prints the runs with what is known of them."""
    done = 0
    for run in runs:
        try:
            result = load(run, results)
        except ResultError as error:
            print(f"! {error}")
            continue
        done += result is not None
        state = f"{result['test_accuracy']:6.2f} %" if result else "       -"
        where = "  (for an accelerator)" if run.on_gpu and not result else ""
        print(f"{run.section:6} {state}  {run.file_name:60} {run.label}{where}")
    print(f"{done} of {len(runs)} runs done")


def main(arguments: list[str] | None = None) -> int:
    parser = Parser("cvassign.experiments", __doc__)
    parser.add_argument("command", choices=("list", "run"))
    parser.add_argument("--preset", choices=tuple(PRESETS), default="full")
    parser.add_argument("--section", default="", help="only sections that begin so, as 1.2")
    parser.add_argument("--model", choices=MODELS, help="only this model (default: both)")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--stop-after", type=float, metavar="SECONDS",
                        help="end at the next epoch, with the state kept: for lent machines")  # fmt: skip
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    given = parser.parse_args(arguments)
    if given.jobs < 1:
        parser.error(f"--jobs must be positive, got {given.jobs}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends its workers as well
    runs = all_runs(given.preset, given.section, given.model)
    if not runs:
        parser.error(f"no run of section {given.section!r}")
    if given.command == "list":
        show(runs, given.out)
        return 0
    try:
        pick_device(given.device)
    except ValueError as error:
        parser.error(str(error))
    deadline = None if given.stop_after is None else time.time() + given.stop_after
    if run_all(runs, given.out, given.jobs, given.device, deadline=deadline):
        return 1
    unfinished = [run for run in runs if not (given.out / run.file_name).exists()]
    if unfinished and deadline is None:
        print(f"{len(unfinished)} runs are being trained by another process, the first is "
              f"{unfinished[0].file_name}", file=sys.stderr)  # fmt: skip
        return BUSY
    return 0


if __name__ == "__main__":
    sys.exit(main())
