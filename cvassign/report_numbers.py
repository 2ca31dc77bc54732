# LLM-assisted: prompts P6, see report.md
"""Numbers that know where they come from: no number of the report is typed by hand.

A `Number` is an entry of a result file, or a formula over such entries; its `origin` says which.
`Writer.put` prints it into the text and notes text, format and origin. The test of the report
computes every printed number once more from the files, and finds any digit that was not put.

An origin is a nested tuple, evaluated in `tests/test_report.py`:

    ("file", "cpu/vit-best-s0.json", "history.val_loss.-1")   an entry of a file below results/
    ("code", "cvassign.data", "VAL_PER_CLASS")                a constant of the package
    (name of a formula, origin or argument, ...)              see the functions below
"""

import importlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvassign.results import ResultError

OPEN, MIDDLE, CLOSE = "\ue000", "\ue001", "\ue002"  # private characters: in no text by themselves
MINUS = "−"


@dataclass(frozen=True)
class Number:
    """A number, or a short text that may hold one, with its origin."""

    value: float | str
    origin: tuple

    def __sub__(self, other: "Number") -> "Number":
        return Number(self.value - other.value, ("minus", self.origin, other.origin))

    def __truediv__(self, other: "Number") -> "Number":
        return Number(self.value / other.value, ("over", self.origin, other.origin))

    def times(self, factor: float) -> "Number":
        """The number in another unit."""
        return Number(self.value * factor, ("times", self.origin, factor))


def mean(numbers: Sequence[Number]) -> Number:
    """Their mean."""
    return Number(
        float(np.mean([n.value for n in numbers])), ("mean", *(n.origin for n in numbers))
    )


def std(numbers: Sequence[Number]) -> Number:
    """Their sample standard deviation (n - 1)."""
    return Number(
        float(np.std([n.value for n in numbers], ddof=1)), ("std", *(n.origin for n in numbers))
    )


def total(numbers: Sequence[Number]) -> Number:
    """Their sum."""
    return Number(math.fsum(n.value for n in numbers), ("sum", *(n.origin for n in numbers)))


def count(things: Sequence) -> Number:
    """How many there are; the origin lists them."""
    return Number(len(things), ("count", *things))


def constant(module: str, name: str) -> Number:
    """A constant of the package; `name` may go into it: "PRESETS.cpu.train.epochs"."""
    found = importlib.import_module(module)
    for part in name.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return Number(found, ("code", module, name))


class Files:
    """The JSON files below one folder, each read once.

    Args:
        folder: usually `results/`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._read: dict[str, dict] = {}

    def has(self, file: str) -> bool:
        return (self.folder / file).exists()

    def read(self, file: str) -> dict:
        """The file's content.

        Raises:
            ResultError: if it is missing or no JSON.
        """
        if file not in self._read:
            try:
                self._read[file] = json.loads((self.folder / file).read_text())
            except (OSError, ValueError) as error:
                raise ResultError(f"{file}: no readable result file: {error}") from error
        return self._read[file]

    def get(self, file: str, *keys: str | int) -> Number:
        """One entry as a Number; the keys lead to it.

        Raises:
            ResultError: if the file has no such entry.
        """
        found = self.read(file)
        try:
            for key in keys:
                found = found[key]
        except (KeyError, IndexError, TypeError) as error:
            raise ResultError(f"{file}: has no entry {' > '.join(map(str, keys))}") from error
        return Number(found, ("file", file, *keys))


class Writer:
    """Turns numbers into marked text and remembers them.

    Attributes:
        put_so_far: (text, format, origin) of every number.
    """

    def __init__(self) -> None:
        self.put_so_far: list[tuple[str, str, tuple]] = []

    def put(self, number: Number, form: str = "") -> str:
        """The number as text: `form` is a format specification, as ".2f"."""
        text = printed(number.value, form)
        self.put_so_far.append((text, form, number.origin))
        return f"{OPEN}{len(self.put_so_far) - 1}{MIDDLE}{text}{CLOSE}"

    def mean_std(self, numbers: Sequence[Number], form: str = ".2f") -> str:
        """ "91.20 ± 0.13", "91.20" of a single number, "–" of none."""
        if not numbers:
            return "–"
        text = self.put(mean(numbers), form)
        return text if len(numbers) == 1 else f"{text} ± {self.put(std(numbers), form)}"


def printed(value: float | str, form: str) -> str:
    """A value as the report shows it, with a real minus sign."""
    if isinstance(value, str):
        return value
    text = format(value, "" if form == "g" and isinstance(value, int) else form)
    if form and text.strip("-+0.,%") == "" and not form.startswith("+"):
        text = text.lstrip("-")  # no "-0.00"
    return text.replace("-", MINUS)


def plain(text: str) -> str:
    """The text without marks, as it is written to the file."""
    out, rest = [], text
    while OPEN in rest:
        before, _, rest = rest.partition(OPEN)
        _, _, rest = rest.partition(MIDDLE)
        shown, _, rest = rest.partition(CLOSE)
        out += [before, shown]
    return "".join([*out, rest])


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A Markdown table; all columns but the first `words` are right-aligned."""
    rule = "|" + "---|" * words + "---:|" * (len(head) - words)
    lines = ["| " + " | ".join(head) + " |", rule]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
