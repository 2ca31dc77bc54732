# LLM-assisted: prompts P2, P6, see report.md
"""Is the Diff-ViT better than the ViT? Paired differences, their intervals, and what they mean.

Three things make an accuracy uncertain: which images happened to be in the test set, which random
numbers happened to start and order the training, and which configuration was chosen. An interval
covers the one over which it is taken, and no other; so each carries the name of what it is over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pandas.io.formats.style import Styler
from torch import Tensor, nn

from cvassign.data import Dataset
from cvassign.experiments import MODELS, experiment_runs
from cvassign.plots import by_name
from cvassign.results import RESULTS, ResultError, Run, load_all, load_model, weights_path
from cvassign.train import predict
from cvassign.vit import VisionTransformer

NAMES = ("ViT", "Diff-ViT")  # of MODELS, as figures and tables show them
LEVEL = 0.95  # of every interval
FEWEST_CONFIGURATIONS = 5  # of fewer, chosen by hand, an interval would mean nothing
TEST_IMAGES = {"cifar10": 10_000, "generated": 200}  # by the dataset of a result's config
COVERS = {
    "seeds": "what other seeds would change, on these test images",
    "images": "what other test images would change, with these trained weights; not other seeds",
    "configurations": "what other configurations and their training noise would change; not other "
    "test images",
}


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, second minus first, with its 95 % interval."""

    mean: float  # percentage points
    low: float
    high: float
    n: int  # pairs
    over: str  # of what: a key of COVERS

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{signed(self.mean)} [{signed(self.low)}, {signed(self.high)}]"


def signed(value: float) -> str:
    """ "+0.21" or "−0.21", with a true minus sign."""
    return f"{value:+.2f}".replace("-", "−")


def t_quantile(p: float, df: int) -> float:
    """The p-quantile (0.5 < p < 1) of Student's t distribution with df degrees of freedom.

    By summing the density: scipy has it, but would be a dependency for one number.
    """
    if df < 1 or not 0.5 < p < 0.999:
        raise ValueError(f"expected df >= 1 and 0.5 < p < 0.999, got {df} and {p}")
    # With t = tan(a) √df the half line becomes 0 ... π/2, and the density cos(a)^(df-1).
    a = np.linspace(0, np.pi / 2, 200_001)
    density = np.cos(a) ** (df - 1)
    area = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(np.sqrt(df) * np.tan(np.interp(2 * p - 1, area / area[-1], a)))


def _paired(first, second, fewest: int) -> np.ndarray:
    """second - first as float (n,); ValueError if they are not n >= fewest pairs."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or len(first) < fewest:
        raise ValueError(
            f"expected two arrays (n,) of n >= {fewest} pairs, got {first.shape}, {second.shape}"
        )
    return second - first


def _t_interval(first, second, over: str) -> Difference:
    d = _paired(first, second, 2)
    half = t_quantile((1 + LEVEL) / 2, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
    return Difference(float(d.mean()), float(d.mean() - half), float(d.mean() + half), len(d), over)


def over_seeds(first, second) -> Difference:
    """Paired t interval over seeds of two accuracies (percent), each (seeds,).

    A seed gives both models the same order of images and the same augmentations, so what it does
    to both cancels. The interval leaves zero out exactly when a paired t test rejects at 5 %. Not
    a bootstrap: resampling three values gives intervals that are far too narrow.
    """
    return _t_interval(first, second, "seeds")


def over_configurations(first, second) -> Difference:
    """Paired t interval over configurations of two accuracies (percent), each (configurations,)."""
    return _t_interval(first, second, "configurations")


def paired_bootstrap(first, second, draws: int = 10_000, seed: int = 0) -> Difference:
    """Percentile bootstrap over test images.

    Args:
        first: (images,) 1 where the first model is right, else 0; or shares between 0 and 1.
        second: the same of the second model, on the same images.
        draws: resamples.
        seed: of the resampling.

    Raises:
        ValueError: if they are not pairs.
    """
    values, counts = np.unique(_paired(first, second, 1).round(12), return_counts=True)
    n = int(counts.sum())
    # Drawing n images with replacement and counting their values is a multinomial draw.
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=draws)
    means = 100 * drawn @ values / n
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(float(100 * values @ counts / n), float(low), float(high), n, "images")


def from_accuracies(first: float, second: float, images: int) -> Difference:
    """Interval over test images when only two accuracies (percent) are known.

    As if each model had been tested on images of its own. Both saw the same ones and mostly fail
    on the same, so the true interval is narrower: this one errs on the side of "not clear".
    """
    p, q = first / 100, second / 100
    if not (0 <= p <= 1 and 0 <= q <= 1) or images < 1:
        raise ValueError(f"expected percentages and images >= 1, got {first}, {second}, {images}")
    half = 100 * 1.96 * np.sqrt((p * (1 - p) + q * (1 - q)) / images)
    d = second - first
    return Difference(d, float(d - half), float(d + half), images, "images")


def of_runs(first: Sequence[dict], second: Sequence[dict]) -> Difference:
    """The difference in test accuracy of two groups of results that differ in their seeds.

    Over seeds when two or more are common to both, else over test images.

    Raises:
        ValueError: if no seed is common.
    """
    one, two = ({r["seed"]: r["test_accuracy"] for r in group} for group in (first, second))
    seeds = sorted(one.keys() & two.keys())
    if not seeds:
        raise ValueError(f"no common seed: {sorted(one)} and {sorted(two)}")
    pairs = [one[s] for s in seeds], [two[s] for s in seeds]
    if len(seeds) > 1:
        return over_seeds(*pairs)
    return from_accuracies(*pairs[0], *pairs[1], TEST_IMAGES[first[0]["config"]["dataset"]])


@dataclass(frozen=True)
class Pair:
    """The stored results of one experiment of both models, of one preset."""

    experiment: str
    preset: str
    vit: list[dict]
    diff: list[dict]
    total: int  # runs that the experiment has, stored or not

    @property
    def both(self) -> list[dict]:
        """All results, as the figures take them."""
        return [*self.vit, *self.diff]

    @property
    def rows(self) -> list["Row"]:
        """The results side by side, see `rows`."""
        return rows(self.vit, self.diff)

    @property
    def caption(self) -> str:
        """Preset, epochs, seeds and how much is done, as the result files say."""
        if not self.both:
            return (f"No run of this experiment is stored yet; to train them: `python -m "
                    f"cvassign.experiments run --preset {self.preset}`.")  # fmt: skip
        epochs = " or ".join(map(str, sorted({r["epochs"] for r in self.both})))
        seeds = sorted({r["seed"] for r in self.both})
        device = ", ".join(dict.fromkeys(r["device"] for r in self.both))
        return (
            f"Preset `{self.preset}`: {epochs} epochs, seed{'s' * (len(seeds) > 1)} "
            f"{', '.join(map(str, seeds))}, {device}; {len(self.both)} of {self.total} runs "
            "are done."
        )


def stored_pair(
    experiment: str, presets: Sequence[str] = ("full", "cpu"), results: Path = RESULTS
) -> Pair:
    """The results of both models in one experiment, both of the same preset.

    `experiments.stored` chooses a preset for each model alone; while runs are being made those
    may differ, and then nothing could be compared. Taken is the first preset that is complete
    for both models, else the one with the most runs that both have.
    """
    found = []
    for preset in presets:
        runs = [experiment_runs(experiment, model, preset) for model in MODELS]
        got = [load_all(r, results) for r in runs]
        pair = Pair(experiment, preset, *got, sum(map(len, runs)))
        if len(pair.both) == pair.total:
            return pair
        common = set.intersection(*({(r["label"], r["seed"]) for r in g} for g in got))
        found.append(((len(common), len(pair.both)), pair))
    return max(found, key=lambda f: f[0])[1]


def stored_models(
    presets: Sequence[str] = ("full", "cpu"), results: Path = RESULTS
) -> dict[str, tuple[Run, VisionTransformer]]:
    """A trained ViT and the Diff-ViT beside it, seed 0: {"ViT": (run, model), "Diff-ViT": ...}.

    Of the best recipe if the weights of both are stored, else of the reference recipe.

    Raises:
        ResultError: if neither recipe has the weights of both.
    """
    for experiment in ("best", "reference"):
        for preset in presets:
            runs = [experiment_runs(experiment, model, preset)[0] for model in MODELS]
            if all(weights_path(run, results).exists() for run in runs):
                return {n: (run, load_model(run, results)) for n, run in zip(NAMES, runs)}
    raise ResultError(
        "no weights of both models with the same recipe; to train them: python -m "
        f"cvassign.experiments run --preset {presets[-1]}"
    )


@dataclass(frozen=True)
class Row:
    """One configuration of an experiment: its results of both models, perhaps none yet."""

    label: str
    first: list[dict]  # ViT, a result a seed
    second: list[dict]  # Diff-ViT
    difference: Difference | None  # None unless both have a common seed


def rows(first: Sequence[dict], second: Sequence[dict]) -> list[Row]:
    """The results of the two models side by side, by label, in the order of first appearance."""
    groups = [{g[0]["label"]: g for g in by_name(part)} if part else {} for part in (first, second)]
    found = []
    for label in dict.fromkeys([*groups[0], *groups[1]]):
        one, two = (group.get(label, []) for group in groups)
        found.append(Row(label, one, two, of_runs(one, two) if _common(one, two) else None))
    return found


def mean_std(values: Sequence[float]) -> str:
    """ "91.20 ± 0.13", "91.20" of a single value, "–" of none."""
    values = np.asarray(values, dtype=float)
    if not len(values):
        return "–"
    text = f"{values.mean():.2f}"
    return text if len(values) == 1 else f"{text} ± {values.std(ddof=1):.2f}"


def table(compared: Sequence[Row], names: tuple[str, str] = NAMES) -> pd.DataFrame:
    """A row a configuration, with two levels of column names.

    Parameters and accuracies (percent, mean ± std) of both models; how many seeds they are of,
    "3 / 1" if the models differ in it; the difference in test accuracy with its interval.
    """
    lines = []
    for row in compared:
        sides = tuple(zip(names, (row.first, row.second)))
        line = {("parameters", n): f"{g[0]['n_params']:,}" if g else "–" for n, g in sides}
        for key, text in (("val_accuracy", "validation %"), ("test_accuracy", "test %")):
            line |= {(text, n): mean_std([r[key] for r in g]) for n, g in sides}
        seeds = dict.fromkeys((len(row.first), len(row.second)))
        line["seeds", ""] = " / ".join(map(str, seeds))
        line[f"{names[1]} − {names[0]}", "test points [95 %]"] = (
            "–" if row.difference is None else str(row.difference)
        )
        lines.append(line)
    found = pd.DataFrame(lines, index=[row.label for row in compared])
    return found.set_axis(pd.MultiIndex.from_tuples(found.columns), axis=1)


def nowrap(frame: pd.DataFrame) -> Styler:
    """A table as a notebook shows it, with no number broken over two lines."""
    rules = [
        {"selector": "td, th", "props": "white-space: nowrap"},
        {"selector": "th.col_heading.level0", "props": "text-align: center"},
    ]
    # With an id of its own, not a random one, the same table is the same text in the file.
    return frame.style.set_table_styles(rules).set_uuid("table")


def control_table(results: Sequence[dict], bases: Sequence[str] = NAMES) -> pd.DataFrame:
    """A row a configuration, with its difference in test accuracy to each of the `bases`.

    Args:
        results: of all configurations.
        bases: labels among them.
    """
    groups = {g[0]["label"]: g for g in by_name(results)}
    lines = []
    for label, group in groups.items():
        line = {
            "parameters": f"{group[0]['n_params']:,}",
            "validation %": mean_std([r["val_accuracy"] for r in group]),
            "test %": mean_std([r["test_accuracy"] for r in group]), "seeds": len(group),
        }  # fmt: skip
        for base in bases:
            known = label != base and _common(groups.get(base, []), group)
            line[f"minus {base} [95 %]"] = str(of_runs(groups[base], group)) if known else "–"
        lines.append(line)
    return pd.DataFrame(lines, index=list(groups))


def change(results: Sequence[dict], base: str, label: str) -> Difference | None:
    """The configuration `label` minus `base`; None while they have no common seed."""
    groups = {g[0]["label"]: g for g in by_name(results)} if results else {}
    one, two = groups.get(base, []), groups.get(label, [])
    return of_runs(one, two) if _common(one, two) else None


def control(results: Sequence[dict], base: str, label: str) -> str:
    """`change` in a sentence."""
    found = change(results, base, label)
    names = f"*{base}*", f"*{label}*"  # some have a comma
    return sentence(found, names) if found else f"{names[1]} against {names[0]}: not trained yet."


def _common(first: Sequence[dict], second: Sequence[dict]) -> bool:
    """Whether the two groups share a seed."""
    return bool({r["seed"] for r in first} & {r["seed"] for r in second})


def largest_parameter_gap(compared: Sequence[Row]) -> float:
    """The largest difference of the two models' parameter counts, in percent of the first's."""
    gaps = [
        abs(row.second[0]["n_params"] / row.first[0]["n_params"] - 1)
        for row in compared
        if row.first and row.second
    ]
    return 100 * max(gaps, default=float("nan"))


def verdict(compared: Sequence[Row], names: tuple[str, str] = NAMES) -> str:
    """What the differences of a table mean, in sentences that the numbers write themselves."""
    pairs = [row for row in compared if row.difference is not None]
    if not pairs:
        return f"No configuration has been trained with both {names[0]} and {names[1]} yet."
    text = []
    if len(pairs) == 1:
        text.append(sentence(pairs[0].difference, names))
    else:
        text.append(_over_rows(pairs, names))
        clear = 0
        for winner, side in ((names[1], 1), (names[0], -1)):
            ahead = [p for p in pairs if p.difference.clear and side * p.difference.mean > 0]
            clear += len(ahead)
            if ahead:
                shown = ": " + "; ".join(f"{p.label} ({p.difference})" for p in ahead)
                text.append(f"A row's own interval leaves zero out in favour of **{winner}** in "
                            f"{len(ahead)} of {len(pairs)}{shown * (len(ahead) <= 4)}.")  # fmt: skip
        if clear < len(pairs):
            where = (f"In the other {len(pairs) - clear} it holds" if clear else
                     f"A row's own interval in all {len(pairs)} holds")  # fmt: skip
            text.append(f"{where} zero: no difference is shown.")
    if len(pairs) >= FEWEST_CONFIGURATIONS:
        text.append(f"Of {len(pairs)} intervals at 95 % about {(1 - LEVEL) * len(pairs):.1f} "
                    "would leave zero out by chance alone.")  # fmt: skip
    kinds = dict.fromkeys(p.difference.over for p in pairs)
    text.append("A row's interval covers " + "; ".join(COVERS[k] for k in kinds) + ".")
    if "images" in kinds:
        text.append("With one seed a row speaks of these trained weights and not of the method: "
                    "training again can move it by more than its interval.")  # fmt: skip
    return " ".join(text)


def _over_rows(pairs: Sequence[Row], names: tuple[str, str]) -> str:
    """The mean difference over two or more rows, with an interval if they are enough for one."""
    one, two = (
        [np.mean([r["test_accuracy"] for r in group]) for group in side]
        for side in ([p.first for p in pairs], [p.second for p in pairs])
    )
    if len(pairs) >= FEWEST_CONFIGURATIONS:
        return f"Over the {len(pairs)} configurations: " + sentence(
            over_configurations(one, two), names
        )
    d = np.subtract(two, one)
    winner, ahead = (names[0], d < 0) if d.mean() < 0 else (names[1], d > 0)
    return (f"Mean difference {signed(d.mean())} points; the {winner} is ahead in {ahead.sum()} of "
            f"{len(pairs)}.")  # fmt: skip


def sentence(d: Difference, names: tuple[str, str] = NAMES) -> str:
    """One difference in words, with its interval and what that is over."""
    over = f"95 % interval over {d.n:,} {d.over}"
    if not d.clear:
        return (f"{names[1]} minus {names[0]} is {signed(d.mean)} points ({over} {signed(d.low)} to "
                f"{signed(d.high)}): this cannot tell the two apart.")  # fmt: skip
    better, worse = names if d.mean < 0 else names[::-1]
    low, high = sorted((abs(d.low), abs(d.high)))  # as far as the better one is ahead
    return f"{better} is {abs(d.mean):.2f} points above {worse} ({over} {low:.2f} to {high:.2f})."


def _means(results: Sequence[dict], value: Callable[[dict], float]) -> dict[str, float]:
    """{label: mean over the seeds of a value of each result}; NaN if one of them is None, as the
    files have it of a run that diverged."""
    groups = by_name(results) if results else []
    values = {g[0]["label"]: np.array([value(r) for r in g], dtype=float) for g in groups}
    return {label: float(v.mean()) for label, v in values.items()}


def losses(results: Sequence[dict], name: str) -> str:
    """The validation loss curves of one model's configurations in words."""
    first, last = (_means(results, lambda r: r["history"]["val_loss"][e]) for e in (0, -1))
    orders = [sorted(means, key=lambda label: np.nan_to_num(means[label], nan=np.inf))
              for means in (first, last)]  # fmt: skip
    ends = ", ".join(f"{label} {last[label]:.2f}" for label in orders[1])
    after = "the same" if orders[0] == orders[1] else ", ".join(orders[0])
    return (f"Validation loss of the {name} ends at (nats, lowest first): {ends}; the order after "
            f"the first epoch was {after}.")  # fmt: skip


def same_order(first: Sequence[dict], second: Sequence[dict], what: str,
               names: tuple[str, str] = NAMES) -> str:  # fmt: skip
    """Whether both models rank the configurations alike by validation accuracy, in words.

    Args:
        first: results of one model.
        second: results of the other; only labels that both have are ranked.
        what: what is ranked, in the plural.
        names: of the models.
    """
    means = [_means(results, lambda r: r["val_accuracy"]) for results in (first, second)]
    common = means[0].keys() & means[1].keys()
    if len(common) < 2:
        return f"Fewer than two {what} are trained with both models, so there is no order yet."
    one, two = (sorted(common, key=m.get, reverse=True) for m in means)
    if one == two:
        return f"Both models rank the {what} alike by validation accuracy: {', '.join(one)}."
    return (f"The two models rank the {what} differently by validation accuracy: {names[0]} "
            f"{', '.join(one)}; {names[1]} {', '.join(two)}.")  # fmt: skip


OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}
# What may be changed to make a recipe shorter; all else would make it another one.
SHORTENED = {"epochs": "epochs", "keep": "of the patches kept", "keep_epochs": "epochs of that",
             "warmup_epochs": "epochs of warm-up", "augment": "as augmentation"}  # fmt: skip


def recipe(result: dict, bases: dict[str, dict], but: Sequence[str] = ()) -> str:
    """On which recipe a run is, in words, found by comparing the configurations.

    Args:
        result: of the run.
        bases: {"best recipe": a result of it, ...}, the better first.
        but: fields that the experiment itself changes.
    """
    own = _fields(result)
    for name, base in bases.items():
        other = _fields(base)
        changed = [k for k in own if own[k] != other.get(k) and k not in but]
        if not changed:
            return f"the {name}"
        if "epochs" in changed and set(changed) <= SHORTENED.keys():
            rest = "; ".join(f"{own[k]} {SHORTENED[k]} instead of {other[k]}"
                             for k in changed if k != "epochs")  # fmt: skip
            return (f"the {name}'s hyperparameters, trained {own['epochs']} epochs instead of "
                    f"{other['epochs']}" + (f" ({rest})" if rest else ""))  # fmt: skip
    return "a recipe of its own"


def _fields(result: dict) -> dict:
    """The configuration of a run, without what makes the two models differ."""
    fields = {**result["config"]["model"], **result["config"]["train"]}
    return {k: v for k, v in fields.items() if k not in ("attention", "head_norm", "lambda_init")}


def optimizers(results: Sequence[dict], base: dict, name: str) -> str:
    """Each optimizer at its own best learning rate of those run (by validation), in words.

    Args:
        results: of one model; those are compared that differ from `base` in nothing else.
        base: the result whose optimizer and rate the others change.
        name: of the model.
    """
    varied = ("optimizer", "learning_rate")
    fixed = {k: v for k, v in _fields(base).items() if k not in varied}
    found: dict[str, list[tuple[float, float, float]]] = {}
    for group in by_name(results) if results else ():
        fields = _fields(group[0])
        if {k: v for k, v in fields.items() if k not in varied} == fixed:
            means = (np.mean([r[f"{s}_accuracy"] for r in group]) for s in ("val", "test"))
            found.setdefault(fields["optimizer"], []).append((*means, fields["learning_rate"]))
    if len(found) < 2:
        return f"{name}: only one optimizer has been trained yet."
    ranked = sorted(((max(runs), key, len(runs)) for key, runs in found.items()), reverse=True)
    said = [
        f"{OPTIMIZERS[key]} {val:.2f} % (test {test:.2f} %) at {rate:g}, "
        + (f"the best of {n} rates" if n > 1 else "the only rate run")
        for (val, test, rate), key, n in ranked
    ]
    return f"{name}, validation accuracy of each optimizer at its own best rate: {'; '.join(said)}."


def pick_images(model: nn.Module, data: Dataset, logits: Tensor | None = None) -> Tensor:
    """Twelve test images by rule: the first of each class that the model gets right, then its two
    most confident mistakes.

    Args:
        model: a classifier of the dataset's images.
        data: its test split is taken.
        logits: (images, K) of the model on the test split, if they are known already.

    Returns:
        Their indices in the test split: ten in the order of the classes (the first of a class if
        none of it is right), then two, fewer if the model makes fewer mistakes.
    """
    labels = data.test.labels.cpu()
    logits = predict(model, data.test.images) if logits is None else logits
    if len(logits) != len(labels):
        raise ValueError(f"expected logits of {len(labels)} test images, got {len(logits)}")
    confidence, said = logits.float().cpu().softmax(1).max(1)
    right = said == labels
    picked = []
    for c in labels.unique():
        of_class = labels == c
        wanted = of_class & right if (of_class & right).any() else of_class
        picked.append(int(wanted.nonzero()[0]))
    surest = torch.where(right, -1.0, confidence).argsort(descending=True, stable=True)
    mistakes = [i for i in surest.tolist() if not right[i] and i not in picked]
    return torch.tensor(picked + mistakes[:2])
