# LLM-assisted: prompts P1, P2, P8, P15, P16, see report.md
"""What the notebooks share: stored results, their tables, and sources on the page.

A notebook shows what is stored. CVASSIGN_SMOKE=1 trains tiny models on generated pictures instead,
and CVASSIGN_RETRAIN=1 first trains, on this machine, the runs of its own preset that have no
result, and then shows those.
"""

import inspect
import json
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
from cvassign.experiments import stored as stored_results
from cvassign.results import (
    RESULTS,
    Result,
    Run,
    by_label,
    by_name,
    load_all,
    load_logits,
    load_model,
)
from cvassign.settings import RETRAIN, SMOKE
from cvassign.stats import Noise, interval, mean_std
from cvassign.vit import VisionTransformer


def _first_paragraph(docstring: re.Match) -> str:
    return '"""' + re.split(r"\n\s*\n", docstring[1])[0].rstrip() + '"""'


def source(*things) -> None:
    """Shows the source of functions and classes, each under its file; of a docstring the first
    sentence, as its text is for who calls the function and the page is for who reads its code."""
    # nbconvert's pages leave code in a Markdown output without a code font; others drop this.
    display(HTML("<style>.highlight pre {font-family: monospace; line-height: 1.3}</style>"))
    for thing in things:
        file = thing.__module__.replace(".", "/") + ".py"
        code = inspect.getsource(thing).replace("  # fmt: skip", "")
        code = re.sub(r'"""(.*?)"""', _first_paragraph, code, flags=re.DOTALL)
        display(Markdown(f"`{file}`: `{thing.__qualname__}`\n\n```python\n{code}```"))


def shown(frame: pd.DataFrame):
    """A table as a notebook shows it: headings may be broken over two lines, numbers may not."""
    rules = [{"selector": "td, th", "props": "white-space: nowrap"}]
    rules += [{"selector": "th.col_heading", "props": "white-space: normal; max-width: 6.5em"}]
    # With an id of its own, not a random one, the same table is the same text in the file.
    return frame.style.set_table_styles(rules).set_uuid("table")


class Rows(list):
    """The stored results of an experiment; `missing` are those of its runs that have none."""

    missing: list[Run] = []

    def with_seeds(self, other: Sequence[Result]) -> "Rows":
        """These results, and of `other` the further seeds of runs that are among them."""
        have = {(r.run.name, r.run.seed) for r in self}
        names = {name for name, _ in have}
        more = [r for r in other if r.run.name in names and (r.run.name, r.run.seed) not in have]
        found = Rows([*self, *more])
        found.missing = self.missing
        return found


class Stored:
    """The results that a notebook reads.

    Args:
        models: what to train in smoke mode or with CVASSIGN_RETRAIN: "vit", "diff".
    """

    def __init__(self, models: Sequence[str] = MODELS):
        self.presets, self.results = ("full", "cpu"), RESULTS
        if SMOKE:
            self.presets, self.results = ("smoke",), Path(tempfile.mkdtemp(prefix="cvassign-"))
        elif RETRAIN:
            self.presets = ("full",) if pick_device().type == "cuda" else ("cpu",)
        if SMOKE or RETRAIN:
            runs = [r for model in models for r in all_runs(self.presets[0], model=model)]
            if run_all(runs, self.results, progress=RETRAIN and not SMOKE):
                print("some runs failed, see above; their rows are missing", file=sys.stderr)
        if not SMOKE:
            print(f"results of preset {self.presets[0]!r}, from results/{self.presets[0]}")

    def __call__(self, experiment: str, *models: str) -> Rows:
        """The stored results of an experiment, of the ViT or of the models named. For runs without
        a result one line says how to train them."""
        found = Rows()
        for model in models or ("vit",):
            preset, got = stored_results(experiment, model, self.presets, self.results)
            have = {(r.run.name, r.run.seed) for r in got}
            runs = experiment_runs(experiment, model, preset)
            missing = [r for r in runs if (r.name, r.seed) not in have]
            found += got
            found.missing = [*found.missing, *missing]
            if missing:
                names = ", ".join(f"{r.label} (seed {r.seed})" for r in missing)
                which = f"--preset {preset} --section {missing[0].section} --model {model}"
                print(f"not run: {names}; to train: python -m cvassign.experiments run {which}")
        return found

    def runs(self, model: str = "vit", experiment: str = "best") -> list[Run]:
        """The runs of an experiment under the preset that is shown."""
        preset, _ = stored_results(experiment, model, self.presets, self.results)
        return experiment_runs(experiment, model, preset)

    def model(self, model: str = "vit", experiment: str = "best") -> VisionTransformer:
        """The trained model of the best recipe, or of the reference recipe; seed 0."""
        return load_model(self.runs(model, experiment)[0], self.results)

    def logits(self, model: str = "vit", seed: int = 0) -> Tensor:
        """What the best model said of the test images when it was trained, (n, 10)."""
        return load_logits(self.runs(model)[seed], self.results)

    def all_results(self, model: str = "vit") -> list[Result]:
        """Every stored result of a model, whatever its experiment."""
        return load_all(all_runs(self.presets[0], model=model), self.results)

    def dataset(self) -> Dataset:
        """The data that the shown results were trained on, on the CPU."""
        return DATASETS[PRESETS[self.presets[0]].dataset]()

    def noise(self, length: str) -> Noise:
        """What another seed does to the validation accuracy of runs of "15 epochs", say."""
        held = self.study("headline")["noise"][length]["val"]
        return Noise(held["std"], held["df"])

    def study(self, name: str) -> dict:
        """A stored study, results/study/NAME.json; in smoke mode that of the real models."""
        return json.loads((RESULTS / "study" / f"{name}.json").read_text(encoding="utf-8"))


def score_table(scores: dict[str, dict]):
    """Deletion and insertion of `study.attention` as a table: a row a map, gains with intervals."""
    rows = {}
    for name, found in scores.items():
        row = {k: f"{found[k]:.1f}" for k in ("deletion", "insertion")}
        gains = [k for k in found if "gain" in k]
        rows[name] = row | {k: interval(found[k], "+.1f") for k in gains}
    return shown(pd.DataFrame(rows).T.fillna("–"))


def pick_images(logits: Tensor, labels: Tensor) -> Tensor:
    """Indices of twelve test images by rule: the first of each class that is recognised, then the
    two mistakes of which the model is most sure."""
    predicted, sure = logits.argmax(1), logits.softmax(1).amax(1)
    right = [int(((labels == c) & (predicted == c)).float().argmax()) for c in range(10)]
    wrong = torch.where(predicted != labels, sure, 0.0).topk(2).indices
    return torch.cat([torch.tensor(right), wrong])


def _numbers(group: list[Result]) -> dict[str, str]:
    return {
        "train loss": f"{fmean(r.history['train_loss'][-1] for r in group):.3f}",
        "val loss": f"{fmean(r.history['val_loss'][-1] for r in group):.3f}",
        "validation %": mean_std([r.val for r in group]),
        "test %": mean_std([r.test for r in group]),
    }


def table(*experiments: Rows):
    """A row for each configuration: its cost, training loss and accuracies (mean ± std over seeds);
    † marks what was trained on a CPU, where everything else is from a GPU.

    Two lists, of the ViT and of the Diff-ViT, stand side by side with the difference of the means.
    """
    if len(experiments) == 2:
        return _side_by_side(*experiments)
    (results,) = experiments
    rows = []
    for group in by_name(results) if results else []:
        r = group[0]
        about = {"": _label(group), "epochs": r.train.epochs, "parameters": f"{r.n_params:,}"}
        about |= {"GFLOP an image": f"{r.gflop:.3f}"} | _numbers(group)
        rows.append(about | {"seeds": len(group)})
    rows += [{"": r.label, "test %": "missing", "seeds": 0} for r in results.missing if r.seed == 0]
    return shown(pd.DataFrame(rows, dtype=object).set_index("").fillna("–"))


def _label(group: list[Result]) -> str:
    return group[0].label + " †" * any(r.on_cpu for r in group)


def _side_by_side(vit: Rows, diff: Rows):
    groups, rows = [by_label(vit), by_label(diff)], {}
    for label in groups[0] | groups[1]:
        sides, row = [g.get(label, []) for g in groups], {}
        for key in ("validation %", "test %"):
            for name, group in zip(("ViT", "Diff-ViT"), sides):
                row[f"{name}, {key}"] = _numbers(group)[key] if group else "missing"
        for field, name in (("val", "validation"), ("test", "test")):
            means = [fmean(getattr(r, field) for r in side) for side in sides if side]
            both = f"{means[1] - means[0]:+.2f}" if all(sides) else "–"
            row[f"{name}, Diff-ViT − ViT"] = both
        rows[_label(sum(sides, []))] = row
    return shown(pd.DataFrame(rows).T)
