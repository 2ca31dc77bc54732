# LLM-assisted: prompts P1, P2, P8, see report.md
"""What the notebooks share: stored results, their tables, and sources on the page.

Two environment variables steer a notebook. Neither is needed: then it shows what is stored.
CVASSIGN_SMOKE=1 trains tiny models on generated pictures instead (`make test`), and
CVASSIGN_RETRAIN=1 first trains all runs that have no stored result on this machine.
"""

import inspect
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from IPython.display import HTML, Markdown, display
from torch import Tensor

from cvassign.device import pick_device
from cvassign.experiments import MODELS, all_runs, experiment_runs, run_all
from cvassign.experiments import stored as stored_results
from cvassign.plots import by_name
from cvassign.results import RESULTS, ROOT, ResultError, Run, load_logits, load_model
from cvassign.stats import mean_std
from cvassign.vit import VisionTransformer, ViTConfig, gflop_per_image

SMOKE = os.environ.get("CVASSIGN_SMOKE") == "1"
RETRAIN = os.environ.get("CVASSIGN_RETRAIN") == "1"


def _first_paragraph(docstring: re.Match) -> str:
    return '"""' + re.split(r"\n\s*\n", docstring[1])[0].rstrip() + '"""'


def source(*things) -> None:
    """Shows the source of functions and classes, each under its file; of a docstring the first
    sentence, as its text is for who calls the function and the page is for who reads its code."""
    # nbconvert's pages leave code in a Markdown output without a code font; other viewers drop this.
    display(HTML("<style>.highlight pre {font-family: monospace; line-height: 1.3}</style>"))
    for thing in things:
        file = Path(inspect.getsourcefile(inspect.unwrap(thing))).relative_to(ROOT)
        code = inspect.getsource(thing).replace("  # fmt: skip", "")
        code = re.sub(r'"""(.*?)"""', _first_paragraph, code, flags=re.DOTALL)
        display(Markdown(f"`{file}`: `{thing.__qualname__}`\n\n```python\n{code}```"))


def shown(frame: pd.DataFrame):
    """A table as a notebook shows it, with no number broken over two lines."""
    rule = {"selector": "td, th", "props": "white-space: nowrap"}
    # With an id of its own, not a random one, the same table is the same text in the file.
    return frame.style.set_table_styles([rule]).set_uuid("table")


class Stored:
    """The results that a notebook reads.

    Args:
        models: what to train in smoke mode or with CVASSIGN_RETRAIN: "vit", "diff".
    """

    def __init__(self, models: Sequence[str] = MODELS):
        self.presets, self.results = ("full", "cpu"), RESULTS
        if SMOKE:
            self.presets, self.results = ("smoke",), Path(tempfile.mkdtemp(prefix="cvassign-"))
        if SMOKE or RETRAIN:
            gpu = pick_device().type == "cuda"
            preset = "smoke" if SMOKE else "full" if gpu else "cpu"
            runs = [run for model in models for run in all_runs(preset, model=model)]
            run_all(runs, self.results, progress=RETRAIN)

    def __call__(self, experiment: str, *models: str) -> list[dict]:
        """The stored results of an experiment, of the ViT or of the models named.

        Raises:
            ResultError: if there is none at all; the message says how to train them.
        """
        found = []
        for model in models or ("vit",):
            preset, got = stored_results(experiment, model, self.presets, self.results)
            if not got:
                raise ResultError(
                    f"no stored result of {experiment!r} for {model!r}; to train them: "
                    f"python -m cvassign.experiments run --preset {preset} --model {model}"
                )
            found += got
        return found

    def missing(self, experiment: str, *models: str) -> list[str]:
        """The labels of an experiment's runs that have no result yet."""
        found = {(r["name"], r["seed"]) for r in self(experiment, *models)}
        preset = self(experiment, *models)[0]["preset"]
        runs = [r for m in models or ("vit",) for r in experiment_runs(experiment, m, preset)]
        return [f"{r.name}, seed {r.seed}" for r in runs if (r.name, r.seed) not in found]

    def runs(self, model: str = "vit") -> list[Run]:
        """The runs of the best recipe, one a seed."""
        return experiment_runs("best", model, self("best", model)[0]["preset"])

    def model(self, model: str = "vit", experiment: str = "best") -> VisionTransformer:
        """The trained model of the best recipe, or of the reference recipe; seed 0."""
        preset = self(experiment, model)[0]["preset"]
        return load_model(experiment_runs(experiment, model, preset)[0], self.results)

    def logits(self, model: str = "vit", seed: int = 0):
        """What that model said of the test images when it was trained, (n, 10)."""
        return load_logits(self.runs(model)[seed], self.results)

    def study(self, name: str) -> dict:
        """A stored study, results/study/NAME.json; in smoke mode that of the real models."""
        return json.loads((RESULTS / "study" / f"{name}.json").read_text(encoding="utf-8"))


def pick_images(logits: Tensor, labels: Tensor) -> Tensor:
    """Indices of twelve test images by rule: the first of each class that is recognised, then the
    two mistakes of which the model is most sure."""
    predicted, sure = logits.argmax(1), logits.softmax(1).amax(1)
    right = [int(((labels == c) & (predicted == c)).float().argmax()) for c in range(10)]
    wrong = torch.where(predicted != labels, sure, 0.0).topk(2).indices
    return torch.cat([torch.tensor(right), wrong])


def _numbers(group: list[dict]) -> dict[str, str]:
    return {
        "train loss": f"{sum(r['history']['train_loss'][-1] for r in group) / len(group):.3f}",
        "validation loss": f"{sum(r['history']['val_loss'][-1] for r in group) / len(group):.3f}",
        "validation %": mean_std([r["val_accuracy"] for r in group]),
        "test %": mean_std([r["test_accuracy"] for r in group]),
    }


def table(results: Sequence[dict]):
    """A row for each configuration: its cost, training loss and accuracies (mean ± std over n seeds).

    The training loss is that of augmented images with smoothed labels.
    """
    rows = []
    for group in by_name(results):
        r = group[0]
        gflop = gflop_per_image(ViTConfig(**r["config"]["model"]))
        about = {"": r["label"], "epochs": r["epochs"], "parameters": f"{r['n_params']:,}"}
        about |= {"GFLOP per image": f"{gflop:.3f}"} | _numbers(group)
        rows.append(about | {"seeds": len(group)})
    return shown(pd.DataFrame(rows).set_index(""))


def side_by_side(vit: Sequence[dict], diff: Sequence[dict]):
    """A row for each configuration: ViT beside Diff-ViT, and the difference in test accuracy."""
    groups = [{g[0]["label"]: g for g in by_name(results)} for results in (vit, diff)]
    mean = lambda g: sum(r["test_accuracy"] for r in g) / len(g)  # noqa: E731
    rows = {}
    for label in dict.fromkeys([*groups[0], *groups[1]]):
        sides = [g.get(label) for g in groups]
        row = {}
        for key in ("validation %", "test %"):
            for name, group in zip(("ViT", "Diff-ViT"), sides):
                row[f"{name}, {key}"] = _numbers(group)[key] if group else "not run"
        both = all(sides)
        row["test, Diff-ViT − ViT"] = f"{mean(sides[1]) - mean(sides[0]):+.2f}" if both else "–"
        rows[label] = row
    return shown(pd.DataFrame(rows).T)
