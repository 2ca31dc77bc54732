# LLM-assisted: prompts P1, P2, P5, P7, P10, P11, P13, P15, P17, see report.md
"""Every training run that the report needs, as data, and the command that trains them.

    python -m cvassign.experiments list [--preset P] [--section S] [--model M]
    python -m cvassign.experiments run  [... the same] [--jobs J] [--out DIR] [--stop-after SECONDS]

Adding an experiment is one entry in `EXPERIMENTS`. Its rows change one thing at a time in a base
recipe; the ViT and the Diff-ViT go through the same rows, only `attention` differs. Of the presets
`full` is reported, `cpu` shows every experiment on a laptop, `smoke` is for tests."""

import math
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch

from cvassign.command import Parser
from cvassign.device import cores, pick_device
from cvassign.results import RESULTS, Busy, Result, ResultError, Run, load, run_or_load
from cvassign.train import Diverged, TimeUp, TrainConfig
from cvassign.vit import KINDS, ViTConfig, gflop_per_image

MODELS = tuple(KINDS)  # "vit", "diff"
BUSY = 3  # exit code: nothing failed, but another process still trains


class Preset(NamedTuple):
    """How large the experiments are on one kind of machine."""

    reference: dict  # the reference recipe: changes to COMMON
    long: dict  # the long recipe: changes to the reference recipe
    candidates: tuple[dict, ...] = ()  # changes to the long recipe that were tried ...
    winner: dict = {}  # ... of which validation chose this one
    short: dict = {}  # where the best recipe takes too long: positions are compared on it made so
    seeds: dict = {}  # experiment, or experiment and model -> number of seeds; else one
    rows: int | None = None  # of each experiment, the first ones; None: all
    dataset: str = "cifar10"


# Of the reference recipe what is the same in all presets: changes to ViTConfig and TrainConfig.
COMMON = dict(mlp_ratio=2.0, optimizer="muon", learning_rate=3e-3, augment="crop+flip")
RANDAUGMENT = "crop+flip+randaugment(2,9)"
STRONG = f"{RANDAUGMENT}+cutmix"
WINNER = dict(depth=9, unmixed_epochs=10, weight_decay=0.2)
PRESETS = {
    "full": Preset(
        dict(embed_dim=128, depth=6, num_heads=8, epochs=15, batch_size=256, warmup_epochs=1),
        dict(embed_dim=256, drop_path=0.05, epochs=50, warmup_epochs=2, augment=STRONG),
        candidates=(*({k: v} for k, v in WINNER.items()), WINNER),
        winner=WINNER,
        seeds={"best": 3, "reference": 3, "factorial": 3, ("hyper", "vit"): 2},
    ),
    "cpu": Preset(  # the same lists on a smaller model for three epochs
        dict(embed_dim=96, depth=4, num_heads=8, epochs=3, batch_size=128, warmup_epochs=0.3),
        dict(epochs=10, augment=RANDAUGMENT),
        short=dict(epochs=3),
    ),
    "smoke": Preset(
        dict(embed_dim=24, depth=2, num_heads=4, epochs=2, batch_size=64, warmup_epochs=0.2),
        dict(embed_dim=40, augment="crop+flip+cutmix"),
        candidates=(dict(unmixed_epochs=1),),
        short=dict(epochs=1),
        seeds=dict(best=2, reference=2),
        rows=4,
        dataset="generated",
    ),
}


class Row(NamedTuple):
    """One row of an experiment's table."""

    changes: dict = {}  # to the experiment's base recipe
    label: str = ""  # empty: the changes in words
    models: tuple[str, ...] = MODELS
    base: str = ""  # another base recipe than the experiment's


class Experiment(NamedTuple):
    """A table of the report."""

    sections: tuple[str, str]  # of the assignment: of the ViT, of the Diff-ViT
    rows: list[Row] | Callable[[Preset], list[Row]]
    base: str = "reference"  # the recipe that its rows change, or "long"


def _augment(preset: Preset) -> list[Row]:
    weak = ("none", "crop+flip", "crop+flip+jitter", "crop+flip+cutmix", RANDAUGMENT, STRONG)
    long = dict.fromkeys(("crop+flip", RANDAUGMENT, preset.long["augment"]))
    epochs = (preset.reference | preset.long)["epochs"]
    rows = [Row(dict(augment=a), a) for a in weak]
    return rows + [Row(dict(augment=a), f"{epochs} epochs, {a}", base="long") for a in long]


HYPER = dict(depth=(3, 9), embed_dim=(64, 192), num_heads=(2, 16, 32), mlp_ratio=(4.0,),
             learning_rate=(0.0015, 0.006))  # fmt: skip
POSITION = {"none": "none", "learned_1d": "1-D learned", "learned_2d": "2-D learned",
            "sinusoidal": "sinusoidal"}  # fmt: skip
PATCHES = [Row(dict(patch_size=size), f"patch {size}") for size in (2, 4, 8)]
VIT, DIFF = ("vit",), ("diff",)
# Why is the Diff-ViT behind? What it changes, one thing after the other.
FACTORIAL = [
    Row(label="8 heads of width 16", models=VIT),
    Row(dict(attention="standard_norm"), "8 heads, norm", VIT),
    Row(dict(num_heads=4), "4 heads of width 32", VIT),
    Row(dict(num_heads=4, attention="standard_norm"), "4 heads, norm", VIT),
    Row(dict(attention="diff_no_norm"), "4 pairs, no norm", DIFF),
    Row(label="4 pairs, norm", models=DIFF),
]
VARIANTS = [
    Row(dict(attention="diff_no_scale"), "without × (1 − λ_init)", DIFF),
    Row(dict(attention="diff_fixed_lambda"), "λ fixed at λ_init", DIFF),
    Row(dict(attention="diff_constant_init"), "λ_init 0.8 everywhere", DIFF),
    Row(dict(lambda_share=0.33), "λ's vectors at a third of the rate", DIFF),
    Row(dict(attention="diff_v2"), "the authors' second version", DIFF),
]
# By priority. A row that changes nothing is the base recipe itself, and shares its result.
EXPERIMENTS = {
    "best": Experiment(("1.2.2", "2.2.1"), lambda p: [Row(p.winner, "best recipe")], "long"),
    "reference": Experiment(("1.1", "2.1.3"), [Row(label="reference recipe")]),
    "hyper": Experiment(
        ("1.2.2", "2.2.1"),
        [Row(label="reference"), *(Row({k: v}) for k, values in HYPER.items() for v in values)]
        + [Row(dict(optimizer="adamw", learning_rate=r)) for r in (0.00075, 0.0015, 0.003)],
    ),
    "factorial": Experiment(("2.2", "2.2"), FACTORIAL),
    "variants": Experiment(("2.2", "2.2"), VARIANTS),
    "augment": Experiment(("1.2.3", "2.2.2"), _augment),
    "position": Experiment(
        ("1.3", "2.2.3"),
        lambda p: [Row(p.winner | p.short | dict(position=k), v) for k, v in POSITION.items()],
        "long",
    ),
    "patch": Experiment(("1.2.1", "2.1.3"), PATCHES),
    "flip": Experiment(("1.4.4", "1.4.4"), [Row(dict(augment="crop"), "crop", VIT)]),
    "candidates": Experiment(
        ("1.2.2", "2.2.1"), lambda p: [Row(label="long recipe"), *map(Row, p.candidates)], "long"
    ),
}


# The names of changes in tables and figures; in a file's name the fields have their own.
WORDS = {"depth": "{} layers", "embed_dim": "D {}", "num_heads": "{} heads",
         "mlp_ratio": "MLP × {}", "learning_rate": "rate {}", "optimizer": "AdamW",
         "unmixed_epochs": "no CutMix in the last {} epochs", "weight_decay": "decay {}"
         }  # fmt: skip


def _text(changes: dict, words: dict) -> str:
    """Changes as a text: by `WORDS` "rate 0.004", without "learning_rate 0.004"."""
    texts = {k: f"{v:g}" if type(v) is float else v for k, v in changes.items()}
    return ", ".join(words.get(k, k + " {}").format(v) for k, v in texts.items())


def _run(preset: str, experiment: str, model: str, row: Row, seed: int) -> Run:
    """The run of a row, for one model and seed. Its name follows from what is run."""
    table, p = EXPERIMENTS[experiment], PRESETS[preset]
    base = row.base or table.base
    recipe = dict(attention=KINDS[model][0]) | COMMON | p.reference
    recipe |= p.long if base == "long" else {}
    known = vars(TrainConfig) | vars(ViTConfig) | recipe  # a class has its fields' defaults
    changes = {k: v for k, v in row.changes.items() if known[k] != v}
    slug = re.sub(r"[^a-z0-9.]+", "-", _text(changes, {})).strip("-")
    name = "-".join(filter(None, (model, base, slug)))
    recipe |= row.changes
    vit = ViTConfig(**{k: v for k, v in recipe.items() if hasattr(ViTConfig, k)})
    train = TrainConfig(**{k: v for k, v in recipe.items() if not hasattr(ViTConfig, k)})
    label, section = row.label or _text(row.changes, WORDS), table.sections[MODELS.index(model)]
    # What figures and studies need; the rest would fill the repository.
    best = base == "long" and changes == p.winner
    shown = best or name in ("vit-reference", "vit-reference-augment-crop")
    kept = dict(keep_weights=seed == 0 and shown, keep_logits=best)
    return Run(name, label, section, preset, seed, vit, train, p.dataset, **kept)


def experiment_runs(experiment: str, model: str, preset: str) -> list[Run]:
    """The runs of one experiment for one model; a control belongs to one model only. Reference and
    best recipe have all their seeds in every table."""
    asked = {"experiment": experiment, "model": model, "preset": preset}
    for (what, value), known in zip(asked.items(), (EXPERIMENTS, MODELS, PRESETS)):
        if value not in known:
            raise ValueError(f"{what} must be one of {tuple(known)}, got {value!r}")
    p, rows = PRESETS[preset], EXPERIMENTS[experiment].rows
    rows = [r for r in (rows(p) if callable(rows) else rows)[: p.rows] if model in r.models]
    seeds, found = p.seeds.get(experiment) or p.seeds.get((experiment, model), 1), []
    for row in rows:
        first = _run(preset, experiment, model, row, 0)
        n = max(
            seeds, p.seeds.get("best" if first.keep_logits else first.name[len(model) + 1 :], 1)
        )
        found += [first, *(_run(preset, experiment, model, row, seed) for seed in range(1, n))]
    return found


def all_runs(preset: str, section: str = "", model: str | None = None) -> list[Run]:
    """Every run of a preset once, the most important first; of the sections that begin with
    `section` ("1.2" has 1.2.1 to 1.2.3), of one model if one is named."""
    runs: dict[str, Run] = {}
    for experiment, kind in product(EXPERIMENTS, [model] if model else MODELS):
        for run in experiment_runs(experiment, kind, preset):
            if run.section.startswith(section):
                runs.setdefault(run.file_name, run)
    # One seed of everything before the second of anything.
    return sorted(runs.values(), key=lambda run: run.seed)


def _worker(runs: list[Run], results: Path, device: str | None, deadline: float) -> int:
    """Trains those of `runs` that nobody has done or is doing; returns how many failed."""
    alone = multiprocessing.parent_process() is None  # bars of several would overwrite one another
    failed, pace = 0, 0.0  # seconds of an epoch for each GFLOP per image, as the last run had it
    for run in runs:
        try:
            if load(run, results) is not None:
                continue
            cost = 1.0 if deadline == math.inf else gflop_per_image(run.model)
            if time.time() + pace * cost > deadline:
                continue  # not one epoch of it could be done
            result = run_or_load(run, results, device, alone, deadline)
            pace = result.seconds / run.train.epochs / cost
            print(f"{said(result)}\n", end="", flush=True)  # in one write: others print here too
        except Busy:
            continue
        except TimeUp as stop:
            print(f"{run.file_name}: stopped in time, {stop}", flush=True)
            break
        except Exception as error:  # one broken run must not stop the others
            own = isinstance(error, (Diverged, ValueError))  # the run's own fault: one line says it
            why = error if own else traceback.format_exc()
            print(f"failed: {run.file_name}: {why}", file=sys.stderr, flush=True)
            failed += 1
    return failed


def said(r: Result) -> str:
    """A finished run in a line."""
    return f"{r.run.file_name}: validation {r.val:.2f} %, test {r.test:.2f} %, {r.seconds:.0f} s"


def run_all(
    runs: list[Run], results: Path, jobs=1, device: str | None = None, deadline: float = math.inf
) -> int:
    """Trains `runs` in `jobs` processes, until `deadline`; returns 0 if all went well. There is no
    scheduler: each process takes what has neither a result nor a lock. So any number of processes,
    started at any time, can share one list."""
    if jobs < 1:
        raise ValueError(f"jobs must be positive, got {jobs}")
    if jobs == 1:
        return _worker(runs, results, device, deadline)
    process = multiprocessing.get_context("spawn").Process  # a forked one cannot use CUDA
    # Not a Pool: it waits for ever for a process that was killed, for its memory for example.
    task = max(1, cores() // jobs), runs, results, device, deadline
    workers = [process(target=_job, args=task, daemon=True) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if (code := worker.exitcode) < 0:
            print(f"failed: a process was killed by signal {-code}", file=sys.stderr, flush=True)
    return max(abs(worker.exitcode) for worker in workers)


def _job(threads: int, *args) -> None:
    """A worker as a process, whose exit code says whether a run failed."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(_worker(*args) > 0)


def _end_with_parent() -> None:
    """Whatever ends the parent ends its workers: it may be killed before it can tell them."""
    multiprocessing.parent_process().join()
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
        gflop = 0 if result else 3 * gflop_per_image(run.model) * 45_000 * run.train.epochs
        where = "  (for an accelerator)" if gflop > 1e6 else ""  # half a day of two cores
        print(f"{run.section:6} {state}  {run.file_name:60} {run.label}{where}")
    print(f"{done} of {len(runs)} runs done")


def parser_of(module: str, description: str, *commands: str) -> Parser:
    """The arguments that say which runs, where and on what."""
    parser = Parser(module, description)
    parser.add_argument("command", choices=commands)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="full")
    parser.add_argument("--section", default="", help="only sections that begin so, as 1.2")
    parser.add_argument("--model", choices=MODELS, help="only this model (default: both)")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side on a GPU or machine")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    parser = parser_of("cvassign.experiments", __doc__, "list", "run")
    early = "end at the next epoch, with the state kept: for lent machines"
    parser.add_argument("--stop-after", type=float, default=math.inf, metavar="SECONDS", help=early)
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends its workers as well
    runs = all_runs(given.preset, given.section, given.model)
    if not runs:
        parser.error(f"no run of section {given.section!r}")
    if given.command == "list":
        show(runs, given.out)
        return 0
    deadline = time.time() + given.stop_after
    try:
        pick_device(given.device)
        if run_all(runs, given.out, given.jobs, given.device, deadline=deadline):
            return 1
    except ValueError as error:
        parser.error(str(error))
    unfinished = [run.file_name for run in runs if not (given.out / run.file_name).exists()]
    if unfinished and deadline == math.inf:
        first = f"{len(unfinished)} runs, the first is {unfinished[0]}"
        parser.exit(BUSY, f"being trained by another process: {first}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
