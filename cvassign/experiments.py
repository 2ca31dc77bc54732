# LLM-assisted: prompts P1, P2, P5, see report.md
"""Every training run that the report needs, as data, and the command that trains them.

    python -m cvassign.experiments list [--preset P] [--section S] [--model M]
    python -m cvassign.experiments run  [--preset P] [--section S] [--model M] [--jobs J] [--out DIR] [--engine E]

An experiment is a base recipe and what is changed in it, one thing at a time. The ViT and the
Diff-ViT go through the same list; only `attention` differs. Presets say how large it all is:
`full` for a GPU, `cpu` for two cores, `smoke` for tests, on generated pictures.
"""

import argparse
import multiprocessing
import os
import re
import signal
import sys
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cvassign.results import RESULTS, Busy, ResultError, Run, load, load_all, run_or_load
from cvassign.train import TrainConfig
from cvassign.vit import ViTConfig

MODELS = ("vit", "diff")
# Assignment sections of an experiment: of the ViT, of the Diff-ViT.
SECTIONS = {
    "reference": ("1.1", "2.1.3"),
    "patch": ("1.2.1", "2.1.3"),
    "hyper": ("1.2.2", "2.2.1"),
    "best": ("1.2.2", "2.2.1"),
    "length": ("1.2.2", "2.2.1"),
    "augment": ("1.2.3", "2.2.2"),
    "position": ("1.3", "2.2.3"),
    "controls": ("2.2", "2.2"),
}
POSITION_LABELS = {
    "none": "none", "learned_1d": "1-D learned", "learned_2d": "2-D learned",
    "sinusoidal": "sinusoidal",
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """How large the experiments are on one kind of machine."""

    name: str
    model: dict  # the reference recipe: changes to ViTConfig ...
    train: dict  # ... and to TrainConfig
    best: dict  # the best recipe: changes to the reference recipe
    augments: tuple[str, ...]  # compared in 1.2.3; one of them is the reference recipe's
    seeds: dict  # experiment, or name of one of its runs -> number of seeds; else one
    order: tuple[tuple[str, str], ...]  # (experiment, model) by priority
    on_best: bool  # positions and controls vary the best recipe, else the reference
    # Changes to the best recipe: the shorter training that it is compared with ...
    shorter: dict = field(default_factory=dict)
    # ... and what makes it short enough to compare positions on it.
    short_best: dict = field(default_factory=dict)
    dataset: str = "cifar10"


def _both(*experiments: str) -> tuple[tuple[str, str], ...]:
    return tuple((e, m) for e in experiments for m in MODELS)


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "full",
            # Narrow and deep, as the strongest plain ViT of this size on CIFAR-10 (arXiv
            # 2112.13492): 2.7M parameters.
            model=dict(embed_dim=192, depth=9, num_heads=12, mlp_ratio=2.0, drop_path=0.1),
            train=dict(
                epochs=50, batch_size=256, optimizer="muon", learning_rate=2e-3, warmup_epochs=3,
                augment="crop+flip+randaugment(1,5)",
            ),
            best=dict(augment="crop+flip+randaugment(2,9)+cutmix"),
            augments=(
                "none", "flip", "crop+flip", "crop+flip+jitter", "crop+flip+erasing",
                "crop+flip+mixup", "crop+flip+cutmix", "crop+flip+trivialaugment",
                "crop+flip+randaugment(1,5)", "crop+flip+randaugment(2,9)",
                "crop+flip+randaugment(2,9)+cutmix",
                "crop+flip+randaugment(2,9)+erasing+mixup+cutmix",
            ),
            seeds=dict(best=3, position=3, controls=3),
            order=_both("best", "patch", "position", "augment", "hyper", "controls"),
            on_best=True,
        ),
        Preset(
            "cpu",
            # Three epochs. In the first two a quarter of the patches is kept (PatchDropout),
            # which makes an epoch three times cheaper; the last sees whole images.
            model=dict(embed_dim=96, depth=4, num_heads=6, mlp_ratio=2.0),
            train=dict(
                epochs=3, batch_size=128, optimizer="muon", learning_rate=4e-3, warmup_epochs=0.3,
                label_smoothing=0.0, augment="crop+flip", keep=0.25, keep_epochs=2,
            ),
            best=dict(
                embed_dim=128, depth=6, num_heads=8, epochs=50, warmup_epochs=1, keep=0.5,
                keep_epochs=42, label_smoothing=0.1, augment="crop+flip+randaugment(1,5)",
            ),
            augments=(
                "none", "flip", "crop+flip", "crop+flip+jitter", "crop+flip+erasing",
                "crop+flip+cutmix", "crop+flip+randaugment(1,5)",
                "crop+flip+randaugment(2,9)+cutmix",
            ),
            seeds={"reference": 3, "controls": 3, "position": 3, "augment": 3, "best-short": 3},
            order=_both(
                "best", "reference", "patch", "augment", "controls", "hyper", "position", "length"
            ),
            on_best=False,
            shorter=dict(epochs=18, keep_epochs=13, augment="crop+flip"),
            short_best=dict(epochs=5, keep=0.25, keep_epochs=4, augment="crop+flip"),
        ),
        Preset(
            "smoke",
            model=dict(embed_dim=24, depth=2, num_heads=4, mlp_ratio=2.0),
            train=dict(
                epochs=2, batch_size=64, optimizer="muon", learning_rate=5e-3, warmup_epochs=0.2
            ),
            best=dict(embed_dim=40),
            augments=("none", "flip", "crop+flip", "crop+flip+cutmix"),
            seeds=dict(best=2),
            order=_both("best", "patch", "position", "augment", "hyper", "controls", "length"),
            on_best=False,
            shorter=dict(epochs=1),
            dataset="generated",
        ),
    )
}  # fmt: skip


def _run(preset: Preset, model: str, base: str, slug: str, label: str, section: str,
         seed: int = 0, **changes) -> Run:  # fmt: skip
    """The run that changes the `base` recipe ("reference" or "best") by `changes`."""
    fields = {**preset.model, **preset.train, **(preset.best if base == "best" else {})}
    fields |= {"attention": "diff"} if model == "diff" else {}
    fields |= changes
    of_model = {k: v for k, v in fields.items() if k in ViTConfig.__dataclass_fields__}
    of_train = {k: v for k, v in fields.items() if k not in of_model}
    name = f"{model}-{slug or base}"
    # The weights that figures and the robustness study need; the others would fill the repository.
    keep = slug == "" and (base == "best" or seed == 0)
    return Run(name, section, label, preset.name, seed, ViTConfig(**of_model),
               TrainConfig(**of_train), preset.dataset, keep)  # fmt: skip


def _times(value: int, factor: float, multiple: int) -> int:
    """value x factor, rounded to a multiple that the heads divide."""
    return max(multiple, round(value * factor / multiple) * multiple)


def _variants(preset: Preset, experiment: str) -> list[tuple[str, str, str, dict]]:
    """(base, slug, label, changes) of each run of an experiment; an empty slug is the base."""
    ref = {**asdict(ViTConfig()), **asdict(TrainConfig()), **preset.model, **preset.train}
    base = "best" if preset.on_best else "reference"
    if experiment in ("reference", "best"):
        return [(experiment, "", f"{experiment} recipe", {})]
    if experiment == "length":
        recipes = ([("best-short", preset.shorter)] if preset.shorter else []) + [("", {})]
        return [
            ("best", slug, "{epochs} epochs, {augment}".format_map(ref | preset.best | changes),
             changes)
            for slug, changes in recipes
        ]  # fmt: skip
    if experiment == "patch":
        sizes = (4, 8, 2)
        return [
            ("reference", "" if s == ref["patch_size"] else f"patch-{s}", f"patch {s}",
             dict(patch_size=s))
            for s in sizes
        ]  # fmt: skip
    if experiment == "position" and preset.short_best:
        return [
            ("best", f"best-position-{key}", label, preset.short_best | dict(position=key))
            for key, label in POSITION_LABELS.items()
        ]
    if experiment == "position":
        return [
            (base, "" if key == "learned_1d" else f"position-{key}", label, dict(position=key))
            for key, label in POSITION_LABELS.items()
        ]
    if experiment == "augment":
        return [
            # The best recipe may be one of them: then it is that run, not trained twice.
            ("best", "", a, {}) if preset.best == dict(augment=a) else
            ("reference", "" if a == ref["augment"] else _slug(dict(augment=a)), a, dict(augment=a))
            for a in preset.augments
        ]  # fmt: skip
    if experiment == "hyper":
        return [("reference", "", "reference", {})] + [
            ("reference", _slug(changes), _text(changes), changes)
            for changes in _hyperparameters(ref)
        ]
    raise ValueError(f"experiment must be one of {tuple(SECTIONS)}, got {experiment!r}")


def _hyperparameters(ref: dict) -> list[dict]:
    """What is changed: one thing at a time, up and down from the reference."""
    D, L, H, rate = ref["embed_dim"], ref["depth"], ref["num_heads"], ref["learning_rate"]
    return [
        dict(embed_dim=_times(D, 1.5, 2 * H)),
        dict(depth=L + (L + 1) // 2),
        dict(learning_rate=rate * 2),
        dict(learning_rate=rate / 2),
        dict(num_heads=H * 2),
        dict(mlp_ratio=ref["mlp_ratio"] * 2),
        dict(batch_size=ref["batch_size"] // 2),
        dict(optimizer="adamw", learning_rate=rate / 4),  # AdamW's best rate is a lower one
        dict(embed_dim=_times(D, 0.5, 2 * H)),
        dict(depth=max(1, L // 2)),
        dict(num_heads=H // 3 + H // 3 % 2),
        dict(mlp_ratio=ref["mlp_ratio"] / 2),
        dict(batch_size=ref["batch_size"] * 2),
        dict(learning_rate=rate / 4),
        dict(optimizer="adamw"),
    ]


def _text(changes: dict) -> str:
    """Changes as a label: "learning_rate 0.004"."""
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in changes.items()
    )


def _slug(changes: dict) -> str:
    """Changes as a part of a file name: "learning-rate-0.004"."""
    return re.sub(r"[^a-z0-9.]+", "-", _text(changes)).strip("-")


def _controls(preset: Preset) -> list[tuple[str, str, str, dict]]:
    """(model, slug, label, changes): what of differential attention makes the difference?"""
    return [
        ("vit", "", "ViT", {}),
        ("vit", "head-norm", "ViT + per-head norm", dict(head_norm=True)),
        ("diff", "", "Diff-ViT", {}),
        ("diff", "no-norm", "Diff-ViT, no per-head norm", dict(head_norm=False)),
        ("diff", "constant", "Diff-ViT, λ_init 0.8 in all layers", dict(lambda_init=0.8)),
        ("diff", "v2", "Diff-ViT, second version", dict(attention="diff_v2")),
    ]


def experiment_runs(experiment: str, model: str, preset: str) -> list[Run]:
    """The runs of one experiment, all its seeds; `label` says what differs within it.

    Args:
        experiment: a key of SECTIONS.
        model: "vit" or "diff"; the controls belong to both, each gives its own.
        preset: a key of PRESETS.
    """
    for value, known, what in ((experiment, SECTIONS, "experiment"), (model, MODELS, "model"),
                               (preset, PRESETS, "preset")):  # fmt: skip
        if value not in known:
            raise ValueError(f"{what} must be one of {tuple(known)}, got {value!r}")
    p = PRESETS[preset]
    section = SECTIONS[experiment][MODELS.index(model)]
    if experiment == "controls":
        base = "best" if p.on_best else "reference"
        rows = [(base, *row[1:]) for row in _controls(p) if row[0] == model]
    else:
        rows = _variants(p, experiment)
    return [
        _run(p, model, base, slug, label, section, seed, **changes)
        for base, slug, label, changes in rows
        for seed in range(p.seeds.get(slug, p.seeds.get(experiment, 1)))
    ]


def all_runs(preset: str, section: str = "", model: str | None = None) -> list[Run]:
    """Every run of a preset once, the most important first.

    Args:
        preset: a key of PRESETS.
        section: only the sections that begin so ("1.2" has 1.2.1 to 1.2.3).
        model: only "vit" or "diff".
    """
    runs: dict[str, Run] = {}
    for experiment, kind in PRESETS[preset].order:
        if model in (None, kind):
            for run in experiment_runs(experiment, kind, preset):
                if run.section.startswith(section):
                    runs.setdefault(run.file_name, run)
    # One seed of everything before the second of anything.
    return sorted(runs.values(), key=lambda run: run.seed)


def stored(experiment: str, model: str, presets=("full", "cpu"), results: Path = RESULTS):
    """The results of an experiment under the best preset that has them: (preset, results).

    A preset whose results are complete wins over one that has only a part; the first in
    `presets` wins among complete ones, and the one with most results among incomplete ones.
    """
    found = []
    for preset in presets:
        runs = experiment_runs(experiment, model, preset)
        got = load_all(runs, results)
        if len(got) == len(runs):
            return preset, got
        found.append((len(got), preset, got))
    count, preset, got = max(found, key=lambda f: f[0])
    return preset, got


def _worker(runs: list[Run], results: Path, device: str | None, threads: int, show: bool) -> int:
    """Trains those of `runs` that nobody has done or is doing; returns how many failed."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    failed = 0
    for run in runs:
        try:
            if load(run, results) is not None:
                continue
            result = run_or_load(run, results, device=device, progress=show)
        except Busy:
            continue
        except ResultError as error:
            print(f"failed: {error}", file=sys.stderr, flush=True)
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
            progress: bool = True) -> int:  # fmt: skip
    """Trains `runs` in `jobs` processes; returns 0 if all went well.

    There is no scheduler: each process walks down the list and takes what has neither a result
    nor a lock. So any number of processes, started at any time, can share one list.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be positive, got {jobs}")
    if jobs == 1:
        return _worker(runs, results, device, 0, progress)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
    # Not a Pool: it waits for ever for a process that was killed, by the system for its memory
    # for example. Daemons end with this process, whatever ends it.
    workers = [
        context.Process(target=_job, args=(runs, results, device, threads), daemon=True)
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
        print(f"{run.section:6} {state}  {run.file_name:44} {run.label}")
    print(f"{done} of {len(runs)} runs done")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cvassign.experiments", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("command", choices=("list", "run"))
    parser.add_argument("--preset", choices=tuple(PRESETS), default="full")
    parser.add_argument("--section", default="", help="only sections that begin so, as 1.2")
    parser.add_argument("--model", choices=MODELS, help="only this model (default: both)")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--engine", choices=("local", "ray"), default="local",
                        help="ray: on a Ray cluster, one run a task (needs the package ray)")  # fmt: skip
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
    if given.engine == "ray":
        from cvassign.study import ray as ray_engine

        return int(ray_engine.run_all(runs, given.out, given.jobs, given.device) > 0)
    return int(run_all(runs, given.out, given.jobs, given.device) > 0)


if __name__ == "__main__":
    sys.exit(main())
