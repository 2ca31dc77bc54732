# LLM-assisted: prompts P1, P2, see report.md
"""What the notebooks share: where results come from, tables of them, and text with numbers.

Three environment variables steer a notebook. None is needed: then it shows what is stored.
CVASSIGN_SMOKE=1 trains tiny models on generated pictures instead (`make test`), and
CVASSIGN_RETRAIN=1 first trains all runs that have no stored result on this machine.
"""

import inspect
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display

from cvassign.compare import mean_std
from cvassign.dino_figures import percent
from cvassign.experiments import MODELS, all_runs, experiment_runs, run_all, stored
from cvassign.plots import by_name
from cvassign.results import RESULTS, ROOT, ResultError, Run, load_model
from cvassign.train import pick_device
from cvassign.vit import VisionTransformer

__all__ = [
    "RETRAIN", "SMOKE", "Stored", "accuracy_table", "in_batches", "mean_std", "of_label", "percent",
    "ranked", "sampling_error", "say", "source",
]  # fmt: skip

SMOKE = os.environ.get("CVASSIGN_SMOKE") == "1"
RETRAIN = os.environ.get("CVASSIGN_RETRAIN") == "1"


def say(text: str) -> None:
    """Shows Markdown that a cell computed."""
    display(Markdown(text))


def source(*things) -> None:
    """Shows the source of functions and classes, each under its file, with syntax colours."""
    # nbconvert's pages leave code in a Markdown output without a code font; other viewers drop this.
    display(HTML("<style>.highlight pre {font-family: monospace; line-height: 1.3}</style>"))
    for thing in things:
        file = Path(inspect.getsourcefile(thing)).relative_to(ROOT)
        say(f"`{file}`: `{thing.__qualname__}`\n\n```python\n{inspect.getsource(thing)}```")


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

    def __call__(self, experiment: str, model: str = "vit") -> list[dict]:
        """The stored results of an experiment, see `experiments.stored`.

        Raises:
            ResultError: if there is none at all; the message says how to train them.
        """
        preset, found = stored(experiment, model, self.presets, self.results)
        if not found:
            raise ResultError(
                f"no stored result of {experiment!r} for {model!r}; to train them: "
                f"python -m cvassign.experiments run --preset {preset} --model {model}"
            )
        return found

    def caption(self, experiment: str, model: str = "vit") -> str:
        """Which runs a figure or table shows, in one sentence."""
        found = self(experiment, model)
        r = found[0]
        runs = experiment_runs(experiment, model, r["preset"])
        seeds = sorted(set(Counter(run.name for run in runs).values()))
        epochs = sorted({f["epochs"] for f in found})
        text = f"Preset `{r['preset']}`: {' or '.join(map(str, epochs))} epochs, " + (
            "one seed" if seeds == [1] else f"{' or '.join(map(str, seeds))} seeds"
        )
        if len(found) < len(runs):
            text += f"; {len(found)} of {len(runs)} runs are done"
        return f"{text}; {r['device']}."

    def model(
        self, model: str = "vit", experiments: Sequence[str] = ("best", "reference")
    ) -> tuple[Run, VisionTransformer]:
        """The trained model, seed 0, of the first of the experiments whose weights are stored.

        Raises:
            ResultError: if those of none are.
        """
        for experiment in experiments:
            for preset in self.presets:
                run = experiment_runs(experiment, model, preset)[0]
                try:
                    return run, load_model(run, self.results)
                except ResultError as missing:
                    error = missing
        raise error


def accuracy_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row a configuration: parameters, accuracies (percent, mean ± std), seeds, minutes."""
    rows = [
        {
            "": group[0]["label"],
            "parameters": f"{group[0]['n_params']:,}",
            "epochs": group[0]["epochs"],
            "seeds": len(group),
            "validation %": mean_std([r["val_accuracy"] for r in group]),
            "test %": mean_std([r["test_accuracy"] for r in group]),
            "minutes": f"{np.mean([r['train_seconds'] for r in group]) / 60:.1f}",
        }
        for group in by_name(results)
    ]
    return pd.DataFrame(rows).set_index("")


def ranked(results: Sequence[dict], key: str = "val_accuracy") -> list[tuple[str, float]]:
    """(label, mean over the seeds) of every configuration, the best first."""
    means = [(g[0]["label"], float(np.mean([r[key] for r in g]))) for g in by_name(results)]
    return sorted(means, key=lambda row: -row[1])


def of_label(results: Sequence[dict], label: str, key: str = "test_accuracy") -> float:
    """The mean over the seeds of the configuration with this label; NaN if it is not there."""
    return dict(ranked(results, key)).get(label, float("nan"))


def sampling_error(accuracy: float, n: int = 10_000) -> float:
    """Standard error, in points, of an accuracy (percent) that was measured on n images."""
    return 100 * float(np.sqrt(accuracy / 100 * (1 - accuracy / 100) / n))


def in_batches(f: Callable, images, size: int = 100) -> list:
    """f of slices of the images: explicit attention of many images at once fills the memory."""
    return [f(part) for part in images.split(size)]
