# LLM-assisted: prompts P1, P2, P5, P7, P10, P11, P13, P15, see report.md
"""Every training run that the report needs, as data, and the command that trains them.

    python -m cvassign.experiments list [--preset P] [--section S] [--model M]
    python -m cvassign.experiments run  [... the same] [--jobs J] [--out DIR] [--stop-after SECONDS]

`EXPERIMENTS` is the table: adding an experiment is one entry. A row of it is a base recipe and what
is changed in it, one thing at a time. The ViT and the Diff-ViT go through the same rows; only
`attention` differs. Presets say how large it all is: `full` is what is reported, `cpu` shows every
experiment on a laptop, `smoke` is for tests, on generated pictures.
"""

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from multiprocessing.connection import wait
from pathlib import Path

from cvassign.command import Parser
from cvassign.device import cores, pick_device
from cvassign.results import RESULTS, Busy, Result, ResultError, Run, load, load_all, run_or_load
from cvassign.train import Diverged, TimeUp, TrainConfig
from cvassign.vit import KINDS, ViTConfig, gflop_per_image

MODELS = tuple(KINDS)  # "vit", "diff"
BUSY = 3  # exit code: nothing failed, but another process still trains
FOR_GPU = 1.0  # petaflop; a longer training takes two cores half a day


@dataclass(frozen=True)
class Preset:
    """How large the experiments are on one kind of machine."""

    name: str
    reference: dict  # the reference recipe: changes to ViTConfig and TrainConfig
    long: dict  # the long recipe: changes to the reference recipe
    # Changes to the long recipe that were tried; validation chose the best recipe among them.
    candidates: tuple[dict, ...] = ()
    winner: dict = field(default_factory=dict)
    short: dict = field(default_factory=dict)  # long made short: positions are compared on it
    seeds: dict = field(default_factory=dict)  # experiment -> number of seeds; else one
    rows: int | None = None  # of each experiment, the first ones; None: all
    dataset: str = "cifar10"


# The reference recipe, as far as it does not depend on the preset's size.
COMMON = dict(mlp_ratio=2.0, optimizer="muon", learning_rate=3e-3, augment="crop+flip")
STRONG = "crop+flip+randaugment(2,9)+cutmix"
PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "full",
            reference=COMMON
            | dict(embed_dim=128, depth=6, num_heads=8, epochs=15, batch_size=256, warmup_epochs=1),
            long=dict(embed_dim=256, drop_path=0.05, epochs=50, warmup_epochs=2, augment=STRONG),
            candidates=(
                dict(unmixed_epochs=10),
                dict(depth=9, unmixed_epochs=10, weight_decay=0.2),
            ),
            winner=dict(depth=9, unmixed_epochs=10, weight_decay=0.2),
            short=dict(epochs=20),
            seeds=dict(best=3, reference=3, factorial=3),
        ),
        Preset(
            "cpu",  # the same lists on a smaller model for three epochs
            reference=COMMON
            | dict(embed_dim=96, depth=4, num_heads=8, epochs=3, batch_size=128, warmup_epochs=0.3),
            long=dict(epochs=10, augment="crop+flip+randaugment(2,9)"),
            short=dict(epochs=3),
        ),
        Preset(
            "smoke",
            reference=COMMON
            | dict(embed_dim=24, depth=2, num_heads=4, epochs=2, batch_size=64, warmup_epochs=0.2),
            long=dict(embed_dim=40, augment="crop+flip+cutmix"),
            candidates=(dict(unmixed_epochs=1),),
            short=dict(epochs=1),
            seeds=dict(best=2, reference=2),
            rows=4,
            dataset="generated",
        ),
    )
}


@dataclass(frozen=True)
class Row:
    """One row of an experiment's table."""

    changes: dict = field(default_factory=dict)  # to the experiment's base recipe
    label: str = ""  # empty: the changes in words
    base: str = ""  # another base recipe than the experiment's
    models: tuple[str, ...] = MODELS


@dataclass(frozen=True)
class Experiment:
    """A table of the report."""

    sections: tuple[str, str]  # of the assignment: of the ViT, of the Diff-ViT
    base: str  # the recipe that its rows change: "reference" or "long"
    rows: Callable[[Preset], list[Row]]


def _each(key: str, *values) -> list[Row]:
    return [Row({key: value}) for value in values]


def _augment(preset: Preset) -> list[Row]:
    """Spelt out: a label is the recipe's own text."""
    short = (
        "none",
        "crop+flip",
        "crop+flip+jitter",
        "crop+flip+cutmix",
        "crop+flip+randaugment(2,9)",
        STRONG,
    )
    recipe = preset.reference | preset.long
    long = dict.fromkeys(("crop+flip", recipe["augment"]))
    return [Row({"augment": a}, a) for a in short] + [
        Row({"augment": a}, f"{recipe['epochs']} epochs, {a}", "long") for a in long
    ]


# By priority. A row that changes nothing is the base recipe itself, and shares its result.
EXPERIMENTS = {
    "best": Experiment(("1.2.2", "2.2.1"), "long", lambda p: [Row(p.winner, "best recipe")]),
    "reference": Experiment(
        ("1.1", "2.1.3"), "reference", lambda p: [Row(label="reference recipe")]
    ),
    "hyper": Experiment(
        ("1.2.2", "2.2.1"),
        "reference",
        lambda p: [
            Row(label="reference"),
            *_each("depth", 3, 9),
            *_each("embed_dim", 64, 192),
            *_each("num_heads", 2, 16, 32),
            *_each("mlp_ratio", 4.0),
            *_each("learning_rate", 0.0015, 0.006),
            *(Row({"optimizer": "adamw", "learning_rate": r}) for r in (0.00075, 0.0015, 0.003)),
        ],
    ),
    # Why is the Diff-ViT behind? What it changes, one thing after the other.
    "factorial": Experiment(
        ("2.2", "2.2"),
        "reference",
        lambda p: [
            Row(label="8 heads of width 16", models=("vit",)),
            Row(dict(attention="standard_norm"), "8 heads, norm", models=("vit",)),
            Row(dict(num_heads=4), "4 heads of width 32", models=("vit",)),
            Row(dict(num_heads=4, attention="standard_norm"), "4 heads, norm", models=("vit",)),
            Row(dict(attention="diff_no_norm"), "4 pairs, no norm", models=("diff",)),
            Row(label="4 pairs, norm", models=("diff",)),
        ],
    ),
    "variants": Experiment(
        ("2.2", "2.2"),
        "reference",
        lambda p: [
            Row(dict(attention="diff_no_scale"), "without × (1 − λ_init)", models=("diff",)),
            Row(dict(attention="diff_fixed_lambda"), "λ fixed at λ_init", models=("diff",)),
            Row(dict(attention="diff_constant_init"), "λ_init 0.8 everywhere", models=("diff",)),
            Row(dict(lambda_share=0.33), "λ's vectors at a third of the rate", models=("diff",)),
            Row(dict(attention="diff_v2"), "the authors' second version", models=("diff",)),
        ],
    ),
    "augment": Experiment(("1.2.3", "2.2.2"), "reference", _augment),
    "position": Experiment(
        ("1.3", "2.2.3"),
        "long",
        lambda p: [
            Row(p.short | dict(position=position), label)
            for position, label in (
                ("none", "none"),
                ("learned_1d", "1-D learned"),
                ("learned_2d", "2-D learned"),
                ("sinusoidal", "sinusoidal"),
            )
        ],
    ),
    "patch": Experiment(
        ("1.2.1", "2.1.3"),
        "reference",
        lambda p: [Row(dict(patch_size=size), f"patch {size}") for size in (2, 4, 8)],
    ),
    "flip": Experiment(
        ("1.4.4", "1.4.4"),
        "reference",
        lambda p: [Row(dict(augment="crop"), "without flips", models=("vit",))],
    ),
    "candidates": Experiment(
        ("1.2.2", "2.2.1"), "long", lambda p: [Row(label="long recipe"), *map(Row, p.candidates)]
    ),
}


def _text(changes: dict) -> str:
    """Changes as a label: "learning_rate 0.004"."""
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in changes.items()
    )


def _run(preset: Preset, experiment: str, model: str, row: Row, seed: int) -> Run:
    """The run of a row, for one model and seed. Its name follows from what is run."""
    table = EXPERIMENTS[experiment]
    base = row.base or table.base
    recipe = dict(attention=KINDS[model][0]) | preset.reference
    recipe |= preset.long if base == "long" else {}
    changes = {k: v for k, v in row.changes.items() if recipe.get(k, _default(k)) != v}
    slug = re.sub(r"[^a-z0-9.]+", "-", _text(changes)).strip("-")
    of_model = {f.name for f in fields(ViTConfig)}
    recipe |= row.changes
    best = base == "long" and changes == preset.winner
    return Run(
        name="-".join(filter(None, (model, base, slug))),
        label=row.label or _text(row.changes),
        section=table.sections[MODELS.index(model)],
        preset=preset.name,
        seed=seed,
        model=ViTConfig(**{k: v for k, v in recipe.items() if k in of_model}),
        train=TrainConfig(**{k: v for k, v in recipe.items() if k not in of_model}),
        dataset=preset.dataset,
        # What figures and studies need; the rest would fill the repository.
        keep_weights=seed == 0 and (best or (model == "vit" and base == "reference" and not slug)),
        keep_logits=best,
    )


def _default(key: str):
    """Of a setting that no recipe names."""
    return next(f.default for c in (ViTConfig, TrainConfig) for f in fields(c) if f.name == key)


def experiment_runs(experiment: str, model: str, preset: str) -> list[Run]:
    """The runs of one experiment for one model, all its seeds; `label` says what differs within it.
    A control belongs to one model only."""
    for value, known, what in (
        (experiment, EXPERIMENTS, "experiment"),
        (model, MODELS, "model"),
        (preset, PRESETS, "preset"),
    ):
        if value not in known:
            raise ValueError(f"{what} must be one of {tuple(known)}, got {value!r}")
    p = PRESETS[preset]
    rows = [row for row in EXPERIMENTS[experiment].rows(p)[: p.rows] if model in row.models]
    seeds = range(p.seeds.get(experiment, 1))
    return [_run(p, experiment, model, row, seed) for row in rows for seed in seeds]


def all_runs(preset: str, section: str = "", model: str | None = None) -> list[Run]:
    """Every run of a preset once, the most important first; of the sections that begin with
    `section` ("1.2" has 1.2.1 to 1.2.3), of one model if one is named."""
    runs: dict[str, Run] = {}
    for experiment in EXPERIMENTS:
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


def _worker(
    runs: list[Run],
    results: Path,
    device: str | None,
    threads: int,
    deadline: float | None,
    show: bool,
) -> int:
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
            pace = result.seconds / run.train.epochs / cost
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
            print(said(result), flush=True)
    return failed


def said(result: Result) -> str:
    """A finished run in a line."""
    return (
        f"{result.run.file_name}: validation {result.val:.2f} %, test {result.test:.2f} %, "
        f"{result.seconds:.0f} s"
    )


def run_all(
    runs: list[Run],
    results: Path,
    jobs: int = 1,
    device: str | None = None,
    progress: bool = True,
    deadline: float | None = None,
) -> int:
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
    # for example.
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
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(min(_worker(*args, False), 125))


def _end_with_parent() -> None:
    """Whatever ends the parent ends its workers: it may be killed before it can tell them."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)  # nothing is lost: checkpoints and results are written atomically


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
        state = f"{result.test:6.2f} %" if result else "       -"
        where = "  (for an accelerator)" if not result and run.petaflop > FOR_GPU else ""
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
    parser.add_argument(
        "--stop-after",
        type=float,
        metavar="SECONDS",
        help="end at the next epoch, with the state kept: for lent machines",
    )
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
        print(
            f"{len(unfinished)} runs are being trained by another process, the first is "
            f"{unfinished[0].file_name}",
            file=sys.stderr,
        )
        return BUSY
    return 0


if __name__ == "__main__":
    sys.exit(main())
