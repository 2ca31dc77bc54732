# LLM-assisted: prompts P6, see report.md
"""What the report's sections are written from: groups of results, differences, figures.

A `Report` reads the stored results of an experiment, prints numbers by its `Writer`, and has
figures drawn only when what they show has changed.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from cvassign import compare, report_models
from cvassign.assets import AssetError
from cvassign.experiments import MODELS, experiment_runs, stored
from cvassign.plot_style import save
from cvassign.plots import by_name
from cvassign.report_numbers import Files, Number, Writer, count, mean, table
from cvassign.results import load_all

DREW = "Drawn from"  # the PNG text that holds the checksum of what a figure shows
PREFIX = "report_"


@dataclass(frozen=True)
class Group:
    """Results that differ by their seed only."""

    results: list[dict]
    files: Files

    @property
    def paths(self) -> tuple[str, ...]:
        """Their files below the results' folder."""
        return tuple(f"{r['preset']}/{r['name']}-s{r['seed']}.json" for r in self.results)

    @property
    def label(self) -> Number:
        """What distinguishes it within its experiment."""
        return Number(self.results[0]["label"], ("label", self.paths[0]))

    def all(self, *keys) -> list[Number]:
        """An entry of each seed's file."""
        return [self.files.get(path, *keys) for path in self.paths]

    def one(self, *keys) -> Number:
        """An entry that is the same in all."""
        return self.files.get(self.paths[0], *keys)

    def mean(self, key: str) -> Number:
        return mean(self.all(key))


@dataclass(frozen=True)
class Difference:
    """Second minus first in points of test accuracy, with its interval."""

    mean: Number
    low: Number
    high: Number
    over: str
    clear: bool

    @classmethod
    def of(cls, found: compare.Difference, *origin) -> "Difference":
        parts = (
            Number(getattr(found, p), ("difference", p, *origin)) for p in ("mean", "low", "high")
        )
        return cls(*parts, found.over, found.clear)


def of_groups(first: Group, second: Group) -> Difference:
    """`compare.of_runs` with an origin."""
    return Difference.of(compare.of_runs(first.results, second.results), first.paths, second.paths)


def of_pairs(pairs: Sequence[tuple[Group, Group]]) -> Difference:
    """`compare.over_configurations` of the groups' means, with an origin."""
    sides = zip(*((a.mean("test_accuracy").value, b.mean("test_accuracy").value) for a, b in pairs))
    return Difference.of(
        compare.over_configurations(*sides),
        "configurations",
        *((a.paths, b.paths) for a, b in pairs),
    )


@dataclass
class Report:
    """The state of one generation of the report.

    Args:
        results: folder of the result files.
        figures: folder of the figures.
        presets: whose results may be shown, the better first.
        draw: write what is missing; else only note that it is.
        redraw: draw every figure anew.
    """

    results: Path
    figures: Path
    presets: tuple[str, ...] = ("full", "cpu")
    draw: bool = True
    redraw: bool = False
    writer: Writer = field(default_factory=Writer)
    changed: list[str] = field(default_factory=list)  # figures and measurements that did, or would
    used: set[str] = field(default_factory=set)  # figures that the report shows
    notes: list[str] = field(default_factory=list)  # what could not be made, for the terminal

    def __post_init__(self) -> None:
        self.files = Files(self.results)

    # ------------------------------------------------------------------------- text

    def put(self, number: Number, form: str = "") -> str:
        """See `Writer.put`."""
        return self.writer.put(number, form)

    def percent(self, group: Group, key: str = "test_accuracy") -> str:
        """Mean ± std over the seeds, two digits, without the sign for percent."""
        return self.writer.mean_std(group.all(key))

    def label(self, group: Group) -> str:
        return self.put(group.label)

    def difference(self, d: Difference) -> str:
        """ "+0.52 [−0.10, +1.14]"."""
        return f"{self.put(d.mean, '+.2f')} [{self.put(d.low, '+.2f')}, {self.put(d.high, '+.2f')}]"

    # ---------------------------------------------------------------------- results

    def groups(self, experiment: str, model: str = "vit", preset: str = "") -> list[Group]:
        """The results of an experiment that there are, grouped by seed, in the order of its runs.

        Args:
            preset: whose; empty for the best one, see `experiments.stored`.
        """
        if not preset:
            preset, _ = stored(experiment, model, self.presets, self.results)
        found = load_all(experiment_runs(experiment, model, preset), self.results)
        return [Group(g, self.files) for g in by_name(found)] if found else []

    def pairs(self, experiment: str) -> list[tuple[Group, Group]]:
        """(ViT, Diff-ViT) of each configuration that both have, of one preset."""
        preset = compare.stored_pair(experiment, self.presets, self.results).preset
        sides = [{g.label.value: g for g in self.groups(experiment, m, preset)} for m in MODELS]
        return [(g, sides[1][label]) for label, g in sides[0].items() if label in sides[1]]

    def done(self, experiment: str, model: str, preset: str) -> tuple[Number, Number]:
        """How many runs of an experiment have a result, and how many there are to be."""
        runs = experiment_runs(experiment, model, preset)
        have = load_all(runs, self.results)
        names = [f"{r['preset']}/{r['name']}-s{r['seed']}.json" for r in have]
        return count(names), Number(len(runs), ("planned", preset, experiment, model))

    def caption(self, experiment: str, groups: Sequence[Group], model: str = "vit") -> str:
        """Which runs a table shows: preset, epochs, seeds, how many are done, device."""
        if not groups:
            return ""
        first = groups[0]
        epochs = {g.one("epochs").value: g.one("epochs") for g in groups}
        have, planned = self.done(experiment, model, first.results[0]["preset"])
        text = f"Preset `{self.put(first.one('preset'))}`, " + " or ".join(
            self.put(e) for e in epochs.values()
        )
        seeds = count(first.paths)
        text += f" epochs, {'one seed' if seeds.value == 1 else self.put(seeds) + ' seeds'}"
        if have.value < planned.value:
            text += f"; {self.put(have)} of {self.put(planned)} runs are done"
        return f"{text}; trained on {self.put(first.one('device'))}."

    def missing(self, experiment: str, model: str = "vit") -> str:
        """The sentence in place of a table that has no row yet."""
        _, planned = self.done(experiment, model, self.presets[-1])
        name = report_models.NAMES[model]
        return f"*None of the {self.put(planned)} runs of the {name} is done yet.*"

    def results_table(self, groups: Sequence[Group], first: str = "configuration") -> str:
        """A row a group: parameters, accuracies, minutes of training."""
        head = (first, "parameters", "validation %", "test %", "minutes")
        return table(
            head,
            [
                (
                    self.label(g),
                    self.put(g.one("n_params"), ",d"),
                    self.percent(g, "val_accuracy"),
                    self.percent(g),
                    self.put(g.mean("train_seconds").times(1 / 60), ".1f"),
                )
                for g in groups
            ],
        )

    def pairs_table(
        self, pairs: Sequence[tuple[Group, Group]], first: str = "configuration"
    ) -> str:
        """A row a configuration: both models, their difference and its interval."""
        head = (
            first,
            "ViT parameters",
            "Diff-ViT parameters",
            "ViT validation %",
            "Diff-ViT validation %",
            "ViT test %",
            "Diff-ViT test %",
            "difference [interval]",
        )
        return table(
            head,
            [
                (
                    self.label(a),
                    self.put(a.one("n_params"), ",d"),
                    self.put(b.one("n_params"), ",d"),
                    self.percent(a, "val_accuracy"),
                    self.percent(b, "val_accuracy"),
                    self.percent(a),
                    self.percent(b),
                    self.difference(of_groups(a, b)),
                )
                for a, b in pairs
            ],
        )

    # ---------------------------------------------------------------------- figures

    def figure(self, name: str, title: str, shows: object, make: Callable[[], Figure]) -> str:
        """Markdown of a figure, drawn if its file does not show just this yet.

        Args:
            name: the file is figures/report_NAME.png.
            title: its text for those who do not see it; also printed below.
            shows: what the figure is drawn from, as JSON can write it.
            make: draws it.
        """
        name = PREFIX + name
        path = self.figures / f"{name}.png"
        checksum = hashlib.sha256(json.dumps(shows, sort_keys=True).encode()).hexdigest()
        if self.redraw or drawn_from(path) != checksum:
            self.changed.append(path.name)
            if self.draw:
                try:
                    save(make(), name, self.figures, {DREW: checksum})
                except AssetError as error:
                    self.changed.remove(path.name)
                    self.notes.append(f"{path.name} was not drawn: {str(error).splitlines()[0]}")
                    if not path.exists():
                        return f"*Not drawn: the images are not on this machine. ({title})*"
        self.used.add(path.name)
        return f"![{title}](figures/{path.name})\n\n*{title}*"

    def curves(
        self, name: str, title: str, plot: Callable, groups: Sequence[Group], **options
    ) -> str:
        """A figure of training results by a function of `plots`."""
        results = [r for g in groups for r in g.results]
        shows = [plot.__name__, options, results]
        return self.figure(name, title, shows, lambda: plot(results, **options))

    def maps(self, name: str, title: str, plot: Callable, stored: dict) -> str:
        """A figure of stored models by a function of `report_models`."""
        shows = [plot.__name__, {n: s.weights_sha256 for n, s in stored.items()}]
        return self.figure(name, title, shows, lambda: plot(stored))

    # ------------------------------------------------------------------------ models

    def stored_models(self) -> dict[str, report_models.Stored]:
        """{"ViT": …, "Diff-ViT": …} as far as weights are stored; measures what has changed."""
        found = {}
        for model, name in report_models.NAMES.items():
            stored = report_models.stored_model(model, self.presets, self.results)
            if stored is None:
                continue
            if not report_models.up_to_date(stored, self.files):
                self.changed.append(stored.file)
                if not self.draw:
                    continue
                try:
                    report_models.write(stored)
                    self.files = Files(self.results)  # read the new file
                except AssetError as error:
                    self.changed.remove(stored.file)
                    self.notes.append(f"{stored.file}: not measured: {str(error).splitlines()[0]}")
                    continue
            found[name] = stored
        return found


def drawn_from(path: Path) -> str | None:
    """The checksum that a figure's file carries; None if there is no such file."""
    try:
        with Image.open(path) as image:
            return image.info.get(DREW)
    except OSError:
        return None
