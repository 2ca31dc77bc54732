# LLM-assisted: prompts P1, P2, P5, see report.md
"""The figures of training runs: each takes results and returns a Figure.

A result is the dict of one JSON file, see `results.read_result`. Colours and the meaning of
lines and bands: `plot_style`. Figures of images and attention maps: `attention_plots`.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from cvassign.attention import lambda_init_of
from cvassign.plot_style import (
    COLOURS,
    DASHES,
    MODEL_COLOURS,
    MODELS,
    WIDTH,
    band,
    colour_of,
    legend_below,
    panels,
    per_seed,
    save,
    show,
    std_over_seeds,
    styled,
    whole_ticks,
    wrapped,
)

__all__ = [
    "accuracy_dots", "confusion_matrix", "lambda_curves", "loss_curves", "loss_grid",
    "parallel_coordinates", "robustness_curves", "save", "search_scatter", "show",
]  # fmt: skip

AXIS_LABELS = {
    "n_params": "parameters (millions)",
    "learning_rate": "peak learning rate",
    "embed_dim": "embedding dimension D",
    "depth": "layers L",
    "num_heads": "heads H",
    "batch_size": "batch size (images)",
}
LOG_AXES = ("n_params", "learning_rate", "batch_size")


def model_of(result: dict) -> str:
    """The name of a result's model as figures show it."""
    return MODELS[result["config"]["model"]["attention"]]


def label_of(result: dict) -> str:
    """What distinguishes a result within its section."""
    return result.get("label", result["name"])


def by_name(results: Sequence[dict]) -> list[list[dict]]:
    """The results in groups that differ by their seed only, in the order of first appearance.

    Raises:
        ValueError: if there are no results.
    """
    if not results:
        raise ValueError("expected at least one result, got none")
    groups: dict[tuple, list[dict]] = {}
    for result in results:
        groups.setdefault((result["name"], result.get("preset")), []).append(result)
    return list(groups.values())


def _histories(group: list[dict], key: str) -> np.ndarray:
    """One entry of the histories of a group: (seeds, epochs) or (seeds, epochs, layers)."""
    lengths = {len(result["history"].get(key, ())) for result in group}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(
            f"expected {group[0]['name']!r} to have the same epochs of {key!r} for every seed, "
            f"got {sorted(lengths)}"
        )
    # Numbers that were not finite are None in a result file; float makes NaN of them, a gap.
    return np.array([result["history"][key] for result in group], dtype=float)


def _loss(group: list[dict], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (n,) and the loss of each seed (seeds, n); of training ten points an epoch."""
    if split == "train" and all("train_loss_tenths" in r["history"] for r in group):
        tenths = _histories(group, "train_loss_tenths")  # (seeds, epochs, up to ten)
        epochs = np.arange(1, tenths[0].size + 1) / tenths.shape[2]
        return epochs, tenths.reshape(len(tenths), -1)
    values = _histories(group, f"{split}_loss")
    return np.arange(1, values.shape[1] + 1), values


def _styles(groups: list[list[dict]]) -> list[tuple]:
    """Colour, dashes and legend text of each group.

    With one model a colour tells the labels apart; with two it tells the model, dashes the label.
    """
    models = [model_of(group[0]) for group in groups]
    labels = [label_of(group[0]) for group in groups]
    distinct = list(dict.fromkeys(labels))
    room = len(DASHES) * (len(COLOURS) if len(set(models)) == 1 else 1)
    if len(distinct) > room:
        raise ValueError(f"one panel can tell {room} labels apart, got {len(distinct)}: loss_grid")
    styles = []
    for group, model, label in zip(groups, models, labels):
        i = distinct.index(label)
        if len(set(models)) > 1 or len(groups) == 1:
            colour, dash = MODEL_COLOURS[model], DASHES[i % len(DASHES)]
            text = model if len(distinct) == 1 else f"{model}, {label}"
        else:
            colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS)]
            text = label
        seeds = f" ({len(group)} seeds)" if len(group) > 1 else ""
        styles.append((colour, dash, text + seeds))
    return styles


@styled
def loss_curves(results: Sequence[dict], title: str = "") -> Figure:
    """Training loss (left) and validation loss (right) of several runs over the epochs.

    Seeds of a run are one line, their mean, with a band. The two losses are not the same
    quantity: the training loss is that of augmented images with smoothed labels.

    Raises:
        ValueError: if there are no results, more than can be told apart (then `loss_grid`), or
            seeds of one run with different numbers of epochs.
    """
    groups = sorted(by_name(results), key=lambda g: list(MODELS.values()).index(model_of(g[0])))
    styles = _styles(groups)
    models = len({model_of(group[0]) for group in groups})
    data = [{split: _loss(g, split) for split in ("train", "val")} for g in groups]
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.3), sharex=True, sharey=True)
    for ax, split, name in zip(axes, ("train", "val"), ("Training", "Validation")):
        for loss, (colour, dash, text) in zip(data, styles):
            epochs, values = loss[split]
            few = {"marker": "o", "ms": 4} if len(epochs) < 10 else {}
            band(ax, epochs, values, colour, linestyle=dash, label=text, **few)
        ax.set(title=name, xlabel="epoch")
        whole_ticks(ax)
        _mark_patch_dropout(ax, results)
    axes[0].set_ylabel("cross-entropy (nats)")
    legend_below(fig, models if models > 1 else None)  # a column a model
    fig.suptitle(title)
    return fig


def _mark_patch_dropout(ax, results: Sequence[dict]) -> None:
    """A dotted line where training goes over to whole images: there the training loss falls."""
    trains = [r["config"]["train"] for r in results]
    ends = {t["keep_epochs"] for t in trains if t.get("keep", 1) < 1 and t["keep_epochs"]}
    for end in ends:
        ax.axvline(end, color="0.45", ls=":", lw=1)
        ax.annotate("whole images", (end, 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
                    textcoords="offset points", va="top", fontsize=7, color="0.45")  # fmt: skip


@styled
def loss_grid(results: Sequence[dict], title: str = "", columns: int = 4) -> Figure:
    """A small panel for each label, with training (dashed) and validation loss (solid).

    For experiments of many configurations, and for ViT beside Diff-ViT in all of them.
    """
    groups = by_name(results)
    histories = [[_loss(group, split) for split in ("train", "val")] for group in groups]
    fig, axes = panels(list(dict.fromkeys(label_of(g[0]) for g in groups)), columns, "epoch")
    for group, (train, val) in zip(groups, histories):
        ax, model = axes[label_of(group[0])], model_of(group[0])
        colour = MODEL_COLOURS[model]
        band(ax, *train, colour, ls=DASHES[1], lw=1.1, label=f"{model}, training")
        few = {"marker": "o", "ms": 3} if len(val[0]) < 10 else {}
        band(ax, *val, colour, label=f"{model}, validation", **few)
        whole_ticks(ax)
    for label, ax in axes.items():
        _mark_patch_dropout(ax, [r for r in results if label_of(r) == label])
    legend_below(fig)
    fig.supylabel("cross-entropy (nats)", fontsize=9)
    fig.suptitle(title)
    return fig


@styled
def accuracy_dots(results: Sequence[dict], split: str = "test", title: str = "") -> Figure:
    """Accuracy by label: each seed a pale dot, mean and standard deviation over it and in words.

    Args:
        results: runs of one or more models; a row a label, ViT above Diff-ViT.
        split: "test" or "val".
        title: of the figure.
    """
    groups = by_name(results)
    labels = list(dict.fromkeys(label_of(group[0]) for group in groups))
    models = [m for m in MODELS.values() if any(model_of(g[0]) == m for g in groups)]
    rows = len(labels) * (len(models) + 0.5)
    fig, ax = plt.subplots(figsize=(WIDTH, 0.24 * rows + 1))
    for group in groups:
        model, label = model_of(group[0]), label_of(group[0])
        here = {model_of(g[0]) for g in groups if label_of(g[0]) == label}
        others = [m for m in models if m in here]
        step = (others.index(model) - (len(others) - 1) / 2) * 0.7 / len(models)  # alone: on its row
        y = labels.index(label) + step
        values = np.array([r[f"{split}_accuracy"] for r in group], dtype=float)
        mean, std = values.mean(), float(std_over_seeds(values))
        colour = MODEL_COLOURS[model]
        if len(group) > 1:
            ax.scatter(values, np.full(len(group), y), s=14, color=colour, alpha=0.35, lw=0)
        ax.errorbar(mean, y, xerr=std or None, fmt="o", ms=5.5, color=colour, capsize=3,
                    label=model)  # fmt: skip
        text = f"{mean:.2f} ± {std:.2f}  n = {len(group)}" if len(group) > 1 else f"{mean:.2f}"
        ax.text(1.015, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8,
                color=colour)  # fmt: skip
    ax.set_yticks(range(len(labels)), [wrapped(label, 36) for label in labels])
    ax.set(ylim=(len(labels) - 0.5, -0.5), title=title,
           xlabel=f"{'validation' if split == 'val' else split} accuracy (%)")  # fmt: skip
    ax.margins(x=0.06)
    if len(models) > 1:
        legend_below(fig)
    return fig


def _setting(result: dict, key: str) -> float | str:
    """What describes a run: `n_params` in millions, or a field of its configurations."""
    if key == "n_params":
        return result["n_params"] / 1e6
    for part in ("model", "train"):
        if key in result["config"][part]:
            return result["config"][part][key]
    raise ValueError(f"no run has the setting {key!r}: expected n_params or a field of its config")


@styled
def search_scatter(results: Sequence[dict], x: Sequence[str] = ("n_params", "learning_rate"),
                   title: str = "") -> Figure:  # fmt: skip
    """Validation accuracy of every configuration against some of its settings, a panel each.

    The best configuration of each model has a ring and its label.
    """
    groups = by_name(results)
    values = [np.array([r["val_accuracy"] for r in g], dtype=float) for g in groups]
    settings = {key: [_setting(g[0], key) for g in groups] for key in x}
    models = [model_of(g[0]) for g in groups]
    best = {}  # model -> index of its best group
    for i, model in enumerate(models):
        best[model] = max(best.get(model, i), i, key=lambda k: values[k].mean())
    fig, axes = plt.subplots(1, len(x), figsize=(WIDTH, 3.4), sharey=True, squeeze=False)
    for ax, key in zip(axes[0], x):
        if key in LOG_AXES:
            ax.set_xscale("log")
            ticks = _nice_ticks(settings[key]) if key == "n_params" else sorted(set(settings[key]))
            ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
            ax.minorticks_off()
        for at, accuracy, model in zip(settings[key], values, models):
            ax.errorbar(at, accuracy.mean(), yerr=float(std_over_seeds(accuracy)) or None, fmt="o",
                        ms=5.5, alpha=0.75, color=MODEL_COLOURS[model], mew=0)  # fmt: skip
        for model, i in best.items():
            text = f"{model}; best (ring): {label_of(groups[i][0])}, {values[i].mean():.2f} %"
            ax.plot(settings[key][i], values[i].mean(), "o", ms=10, mfc="none",
                    color=MODEL_COLOURS[model], label=text)  # fmt: skip
        ax.set_xlabel(AXIS_LABELS.get(key, key))
        ax.margins(x=0.1, y=0.1)
    axes[0, 0].set_ylabel("validation accuracy (%)")
    legend_below(fig)
    fig.suptitle(title)
    return fig


def _nice_ticks(values: Sequence[float]) -> list[float]:
    """1, 2, 5 times powers of ten around the values: what a reader expects on a log axis."""
    ticks = [m * 10.0**e for e in range(-4, 4) for m in (1, 2, 5)]
    low = max((t for t in ticks if t <= min(values)), default=ticks[0])
    high = min((t for t in ticks if t >= max(values)), default=ticks[-1])
    return [t for t in ticks if low <= t <= high]


@styled
def parallel_coordinates(
    results: Sequence[dict],
    keys: Sequence[str] = (
        "embed_dim", "depth", "num_heads", "mlp_ratio", "learning_rate", "batch_size", "optimizer"
    ),
    title: str = "",
) -> Figure:  # fmt: skip
    """The hyperparameter search: a line a configuration, a scale a hyperparameter, then accuracy.

    Values of a hyperparameter are equally spaced. Lines through the same value are fanned out
    a little around its tick, the more accurate higher, so that none hides another.
    """
    groups = by_name(results)
    accuracy = np.array([np.mean([r["val_accuracy"] for r in g]) for g in groups])
    low, high = accuracy.min(), accuracy.max()
    height = (accuracy - low) / ((high - low) or 1)
    rank = accuracy.argsort().argsort()
    fig, ax = plt.subplots(figsize=(WIDTH, 4))
    ys = []
    for x, key in enumerate(keys):
        settings = np.array([_setting(g[0], key) for g in groups])
        values = sorted(set(settings))
        step = 1 / len(values)
        centre = (np.searchsorted(values, settings) + 0.5) * step
        fan = np.zeros(len(groups))
        for value in values:
            same = np.flatnonzero(settings == value)
            order = rank[same].argsort().argsort()
            fan[same] = (order - (len(same) - 1) / 2) / max(len(groups), 2) * step * 0.3
        ys.append(centre + fan)
        for i, value in enumerate(values):
            text = value if isinstance(value, str) else f"{value:g}"
            ax.text(x - 0.06, (i + 0.5) * step, text, ha="right", va="center", fontsize=8,
                    zorder=4, bbox={"fc": "white", "ec": "none", "pad": 0.8})  # fmt: skip
    ys = np.array([*ys, height])  # (keys + 1, runs)
    cmap = plt.get_cmap("viridis_r")
    for run in accuracy.argsort():  # the best is drawn last, on top
        best = run == accuracy.argmax()
        ax.plot(range(len(keys) + 1), ys[:, run], color=cmap(0.08 + 0.92 * height[run]),
                lw=3 if best else 1.3, zorder=3 if best else 2)  # fmt: skip
    for x in range(len(keys) + 1):
        ax.axvline(x, color="0.4", lw=0.8, zorder=1)
    for y in np.linspace(0, 1, 6):
        ax.text(len(keys) + 0.05, y, f"{low + y * (high - low):.1f}", va="center", fontsize=8)
    ax.set(xlim=(-0.35, len(keys) + 0.35), ylim=(-0.03, 1.03), yticks=[], title=title)
    ax.set_xticks(range(len(keys) + 1), [*keys, "validation\naccuracy (%)"])
    ax.tick_params(axis="x", length=0, labelsize=8.5)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.text(0.5, -0.16, f"thick: {label_of(groups[accuracy.argmax()][0])}, {high:.2f} %",
            transform=ax.transAxes, ha="center", va="top", fontsize=8.5)  # fmt: skip
    return fig


@styled
def confusion_matrix(matrix, classes: Sequence[str], title: str = "") -> Figure:
    """How many images of each class (rows) are taken for which (columns).

    Args:
        matrix: (K, K) counts.
        classes: K names.
        title: of the figure.
    """
    matrix = np.asarray(matrix).astype(int)
    K = len(classes)
    if matrix.shape != (K, K):
        raise ValueError(f"expected a matrix ({K}, {K}) for {K} classes, got {matrix.shape}")
    mistakes = np.where(np.eye(K, dtype=bool), np.nan, matrix)
    fig, ax = plt.subplots(figsize=(6.2, 5.6))
    # Only the mistakes are coloured: beside 900 right ones 60 and 20 would look alike.
    cmap = plt.get_cmap("Purples").with_extremes(bad="0.93")
    image = ax.imshow(mistakes, cmap=cmap, vmin=0, vmax=max(1, np.nanmax(mistakes)))
    for (row, column), count in np.ndenumerate(matrix):
        dark = row != column and count > 0.6 * image.norm.vmax
        ax.text(column, row, f"{count:d}", ha="center", va="center", fontsize=8,
                color="white" if dark else "black" if count else "0.6",
                weight="bold" if row == column else "normal")  # fmt: skip
    ax.set_xticks(range(K), classes, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(K), classes)
    ax.set(xlabel="predicted class", ylabel="true class", title=title)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    fig.colorbar(image, ax=ax, label="mistakes (images)", shrink=0.7)
    return fig


@styled
def lambda_curves(results: Sequence[dict], title: str = "") -> Figure:
    """λ of each layer over the epochs of Diff-ViT runs, a panel a run; dots are λ_init.

    Several seeds are thin lines under their mean: layers lie so close that bands would hide them.
    """
    groups = by_name(results)
    data = [_histories(g, "lambdas") for g in groups]  # (seeds, epochs, layers)
    fig, axes = plt.subplots(1, len(groups), figsize=(WIDTH if len(groups) > 1 else 6.5, 3.6),
                             sharey=True, squeeze=False)  # fmt: skip
    low, high = min(np.nanmin(v) for v in data), max(np.nanmax(v) for v in data)
    for ax, group, values in zip(axes[0], groups, data):
        _, epochs, layers = values.shape
        shades = plt.get_cmap("viridis")(np.linspace(0, 0.88, layers))
        ends = values[:, -1].mean(axis=0)
        places = _apart(ends, 0.055 * (high - low))
        for layer in range(layers):
            look, x = {"color": shades[layer]}, range(1, epochs + 1)
            if len(values) > 1:
                ax.plot(x, values[:, :, layer].T, **look, lw=0.8, alpha=0.6, label="_seed")
            ax.plot(x, values[:, :, layer].mean(axis=0), **look, label=f"layer {layer + 1}")
            if (config := group[0]["config"]["model"])["attention"] == "diff":
                start = config["lambda_init"]
                start = lambda_init_of(layer + 1) if start is None else start
                ax.plot(0, start, "o", **look, ms=4, label="_start")
            ax.text(1.01, places[layer], f"layer {layer + 1}", fontsize=8, va="center",
                    color=shades[layer], transform=ax.get_yaxis_transform())  # fmt: skip
        seeds = f", {len(group)} seeds and their mean" if len(group) > 1 else ""
        ax.set(xlabel="epoch (dots: λ_init)", title=label_of(group[0]) + seeds if len(groups) > 1 else "")
        whole_ticks(ax)
    axes[0, 0].set_ylabel("λ")
    fig.suptitle(title)
    return fig


def _apart(values: np.ndarray, gap: float) -> np.ndarray:
    """Places near the values, in their order, at least `gap` from one another: for labels."""
    order = np.argsort(values)
    places = values[order].astype(float)
    for _ in range(200):  # neighbours that are too close push each other away by half of it
        lack = gap - np.diff(places)
        if (lack <= 1e-9).all():
            break
        push = np.clip(lack, 0, None) / 2
        places[:-1] -= push
        places[1:] += push
    result = np.empty_like(places)
    result[order] = places
    return result


@styled
def robustness_curves(
    accuracy: dict, severities: Sequence[int] = (1, 2, 3, 4, 5), title: str = ""
) -> Figure:
    """Test accuracy against the severity of each corruption, a panel a corruption.

    Args:
        accuracy: {model: {corruption: (seeds, severities) or (severities,)}} in percent.
        severities: what the columns stand for; 0 for clean images.
        title: of the figure.

    Raises:
        ValueError: if the shapes do not fit, or the models differ in their corruptions.
    """
    corruptions = list(next(iter(accuracy.values())))
    for model, by_corruption in accuracy.items():
        if set(by_corruption) != set(corruptions):
            raise ValueError(
                f"expected the corruptions {corruptions} for every model, "
                f"got {list(by_corruption)} for {model!r}"
            )
    data = {
        (m, c): per_seed(f"{m}, {c}", values, len(severities))
        for m, part in accuracy.items()
        for c, values in part.items()
    }
    fig, axes = panels(corruptions, 4, "severity")
    for (model, corruption), values in data.items():
        colour = colour_of(model, list(accuracy).index(model))
        band(axes[corruption], severities, values, colour, marker="o", ms=3.5, label=model)
    for ax in axes.values():
        ax.set_xticks(severities)
    legend_below(fig)
    fig.supylabel("test accuracy (%)", fontsize=9)
    fig.suptitle(title)
    return fig
