# LLM-assisted: prompts P6, P8, P9, see report.md
"""Fills the numbers and tables of report.md and README.md from the stored results.

    python -m cvassign.report          # or: make report

The text is written by hand. A number or table stands between two comments, the first of which says
what it is, and only what stands between them is written here:

    <!--= best vit test -->91.14 ± 0.13<!--/-->                    experiment, model, field
    <!--= patch vit "patch 2" test -->81.77<!--/-->                 ... of one label
    <!--= study/headline over\\ images/mean +.2f -->-0.89<!--/-->   a file of results/, path, format
    <!--= table patch vit diff -->...<!--/-->                       the runs of an experiment
    <!--= clip -->...<!--/-->                                       what notebook 3 measured of CLIP
"""

import json
import re
import shlex
import sys
from pathlib import Path

from cvassign.experiments import MODELS, SECTIONS, experiment_runs
from cvassign.files import replacing
from cvassign.plots import by_name
from cvassign.results import RESULTS, ROOT, ResultError, load_all
from cvassign.stats import mean_std
from cvassign.vit import ViTConfig, gflop_per_image

FILES = ("report.md", "README.md")
MARKER = re.compile(r"<!--= (.+?) -->(.*?)<!--/-->", re.DOTALL)
FIELDS = {
    "val": lambda r: r["val_accuracy"],
    "test": lambda r: r["test_accuracy"],
    "train loss": lambda r: r["history"]["train_loss"][-1],
    "validation loss": lambda r: r["history"]["val_loss"][-1],
}
NAMES = {"vit": "ViT", "diff": "Diff-ViT"}


def _groups(experiment: str, model: str) -> dict[str, list[dict]]:
    """The stored results of an experiment by label, the seeds together."""
    found = load_all(experiment_runs(experiment, model, "full"))
    return {g[0]["label"]: g for g in by_name(found)} if found else {}


def _number(experiment: str, model: str, *rest: str) -> str:
    *label, field = rest
    groups = _groups(experiment, model)
    group = groups[label[0]] if label else next(iter(groups.values()))
    values = [FIELDS[field](r) for r in group]
    return mean_std(values) if "loss" not in field else f"{sum(values) / len(values):.3f}"


def _file(name: str, path: str, form: str, scale: str = "1") -> str:
    value = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    for step in path.split("/"):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return format(value * float(scale), form)


def _table(experiment: str, *models: str) -> str:
    groups = {m: _groups(experiment, m) for m in models}
    header = ["", "GFLOP per image"]
    for m in models:
        header += [f"{NAMES[m]}, {what}" for what in ("parameters", "validation %", "test %")]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for label in dict.fromkeys(label for g in groups.values() for label in g):
        shown = next(g[label] for g in groups.values() if label in g)
        cost = gflop_per_image(ViTConfig(**shown[0]["config"]["model"]))
        line = [label, f"{cost:.3f}"]
        for g in groups.values():
            of = g.get(label)
            line += [f"{of[0]['n_params']:,}", *(mean_std([FIELDS[f](r) for r in of])
                     for f in ("val", "test"))] if of else ["–"] * 3  # fmt: skip
        lines.append(line)
    return "\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n"


def _clip() -> str:
    """What notebook 3 left in results/clip/clip.json, written where CLIP's weights are."""
    path = RESULTS / "clip" / "clip.json"
    if not path.exists():
        return "No result of CLIP itself is stored: notebook 3 has not run with its weights yet."
    rows = json.loads(path.read_text(encoding="utf-8"))
    return "\n\n| | |\n|---|---|\n" + "\n".join(f"| {k} | {v} |" for k, v in rows.items()) + "\n\n"


def value_of(key: str) -> str:
    """What belongs at the marker with this key.

    Raises:
        ResultError: if no result fills it; the message names the key.
    """
    first, *rest = shlex.split(key)
    try:
        if first == "table":
            return _table(*rest)
        if first == "clip":
            return _clip()
        if first in SECTIONS and rest[0] in MODELS:
            return _number(first, *rest)
        return _file(first, *rest)
    except (KeyError, IndexError, StopIteration, TypeError, ValueError, OSError) as error:
        raise ResultError(f"no result fills {key!r}: {error!r}") from error


def filled(text: str) -> str:
    """The text with the value of every marker; ResultError names a marker that nothing fills."""
    return MARKER.sub(lambda m: f"<!--= {m[1]} -->{value_of(m[1])}<!--/-->", text)


def main() -> int:
    for name in FILES:
        path: Path = ROOT / name
        try:
            text = filled(path.read_text(encoding="utf-8"))
        except ResultError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
