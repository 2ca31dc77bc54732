# LLM-assisted: prompts P1, P2, P8, P13, P15, see report.md
"""The figures of training runs: each takes results and returns a Figure. A line is the mean over
seeds, its band one standard deviation."""

from collections.abc import Sequence
from operator import attrgetter

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cvassign.attention import lambda_init_of
from cvassign.figure import (
    COLOURS,
    MODEL_COLOURS,
    WIDTH,
    errorbars,
    legend_below,
    panels,
    styled,
    whole_ticks,
)
from cvassign.results import Result, by_name
from cvassign.stats import Noise, interval

DASHES = ("-", "--", ":", "-.")


def band(ax: Axes, x: Sequence, values: np.ndarray, colour, **line) -> None:
    """The mean of values (seeds, len(x)) as a line, with markers if it has few points, in a band of
    one standard deviation."""
    mean = values.mean(axis=0)
    few = {"marker": "o", "ms": 3.5} if len(mean) < 10 else {}
    ax.plot(x, mean, color=colour, **few | line)
    if len(values) > 1:
        std = values.std(axis=0, ddof=1)
        ax.fill_between(x, mean - std, mean + std, color=colour, alpha=0.2, lw=0)


def _histories(group: list[Result], key: str) -> np.ndarray:
    """One entry of the histories of a group: (seeds, epochs) or (seeds, epochs, layers)."""
    lengths = {len(result.history.get(key, ())) for result in group}
    if len(lengths) > 1 or 0 in lengths:
        expected = f"{group[0].run.name!r} to have the same epochs of {key!r} for every seed"
        raise ValueError(f"expected {expected}, got {sorted(lengths)}")
    # Numbers that were not finite are None in a result file; float makes NaN of them, a gap.
    return np.array([result.history[key] for result in group], dtype=float)


def _loss(group: list[Result], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (n,) and the loss of each seed (seeds, n); of training ten points an epoch."""
    losses = _histories(group, "train_loss_tenths" if split == "train" else "val_loss")
    n = losses[0].size
    return np.arange(1, n + 1) * losses.shape[1] / n, losses.reshape(-1, n)


@styled
def loss_curves(results: Sequence[Result], title: str = "") -> Figure:
    """Training loss (left), which is that of augmented images with smoothed labels, and validation
    loss (right) over the epochs; a colour tells the models apart, or the labels of one model.
    ValueError if there are more runs than can be told apart (then `loss_grid`)."""
    groups = by_name(results)
    models, labels = ({getattr(g[0], key) for g in groups} for key in ("kind", "label"))
    if len(labels) > (most := len(COLOURS) if len(models) == 1 else 1):
        raise ValueError(f"expected no more labels than {most}, got {len(labels)}: take loss_grid")
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.3), sharex=True, sharey=True)
    for ax, split, name in zip(axes, ("train", "val"), ("Training", "Validation")):
        for i, group in enumerate(groups):
            text, colour, dash = group[0].label, COLOURS[i], DASHES[i % len(DASHES)]
            if len(labels) == 1:
                text, colour, dash = group[0].kind, MODEL_COLOURS[group[0].kind], "-"
            text += f" ({len(group)} seeds)" * (len(group) > 1)
            band(ax, *_loss(group, split), colour, linestyle=dash, label=text)
        ax.set(title=name, xlabel="epoch")
        whole_ticks(ax)
    axes[0].set_ylabel("cross-entropy (nats)")
    return legend_below(fig, title)


@styled
def loss_grid(
    results: Sequence[Result], title: str = "", columns: int = 4, reference: Sequence[Result] = ()
) -> Figure:
    """A small panel for each label, with training (dashed) and validation loss (solid). The latter
    of the `reference`, mean of its seeds, is a thin grey line in every panel; where all results are
    of one model, it has no panel of its own."""
    groups = by_name(results)
    shown = {r.run.name for r in reference}
    if len({g[0].kind for g in groups}) == 1:
        groups = [g for g in groups if g[0].run.name not in shown]
    fig, axes = panels(list(dict.fromkeys(g[0].label for g in groups)), columns, "epoch")
    for i, group in enumerate(by_name(reference) if reference else ()):
        epochs, values = _loss(group, "val")
        look = {"color": "0.45", "lw": 0.8, "ls": DASHES[2 * i], "zorder": 3}
        look["label"] = f"{group[0].kind}, reference, validation"
        for ax in axes.values():
            ax.plot(epochs, values.mean(axis=0), **look)
    for group in groups:
        ax, model = axes[group[0].label], group[0].kind
        look = {"ls": "--", "lw": 1.1, "label": f"{model}, training"}
        band(ax, *_loss(group, "train"), MODEL_COLOURS[model], **look)
        band(ax, *_loss(group, "val"), MODEL_COLOURS[model], label=f"{model}, validation")
        whole_ticks(ax)
    late = [v for r in results for k in ("train_loss", "val_loss") for v in r.history[k][2:]]
    ax.set_ylim(top=max(late, default=None))  # the steep first epochs would flatten all else
    fig.supylabel("cross-entropy (nats)", fontsize=9)
    return legend_below(fig, f"{title} (first two epochs cut)")


@styled
def lambda_curves(results: Sequence[Result], title: str = "") -> Figure:
    """λ of each layer by epoch, of one Diff-ViT recipe: seeds thin, mean thick, λ_init as dots."""
    (group,) = by_name(results)
    values = _histories(group, "lambdas").T  # (layers, epochs, seeds)
    fig, ax = plt.subplots(figsize=(6.5, 3.6))
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.88, len(values)))
    places = _apart(values[:, -1].mean(axis=1), 0.055 * (np.nanmax(values) - np.nanmin(values)))
    beside = {"fontsize": 8, "va": "center", "transform": ax.get_yaxis_transform()}
    x = range(1, values.shape[1] + 1)
    for layer, (shade, of_seeds, place) in enumerate(zip(shades, values, places), start=1):
        ax.plot(x, of_seeds, color=shade, lw=0.8, alpha=0.6, label="_seed")
        ax.plot(x, of_seeds.mean(axis=1), color=shade, label=f"layer {layer}")
        ax.plot(0, lambda_init_of(layer), "o", color=shade, ms=4, label="_start")
        ends = f"layer {layer}: {of_seeds[-1].mean():.2f}".replace("-", "−")
        ax.text(1.01, place, ends, color=shade, **beside)
    ax.set(xlabel="epoch (dots: λ_init)", ylabel="λ", title=title)
    whole_ticks(ax)
    return fig


def _apart(values: np.ndarray, gap: float) -> np.ndarray:
    """Places near the values, in their order, at least `gap` from one another: for labels."""
    order, steps = np.argsort(values), gap * np.arange(len(values))
    free = values[order] - steps
    # The mean of where the lower one pushes the upper one, and of where it is pushed.
    up, down = np.maximum.accumulate(free), np.minimum.accumulate(free[::-1])[::-1]
    return ((up + down) / 2 + steps)[np.argsort(order)]


@styled
def first_lambdas(results: Sequence[Result], marked: str = "", title: str = "") -> Figure:
    """λ of the first layer at the end, a row a recipe, a dot a seed, by size; the `marked`
    recipe is in the Diff-ViT's colour. The second version has no λ of a layer, and no row."""
    groups = by_name([r for r in results if "lambdas" in r.history])
    labels = [group[0].label for group in groups]
    # "none" is an augmentation and a position; the run's name says which.
    slugs = [" ".join(group[0].run.name.split("-")[-2:]) for group in groups]
    names = [n if labels.count(n) == 1 else slug for n, slug in zip(labels, slugs)]
    ends = [_histories(group, "lambdas")[:, -1, 0] for group in groups]
    fig, ax = plt.subplots(figsize=(WIDTH * 0.75, 0.8 + 0.17 * len(groups)))
    for place, i in enumerate(np.argsort([end.mean() for end in ends])):
        colour = MODEL_COLOURS["Diff-ViT"] if labels[i] == marked else "0.45"
        ax.plot(ends[i], [place] * len(ends[i]), "o", ms=4.5, alpha=0.8, color=colour)
        look = {"va": "center", "fontsize": 8, "transform": ax.get_yaxis_transform()}
        ax.text(-0.01, place, names[i], ha="right", **look)
        text = f"D {groups[i][0].model.embed_dim}, {groups[i][0].train.epochs} epochs"
        ax.text(1.01, place, text, color="0.45", **look)
    ax.axvline(0, color="0.4", lw=0.8)
    ax.axvline(lambda_init_of(1), color="0.4", lw=0.8, ls="--")
    start = f"dashed: λ_init {lambda_init_of(1):g}, unless the row names another"
    ax.set(xlabel=f"λ of layer 1 at the end ({start})", title=title)
    ax.set(yticks=[], ylim=(-1, len(groups)))
    return fig


@styled
def hyperparameters(results: Sequence[Result], title: str, noise: Noise) -> Figure:
    """Validation accuracy against the value of each hyperparameter, a small panel each.

    The first of each model's `results` is of the recipe that the others change. Means of several
    seeds have their 95 % interval, and so have AdamW's runs. Inside the band, 95 % as well, lies a
    mean of as few seeds as any row has, if only seeds differ: `noise`, of validation."""
    names = (("model.depth", "layers"), ("model.embed_dim", "embedding dimension D"),
             ("model.num_heads", "heads"), ("model.mlp_ratio", "MLP width / D"),
             ("train.learning_rate", "learning rate, Muon"),
             ("train.learning_rate", "learning rate, AdamW (own scale)"))  # fmt: skip
    fig, axes = plt.subplots(2, 3, figsize=(WIDTH, 5))
    for ax in axes.flat[1:5]:
        ax.sharey(axes.flat[0])  # but AdamW, whose accuracies would flatten the others
    groups = by_name(results)
    for ax, (key, name) in zip(axes.flat, names):
        of, is_adamw = attrgetter(key, "train.optimizer"), "AdamW" in name
        for model in dict.fromkeys(g[0].kind for g in groups):
            base, *rest = (g for g in groups if g[0].kind == model)
            runs = [base, *(g for g in rest if of(g[0]) != of(base[0]))]
            runs = [
                g for g in runs if (g[0].train.optimizer != base[0].train.optimizer) == is_adamw
            ]
            runs.sort(key=lambda group: of(group[0]))
            x, means = range(len(runs)), [np.mean([r.val for r in group]) for group in runs]
            colour = MODEL_COLOURS[model]
            ax.plot(x, means, "o-", ms=4.5, color=colour, label=model)
            ax.set_xticks(x, [f"{of(g[0])[0]:g}" for g in runs])
            for at, group, mean in zip(x, runs, means):
                if is_adamw or len(group) > 1:
                    ax.errorbar(at, mean, noise.between(len(group)), color=colour, capsize=3)
                if group is base:
                    width = noise.between(min(map(len, rest), default=1), len(base))
                    ax.axhspan(mean - width, mean + width, color=colour, alpha=0.12, lw=0)
        ax.set_xlabel(name)
        ax.margins(x=0.12)
    fig.supylabel("validation accuracy (%)", fontsize=9)
    return legend_below(fig, title)


FOREST = {  # kind: its name, marker, colour
    "step": ("one step, mean over what else differs", "o", "0.25"),
    "sum": ("sum of the steps", "D", COLOURS[1]),
    "whole": ("measured at once", "s", COLOURS[4]),
    "detail": ("one step, two cells", "o", "0.55"),
    "variant": ("another variant", "o", COLOURS[0]),
    "device": ("the device alone", "^", COLOURS[2]),
}


@styled
def forest(rows: Sequence[tuple], xlabel: str = "points", title: str = "") -> Figure:
    """Differences with their 95 % intervals, a filled marker where zero is outside, from rows
    (label, mean, low, high, what the interval is over, a key of `FOREST`)."""
    fig, ax = plt.subplots(figsize=(WIDTH, 1.3 + 0.3 * len(rows)))
    ax.axvline(0, color="0.4", lw=0.8)
    for y, (_, mean, low, high, n, kind) in enumerate(rows):
        name, marker, colour = FOREST[kind]
        filled = colour if low > 0 or high < 0 else "white"
        look = dict(fmt=marker, color=colour, ms=6, mfc=filled, elinewidth=1, capsize=3)
        ax.errorbar(mean, y, xerr=[[mean - low], [high - mean]], **look)
        ax.plot([], [], marker, color=colour, label=name)
        text = f"{interval((mean, low, high))}   {n}"
        ax.text(1.02, y, text, va="center", fontsize=8.5, transform=ax.get_yaxis_transform())
        if y and kind != rows[y - 1][-1]:
            ax.axhline(y - 0.5, color="0.7", lw=0.8)
    ax.set_yticks(range(len(rows)), [row[0] for row in rows])
    ax.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    return legend_below(fig, title)


@styled
def robustness_difference(gaps: dict, severities: Sequence[int], title: str = "") -> Figure:
    """Diff-ViT minus ViT against the severity, a line a corruption: noises (left), others (right);
    from `study.robustness.curves` and the severities, after 0 for clean images."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.4), sharey=True)
    for ax, noise in zip(axes, (True, False)):
        names = [name for name in gaps if name != "clean" and ("noise" in name) == noise]
        ax.axhline(0, color="0.4", lw=0.8)
        errorbars(ax, severities[:1], gaps["clean"], "0.5", ls="", label="clean images")
        for i, name in enumerate(names):
            x = np.array(severities[1:]) + 0.12 * (i - (len(names) - 1) / 2)
            errorbars(ax, x, gaps[name], COLOURS[i + 3 * (not noise)], label=name)
        ax.set(xlabel="severity (0: clean images)")
        whole_ticks(ax)
    axes[0].set_ylabel("Diff-ViT − ViT (points)")
    return legend_below(fig, title)
