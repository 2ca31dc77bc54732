# LLM-assisted: prompts P6, P8, P9, P15, see report.md
"""Fills the numbers and tables in report.md, README.md and the notebooks' text from results.

    python -m cvassign.report          # or: make report

A number or table stands between two comments, invisible on the page. The first says what it is,
and only what stands between them is written here:

    <!--= best vit test -->91.14 ± 0.13<!--/-->            experiment, model, field: mean ± std
    <!--= patch vit "patch 2" test -->81.77<!--/-->         ... of one row
    <!--= patch vit "patch 2" test - reference vit test -->−0.77<!--/-->   difference of the means
    <!--= json study/headline over\\ images/mean +.2f -->−0.89<!--/-->      file, path, format
    <!--= interval study/headline over\\ images +.2f -->...<!--/-->       mean [low, high] of a file
    <!--= rank lemon.webp Keras surface -->1<!--/-->   picture, model, change: rank of its class
    <!--= alarms 13 -->0.65<!--/-->                         false alarms in so many comparisons
    <!--= table patch vit diff -->...<!--/-->               the rows of an experiment
    <!--= clip -->...<!--/-->                               what notebook 3 measured of CLIP
"""

import json
import re
import shlex
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import fmean

from cvassign.experiments import experiment_runs
from cvassign.files import replacing
from cvassign.results import RESULTS, ROOT, Result, ResultError, by_label, load_all
from cvassign.stats import false_alarms, interval, mean_std
from cvassign.vit import KINDS

COMPARISON = RESULTS / "study" / "counterfactual.json"
MARKER = re.compile(r"<!--= (.+?) -->(.*?)<!--/-->", re.DOTALL)
FIELDS: dict[str, Callable[[Result], float]] = {
    "val": lambda r: r.val,
    "test": lambda r: r.test,
    "train loss": lambda r: r.history["train_loss"][-1],
    "validation loss": lambda r: r.history["val_loss"][-1],
    "parameters": lambda r: r.n_params,
    "gflop": lambda r: r.gflop,
    # The first epoch whose validation accuracy is above 80 %.
    "above 80": lambda r: 1 + next(i for i, v in enumerate(r.history["val_accuracy"]) if v > 80),
}
FORMS = {"train loss": ".3f", "validation loss": ".3f", "parameters": ",.0f", "gflop": ".3f"}


def texts() -> list[Path]:
    """The files with markers."""
    found = [ROOT / "report.md", ROOT / "README.md", *sorted((ROOT / "notebooks").glob("*.md"))]
    return found + sorted((ROOT / "notebooks").glob("*.ipynb"))


@cache
def _rows(experiment: str, model: str) -> dict[str, list[Result]]:
    return by_label(load_all(experiment_runs(experiment, model, "full")))


def _values(words: list[str]) -> tuple[str, list[float]]:
    """A field and its values, one a seed, from [experiment, model, perhaps a label, field]."""
    experiment, model, *label, name = words
    rows = _rows(experiment, model)
    group = rows[label[0]] if label else next(iter(rows.values()))
    return name, [FIELDS[name](r) for r in group]


def _number(words: list[str]) -> str:
    if "-" in words:
        at = words.index("-")
        (name, one), (_, other) = _values(words[:at]), _values(words[at + 1 :])
        gap = fmean(one) - fmean(other)
        return format(gap, "+" + FORMS.get(name, ".2f")).replace("-", "−")
    name, values = _values(words)
    if name == "above 80":
        few, many = round(min(values)), round(max(values))
        return str(few) if few == many else f"{few} to {many}"
    if name in FORMS:
        return format(fmean(values), FORMS[name])
    return mean_std(values)


def _read(name: str, path: str):
    value = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    for step in path.split("/"):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def _json(name: str, path: str, form: str, scale: str = "") -> str:
    value = _read(name, path)
    return format(value * float(scale) if scale else value, form).replace("-", "−")


def _rank(picture: str, model: str, change: str = "as is") -> str:
    """The rank of a picture's class after a change; a part of its name and of the model's do."""
    of = _only(json.loads(COMPARISON.read_text(encoding="utf-8"))["ranks"], picture)
    return str(_only(of, model)[change][0])


def _only(named: dict, part: str):
    """The one value whose name has this part."""
    (found,) = (value for name, value in named.items() if part in name)
    return found


def _table(experiment: str, *models: str) -> str:
    rows = {m: _rows(experiment, m) for m in models}
    header = ["", "GFLOP per image"]
    for m in models:
        header += [f"{KINDS[m][1]}, {what}" for what in ("parameters", "validation %", "test %")]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for label in dict.fromkeys(label for of_model in rows.values() for label in of_model):
        shown = next(of_model[label] for of_model in rows.values() if label in of_model)
        line = [label + " †" * any(r.on_cpu for m in rows for r in rows[m].get(label, []))]
        line.append(f"{shown[0].gflop:.3f}")
        for group in (of_model.get(label, []) for of_model in rows.values()):
            line += [f"{group[0].n_params:,}"] if group else ["–"]
            line += [mean_std([FIELDS[f](r) for r in group]) for f in ("val", "test")]
        lines.append(line)
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    note = "\n\n† trained on a CPU, or partly: another order of the images." if "†" in table else ""
    return f"\n\n{table}{note}\n\n"


def _clip() -> str:
    """What notebook 3 left in results/clip/clip.json, written where CLIP's weights are."""
    path = RESULTS / "clip" / "clip.json"
    if not path.exists():
        return "No result of CLIP itself is stored: notebook 3 has not run with its weights yet."
    rows = json.loads(path.read_text(encoding="utf-8"))
    return "\n\n| | |\n|---|---|\n" + "\n".join(f"| {k} | {v} |" for k, v in rows.items()) + "\n\n"


SPECIAL: dict[str, Callable[..., str]] = {
    "table": _table,
    "json": _json,
    "interval": lambda name, path, form: interval(_read(name, path), form),
    "rank": _rank,
    "alarms": lambda comparisons: f"{false_alarms(int(comparisons)):.2f}",
    "clip": _clip,
}


def value_of(key: str) -> str:
    """What belongs at the marker with this key; ResultError names a key that no result fills."""
    first, *rest = words = shlex.split(key)
    try:
        return SPECIAL[first](*rest) if first in SPECIAL else _number(words)
    except (LookupError, StopIteration, TypeError, ValueError, OSError) as error:
        raise ResultError(f"no result fills {key!r}: {error!r}") from error


def filled(text: str) -> str:
    """The text with the value of every marker; ResultError names a marker that nothing fills."""
    return MARKER.sub(lambda m: f"<!--= {m[1]} -->{value_of(m[1])}<!--/-->", text)


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


def main() -> int:
    for path in texts():
        try:
            content = filled_file(path)
        except ResultError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            return 1
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
