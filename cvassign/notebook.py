# LLM-assisted: prompts P1, P2, P8, P15, P16, see report.md
"""What the notebooks share: stored results, their tables, and sources on the page.

CVASSIGN_SMOKE=1 shows tiny models trained on generated pictures instead, and CVASSIGN_RETRAIN=1
first trains, on this machine, the runs of its own preset that have no result."""

import inspect
import json
import linecache
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd
import torch
from IPython.display import HTML, Markdown, display
from torch import Tensor

from cvassign.data import DATASETS, Dataset
from cvassign.device import pick_device
from cvassign.experiments import MODELS, PRESETS, all_runs, experiment_runs, run_all
from cvassign.results import RESULTS, Result, Run, by_label, load_all, load_logits, load_model
from cvassign.settings import RETRAIN, SMOKE
from cvassign.stats import Noise, interval, mean_std
from cvassign.vit import VisionTransformer

ACCURACIES = {"val": "validation", "test": "test"}  # field of a result -> its name in tables


def source(*things) -> None:
    """Shows the source of functions and classes, each under its file; of a docstring the first
    sentence, as its text is for who calls the function and the page is for who reads its code."""
    # nbconvert's pages leave code in a Markdown output without a code font; others drop this.
    display(HTML("<style>.highlight pre {font-family: monospace; line-height: 1.3}</style>"))
    for thing in things:
        file = thing.__module__.replace(".", "/") + ".py"
        code = inspect.getsource(thing).replace("  # fmt: skip", "")
        code = re.sub(r'"""(.*?)(\n\s*\n.*?|\s*)"""', r'"""\1"""', code, flags=re.DOTALL)
        declared = linecache.getline(inspect.getsourcefile(inspect.unwrap(thing)), 1)  # prompts
        title = f"`{file}`: `{thing.__qualname__}` ({declared.strip()[2:]})"
        display(Markdown(f"{title}\n\n```python\n{code}```"))


def shown(frame: pd.DataFrame):
    """A table as a notebook shows it: headings may be broken over two lines, numbers may not."""
    rules = [{"selector": "td, th", "props": "white-space: nowrap"}]
    rules += [{"selector": "th.col_heading", "props": "white-space: normal; max-width: 6.5em"}]
    # With an id of its own, not a random one, the same table is the same text in the file.
    return frame.style.set_table_styles(rules).set_uuid("table")


class Rows(list):
    """The stored results of an experiment; `missing` are those of its runs that have none."""

    def __init__(self, results: Sequence[Result], missing: Sequence[Run] = ()):
        super().__init__(results)
        self.missing = missing


class Stored:
    """The results that a notebook reads; `models` are trained in smoke mode or for RETRAIN."""

    def __init__(self, models: Sequence[str] = MODELS):
        self.presets, self.results = ("full", "cpu"), RESULTS
        if SMOKE:
            self.presets, self.results = ("smoke",), Path(tempfile.mkdtemp(prefix="cvassign-"))
        elif RETRAIN:
            self.presets = ("full",) if pick_device().type == "cuda" else ("cpu",)
        if SMOKE or RETRAIN:
            runs = [r for model in models for r in all_runs(self.presets[0], model=model)]
            if run_all(runs, self.results):
                print("some runs failed, see above; their rows are missing", file=sys.stderr)
        if not SMOKE:
            print(f"results of preset {self.presets[0]!r}, from results/{self.presets[0]}")

    def __call__(self, experiment: str, model: str = "vit") -> Rows:
        """The stored results of an experiment; a line says how to train the runs without one."""
        runs = self.runs(model, experiment)
        found = load_all(runs, self.results)
        have = [result.run for result in found]
        if missing := [run for run in runs if run not in have]:
            names = ", ".join(f"{r.label} (seed {r.seed})" for r in missing)
            which = f"--preset {runs[0].preset} --section {runs[0].section} --model {model}"
            print(f"not run: {names}; to train: python -m cvassign.experiments run {which}")
        return Rows(found, missing)

    def runs(self, model: str = "vit", experiment: str = "best") -> list[Run]:
        """The runs of an experiment under the first preset that has a result of it."""
        tables = [experiment_runs(experiment, model, preset) for preset in self.presets]
        stored = (t for t in tables if any((self.results / run.file_name).exists() for run in t))
        return next(stored, tables[0])

    def model(self, model: str = "vit", experiment: str = "best") -> VisionTransformer:
        """The trained model of the best recipe, or of the reference recipe; seed 0."""
        return load_model(self.runs(model, experiment)[0], self.results)

    def logits(self, model: str = "vit", seed: int = 0) -> Tensor:
        """What the best model said of the test images when it was trained, (n, 10)."""
        return load_logits(self.runs(model)[seed], self.results)[0]

    def all_results(self, model: str = "vit") -> list[Result]:
        """Every stored result of a model, whatever its experiment."""
        return load_all(all_runs(self.presets[0], model=model), self.results)

    def dataset(self) -> Dataset:
        """The data that the shown results were trained on, on the CPU."""
        return DATASETS[PRESETS[self.presets[0]].dataset]()

    def noise(self, length: str) -> Noise:
        """What another seed does to the validation accuracy of runs of "15 epochs", say."""
        return Noise(**self.study("headline")["noise"][length]["val"])

    def study(self, name: str) -> dict:
        """A stored study, results/study/NAME.json; in smoke mode that of the real models."""
        return json.loads((RESULTS / "study" / f"{name}.json").read_text(encoding="utf-8"))


def score_table(scores: dict[str, dict], over: Sequence[str]):
    """Deletion and insertion of `study.attention` as a table: a row a map, with its gains `over`
    some of the study's `YARDSTICKS` and their intervals."""
    rows = {}
    for name, found in scores.items():
        rows[name] = {k: f"{found[k]:.1f}" for k in ("deletion", "insertion")}
        for gain in (f"{way} gain{words}" for words in over for way in ("deletion", "insertion")):
            if gain in found:
                rows[name][gain] = interval(found[gain], "+.1f")
    return shown(pd.DataFrame(rows).T.fillna("–"))


def pick_images(logits: Tensor, labels: Tensor) -> Tensor:
    """Indices of twelve test images by rule: the first of each class that is recognised, then the
    two mistakes of which the model is most sure."""
    predicted, sure = logits.argmax(1), logits.softmax(1).amax(1)
    right = [((labels == c) & (predicted == c)).float().argmax() for c in range(10)]
    return torch.stack([*right, *torch.where(predicted != labels, sure, 0.0).topk(2).indices])


def table(results: Rows, diff: Rows | None = None):
    """A row for each configuration: cost, losses and accuracies (mean ± std over seeds); † marks
    what was trained on a CPU, where everything else is from a GPU. Of two lists, of the ViT and of
    the Diff-ViT, accuracies and training loss side by side, with the difference of the means."""
    if diff is not None:
        return _side_by_side(by_label(results), by_label(diff))
    rows = []
    for group in by_label(results).values():
        r = group[0]
        row = {"": _label(group), "epochs": r.train.epochs, "parameters": f"{r.n_params:,}"}
        row["GFLOP an image"] = f"{r.gflop:.3f}"
        for key in ("train_loss", "val_loss"):
            row[key.replace("_", " ")] = f"{fmean(r.history[key][-1] for r in group):.3f}"
        for key, name in ACCURACIES.items():
            row[f"{name} %"] = mean_std([getattr(r, key) for r in group])
        rows.append(row | {"seeds": len(group)})
    rows += [{"": r.label, "test %": "missing", "seeds": 0} for r in results.missing if r.seed == 0]
    return shown(pd.DataFrame(rows, dtype=object).set_index("").fillna("–"))


def _label(group: list[Result]) -> str:
    return group[0].label + " †" * any(r.on_cpu for r in group)


def _side_by_side(vit: dict[str, list[Result]], diff: dict[str, list[Result]]):
    rows = {}
    for label in vit | diff:
        sides, row, gaps = [vit.get(label, []), diff.get(label, [])], {}, {}
        for key, name in ACCURACIES.items():
            of = [[getattr(r, key) for r in side] for side in sides]
            for model, values in zip(("ViT", "Diff-ViT"), of):
                row[f"{model}, {name} %"] = mean_std(values) if values else "missing"
            both = f"{fmean(of[1]) - fmean(of[0]):+.2f}" if all(of) else "–"
            gaps[f"{name}, Diff-ViT − ViT"] = both
        losses = [[r.history["train_loss"][-1] for r in side] for side in sides]
        gaps["train loss of both"] = ", ".join(f"{fmean(of):.3f}" if of else "–" for of in losses)
        rows[_label(sum(sides, []))] = row | gaps
    return shown(pd.DataFrame(rows).T)
