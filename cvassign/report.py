# LLM-assisted: prompts P6, P8, P9, P15, see report.md
"""Fills the numbers and tables in report.md, README.md and the notebooks' text from results.

    python -m cvassign.report          # or: make report

A number or table stands between two comments, invisible on the page. The first says what it is,
and only what stands between them is written here:

    <!--= best vit test -->91.14 ± 0.13<!--/-->     experiment, model, [row,] field: mean ± std
    <!--= patch vit "patch 2" test - reference vit test -->−0.77<!--/-->   difference of the means
    <!--= json study/headline over\\ images/mean +.2f -->−0.89<!--/-->      file, path, format
    <!--= interval study/headline over\\ images +.2f -->...<!--/-->       mean [low, high] of a file
    <!--= rank lemon.webp Keras surface -->1<!--/-->   picture, model, change: rank of its class
    <!--= alarms 13 -->0.65<!--/-->                         false alarms in so many comparisons
    <!--= line 15 val 13 2 3 -->1.47<!--/-->   epochs, split, comparisons at once, runs of means
    <!--= table patch vit diff -->...<!--/-->               the rows of an experiment
    <!--= clip -->...<!--/-->                               what notebook 3 measured of CLIP"""

import json
import re
import shlex
import sys
from functools import cache
from pathlib import Path
from statistics import fmean

from cvassign.experiments import experiment_runs
from cvassign.files import replacing
from cvassign.results import RESULTS, ROOT, Result, ResultError, by_label, load_all
from cvassign.stats import Noise, interval, mean_std
from cvassign.vit import KINDS

PLACES = ("*.md", "notebooks/*.md", "notebooks/*.ipynb")
TEXTS = [path for place in PLACES for path in sorted(ROOT.glob(place))]  # those with markers
MARKER = re.compile(r"<!--= (.+?) -->(.*?)<!--/-->", re.DOTALL)
# A field's value for one seed, and the form of the seeds' mean: "±" with deviation, "to" the range.
FIELDS = {
    "val": (lambda r: r.val, "±"),
    "test": (lambda r: r.test, "±"),
    "train loss": (lambda r: r.history["train_loss"][-1], ".3f"),
    "validation loss": (lambda r: r.history["val_loss"][-1], ".3f"),
    "parameters": (lambda r: r.n_params, ",.0f"),
    # The first epoch whose validation accuracy is above 80 %.
    "above 80": (lambda r: 1 + [v > 80 for v in r.history["val_accuracy"]].index(True), "to"),
}


@cache
def _rows(experiment: str, model: str) -> dict[str, list[Result]]:
    return by_label(load_all(experiment_runs(experiment, model, "full")))


def _values(experiment: str, model: str, *label_field: str) -> tuple[list[float], str]:
    """A field's values, one a seed, and its form; of the row with the label, else of the first."""
    *label, field = label_field
    rows, (value, form) = _rows(experiment, model), FIELDS[field]
    return [value(r) for r in rows[label[0] if label else list(rows)[0]]], form


def _number(*words: str) -> str:
    if "-" in words:
        at = words.index("-")
        (one, form), (other, _) = _values(*words[:at]), _values(*words[at + 1 :])
        return _signed(fmean(one) - fmean(other), "+.2f" if form == "±" else f"+{form}")
    values, form = _values(*words)
    if form == "to":
        return " to ".join(map(str, sorted({min(values), max(values)})))
    return mean_std(values) if form == "±" else format(fmean(values), form)


def _signed(value: float, form: str) -> str:
    return format(value, form).replace("-", "−")


@cache
def _stored(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _read(name: str, path: str):
    value = _stored(name)
    for step in path.split("/"):
        value = value[int(step) if isinstance(value, list) else step]
    return value


def _rank(picture: str, model: str, change: str = "as is") -> str:
    """The rank of a picture's class after a change; a part of its name and of the model's do."""
    of = _stored("study/counterfactual")["ranks"]
    for part in (picture, model):
        (of,) = (value for name, value in of.items() if part in name)
    return str(of[change][0])


def _table(experiment: str, *models: str) -> str:
    rows = [_rows(experiment, m) for m in models]
    columns = ("parameters", "validation %", "test %")
    header = ["", "GFLOP per image", *(f"{KINDS[m][1]}, {c}" for m in models for c in columns)]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for label in dict.fromkeys(label for of_model in rows for label in of_model):
        groups = [of_model.get(label, []) for of_model in rows]
        both = sum(groups, [])
        line = [label + " †" * any(r.on_cpu for r in both), f"{both[0].gflop:.3f}"]
        for group in groups:
            line.append(f"{group[0].n_params:,}" if group else "–")
            line += [mean_std([getattr(r, split) for r in group]) for split in ("val", "test")]
        lines.append(line)
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    note = "\n\n† trained on a CPU, or partly: another order of the images." if "†" in table else ""
    return f"\n\n{table}{note}\n\n"


def _line(epochs: str, split: str, at_once: str, *runs: str) -> str:
    """Beyond it means of so many runs are told apart at 95 %, in so many comparisons at once."""
    noise = Noise(**_read("study/headline", f"noise/{epochs} epochs/{split}"))
    return f"{noise.between(1 / sum(1 / int(n) for n in runs), comparisons=int(at_once)):.2f}"


def _clip() -> str:
    """What notebook 3 left in results/clip/clip.json, written where CLIP's weights are."""
    if not (RESULTS / "clip" / "clip.json").exists():
        return "No result of CLIP itself is stored: notebook 3 has not run with its weights yet."
    rows = "\n".join(f"| {k} | {v} |" for k, v in _stored("clip/clip").items())
    return f"\n\n| | |\n|---|---|\n{rows}\n\n"


SPECIAL = {
    "table": _table,
    "json": lambda name, path, form, by="1": _signed(_read(name, path) * json.loads(by), form),
    "interval": lambda name, path, form: interval(_read(name, path), form),
    "rank": _rank,
    "line": _line,
    "alarms": lambda comparisons: f"{0.05 * int(comparisons):.2f}",
    "clip": _clip,
}


def _value(key: str) -> str:
    first, *rest = words = shlex.split(key)
    try:
        return SPECIAL[first](*rest) if first in SPECIAL else _number(*words)
    except (LookupError, TypeError, ValueError, OSError) as error:
        raise ResultError(f"no result fills {key!r}: {error!r}") from error


def filled(text: str) -> str:
    """The text with the value of every marker; ResultError names a marker that nothing fills."""
    return MARKER.sub(lambda m: f"<!--= {m[1]} -->{_value(m[1])}<!--/-->", text)


def filled_file(path: Path) -> str:
    """The content of a text or notebook with every marker filled; code and outputs stay."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return filled(content)
    notebook = json.loads(content)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = filled("".join(cell["source"])).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    for path in TEXTS:
        try:
            content = filled_file(path)
        except ResultError as error:
            sys.exit(f"{path.name}: {error}")
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
