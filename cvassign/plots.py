# LLM-assisted: prompts P1, P2, P8, see report.md
"""The figures of training runs, and the style and the saving of all figures.

Each figure takes results, the dicts of the JSON files, and returns a Figure.

ViT is blue and Diff-ViT vermilion in every figure, and no other thing ever has these two
colours; a line is the mean over seeds, its band one standard deviation. The colours keep apart
for colour-blind readers (Okabe and Ito's, and Tol's "muted").
"""

import io
import os
import re
import tempfile
from collections.abc import Sequence
from functools import wraps
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from cvassign.attention import lambda_init_of
from cvassign.files import replacing

FIGURES = Path(__file__).resolve().parents[1] / "figures"
if os.environ.get("CVASSIGN_SMOKE") == "1":  # figures of generated pictures replace no real ones
    FIGURES = Path(tempfile.mkdtemp(prefix="figures-"))
WIDTH = 9.5  # inches; a notebook's column
MAX_BYTES = 150_000  # of a figure's file
# Dots an inch, and colours of a palette: the first that stays below MAX_BYTES is taken.
RESOLUTIONS = ((150, None), (120, None), (100, None), (120, 256), (100, 256), (80, 256))

STYLE = {
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "figure.titlesize": 11,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8.5, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "0.4",
    "xtick.color": "0.4", "ytick.color": "0.4", "xtick.labelcolor": "black",
    "ytick.labelcolor": "black", "axes.grid": True, "grid.color": "0.9", "axes.axisbelow": True,
    "lines.linewidth": 1.6, "image.interpolation": "nearest",
    "figure.constrained_layout.use": True, "figure.dpi": 100,
}  # fmt: skip
MODELS = {"standard": "ViT", "diff": "Diff-ViT"}  # by config.attention
MODEL_COLOURS = {"ViT": "#0072B2", "Diff-ViT": "#D55E00"}
COLOURS = ("#117733", "#AA4499", "#BB9900", "#44AA99", "#332288", "#999999", "#000000")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))


def styled(draw):
    """Makes a function draw in the common style and leave no open figure behind."""

    @wraps(draw)
    def drawn(*args, **kwargs) -> Figure:
        with plt.rc_context(STYLE):
            figure = draw(*args, **kwargs)
        plt.close(figure)  # an open figure is shown by a notebook whether asked for or not
        return figure

    return drawn


def png(figure: Figure) -> bytes:
    """The figure as PNG, in the highest resolution that takes below `MAX_BYTES`."""
    for dpi, colours in RESOLUTIONS:
        file = io.BytesIO()
        # Without matplotlib's version in it the same figure gives the same file.
        figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None},
                       pil_kwargs={"optimize": True})  # fmt: skip
        if colours:
            drawn, file = Image.open(file), io.BytesIO()
            rgb = drawn.convert("RGB").quantize(
                colours, Image.Quantize.FASTOCTREE
            )  # keeps rare ones
            rgb.save(file, "png", optimize=True)
        if file.tell() < MAX_BYTES:
            break
    return file.getvalue()


def _write(content: bytes, name: str, folder: Path) -> Path:
    if not name or Path(name).name != name:
        raise ValueError(f"expected the bare name of a figure, got {name!r}")
    path = folder / f"{name}.png"
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def show(figure: Figure, name: str, folder: Path = FIGURES):
    """Saves a figure and shows its file in a notebook, at the figure's size.

    The file keeps the notebook small; shown by the inline backend, a grid of maps is megabytes.
    Where the folder cannot be written the figure is shown all the same, and one line says so.
    """
    from IPython import display  # not needed but in a notebook, and there it is

    content = png(figure)
    try:
        _write(content, name, folder)
    except OSError as error:
        print(f"{name}.png is shown but was not saved: {error.strerror or error}")
    return display.Image(data=content, width=round(100 * figure.get_figwidth()))


def std_over_seeds(values: np.ndarray) -> np.ndarray:
    """Sample standard deviation over the seeds; zero for a single one."""
    return values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])


def band(ax: Axes, x: Sequence, values: np.ndarray, colour, **line) -> None:
    """The mean of values (seeds, len(x)) as a line, in a band of one standard deviation."""
    mean, std = values.mean(axis=0), std_over_seeds(values)
    ax.plot(x, mean, color=colour, **line)
    if len(values) > 1:
        ax.fill_between(x, mean - std, mean + std, color=colour, alpha=0.2, lw=0)


def colour_of(name: str, i: int) -> str:
    """A model's own colour, else the i-th of the others."""
    return MODEL_COLOURS.get(name, COLOURS[i % len(COLOURS)])


def whole_ticks(ax: Axes) -> None:
    """At most eight ticks, at whole numbers, on the x axis."""
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=(1, 2, 5, 10)))


def wrapped(text: str, width: int) -> str:
    """The text in lines of about `width` characters, broken at spaces and after plus signs."""
    lines = [""]
    for piece in re.split(r"(?<=[ +])", text):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def panels(names: Sequence[str], columns: int, xlabel: str) -> tuple[Figure, dict[str, Axes]]:
    """A grid of panels with common axes, one a name; the cells that are left over are removed."""
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    titles = [wrapped(name, 110 // columns) for name in names]
    lines = max(title.count("\n") for title in titles)
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, (1.8 + 0.15 * lines) * rows + 0.6),
                             sharex=True, sharey=True, squeeze=False)  # fmt: skip
    for ax in axes.flat[len(names) :]:
        ax.remove()
    for i, (ax, title) in enumerate(zip(axes.flat, titles)):
        ax.set_title(title, fontsize=9)
        ax.yaxis.set_major_locator(MaxNLocator(5))
        if i + columns >= len(names):  # the lowest panel of its column
            ax.xaxis.set_tick_params(labelbottom=True)
            ax.set_xlabel(xlabel)
    return fig, dict(zip(names, axes.flat))


def legend_below(fig: Figure, columns: int | None = None) -> None:
    """One legend for all panels under the figure: each text once, in as many columns as fit.

    The figure grows by the legend's height, so that the panels keep theirs.
    """
    entries = {t: h for ax in fig.axes for h, t in zip(*ax.get_legend_handles_labels())}
    longest = max(len(text) for text in entries)
    columns = columns or max(1, min(4, int(WIDTH / (0.55 + 0.075 * longest))))
    fig.set_figheight(fig.get_figheight() + 0.19 * -(-len(entries) // columns))
    fig.legend(entries.values(), entries, loc="outside lower center", ncols=columns)


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
            colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
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
    axes[0].set_ylabel("cross-entropy (nats)")
    legend_below(fig, models if models > 1 else None)  # a column a model
    fig.suptitle(title)
    return fig


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
    legend_below(fig)
    fig.supylabel("cross-entropy (nats)", fontsize=9)
    fig.suptitle(title)
    return fig


@styled
def confusion_matrix(matrix, classes: Sequence[str], title: str = "") -> Figure:
    """How many images of each class (rows) are taken for which (columns).

    Args:
        matrix: (K, K) counts; `classes` are K names.
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
    """λ of each layer over the epochs of one Diff-ViT run; dots are λ_init.

    Several seeds are thin lines under their mean: layers lie so close that bands would hide them.
    """
    (group,) = by_name(results)
    values = _histories(group, "lambdas")  # (seeds, epochs, layers)
    _, epochs, layers = values.shape
    fig, ax = plt.subplots(figsize=(6.5, 3.6))
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.88, layers))
    places = _apart(values[:, -1].mean(axis=0), 0.055 * (np.nanmax(values) - np.nanmin(values)))
    start = group[0]["config"]["model"]["lambda_init"]
    for layer in range(layers):
        look, x = {"color": shades[layer]}, range(1, epochs + 1)
        if len(values) > 1:
            ax.plot(x, values[:, :, layer].T, **look, lw=0.8, alpha=0.6, label="_seed")
        ax.plot(x, values[:, :, layer].mean(axis=0), **look, label=f"layer {layer + 1}")
        first = lambda_init_of(layer + 1) if start is None else start
        ax.plot(0, first, "o", **look, ms=4, label="_start")
        ax.text(1.01, places[layer], f"layer {layer + 1}", fontsize=8, va="center",
                color=shades[layer], transform=ax.get_yaxis_transform())  # fmt: skip
    ax.set(xlabel="epoch (dots: λ_init)", ylabel="λ", title=title)
    whole_ticks(ax)
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


def _setting(result: dict, key: str):
    config = result["config"]
    return (config["model"] | config["train"])[key]


@styled
def hyperparameters(results: Sequence[dict], reference: Sequence[dict], title: str = "") -> Figure:
    """Validation accuracy against the value of each hyperparameter, a small panel each.

    Args:
        results: the reference recipe first, then runs that change one thing in it; of one or of
            both models. AdamW's runs share a panel of their own against its rate.
        reference: all seeds of the reference recipe. The band is two of their standard deviations
            (the models' larger one) to either side of their mean: inside it a difference may be
            chance.
    """
    models = [m for m in MODELS.values() if any(model_of(r) == m for r in results)]
    of = {m: [r for r in results if model_of(r) == m] for m in models}
    val = lambda m: np.array([r["val_accuracy"] for r in reference if model_of(r) == m])  # noqa: E731
    seeds = {m: val(m) for m in models}
    noise = max(values.std(ddof=1) for values in seeds.values())
    keys = ("depth", "embed_dim", "num_heads", "mlp_ratio", "learning_rate")
    names = ("layers", "embedding dimension D", "heads", "MLP width / D", "learning rate, Muon")
    fig, axes = plt.subplots(2, 3, figsize=(WIDTH, 5), sharey=True)
    for ax, key, name in zip(axes.flat, (*keys, "adamw"), (*names, "learning rate, AdamW")):
        for model in models:
            base, *rest = of[model]
            adamw = [r for r in rest if _setting(r, "optimizer") != _setting(base, "optimizer")]
            if key == "adamw":
                runs, x = adamw, "learning_rate"
            else:
                changed = [r for r in rest if _setting(r, key) != _setting(base, key)]
                runs, x = [r for r in [base, *changed] if r not in adamw], key
            runs = sorted(runs, key=lambda r: _setting(r, x))
            colour, level = MODEL_COLOURS[model], seeds[model].mean()
            ax.plot(range(len(runs)), [r["val_accuracy"] for r in runs], "o-", ms=4.5, color=colour,
                    label=model)  # fmt: skip
            ax.set_xticks(range(len(runs)), [f"{_setting(r, x):g}" for r in runs])
            ax.axhspan(level - 2 * noise, level + 2 * noise, color=colour, alpha=0.12, lw=0)
        ax.set_xlabel(name)
        ax.margins(x=0.12)
    fig.supylabel("validation accuracy (%)", fontsize=9)
    legend_below(fig)
    fig.suptitle(title)
    return fig


def errorbars(ax: Axes, x, values, colour, **look) -> None:
    """Points with their intervals, from values (n, 3): mean, low, high."""
    mean, low, high = np.asarray(values, dtype=float).T
    ax.errorbar(x, mean, (mean - low, high - mean), color=colour,
                **{"marker": "o", "ms": 4, "elinewidth": 1} | look)  # fmt: skip


@styled
def robustness_difference(gaps: dict, severities: Sequence[int], title: str = "") -> Figure:
    """Diff-ViT minus ViT against the severity, a line a corruption: noises (left), others (right).

    Args:
        gaps: {"clean": (1, 3) and each corruption: (severities, 3)} the difference in points with
            its 95 % interval; lines are moved sideways, so that intervals stand side by side.
        severities: of the columns, after 0 for clean images.
    """
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.4), sharey=True)
    for ax, noise in zip(axes, (True, False)):
        names = [name for name in gaps if name != "clean" and ("noise" in name) == noise]
        ax.axhline(0, color="0.4", lw=0.8)
        errorbars(ax, severities[:1], gaps["clean"], "black", ls="", label="clean images")
        for i, name in enumerate(names):
            x = np.array(severities[1:]) + 0.12 * (i - (len(names) - 1) / 2)
            errorbars(ax, x, gaps[name], COLOURS[i + 3 * (not noise)], label=name)
        ax.set(xlabel="severity (0: clean images)")
        whole_ticks(ax)
    axes[0].set_ylabel("Diff-ViT − ViT (points)")
    legend_below(fig)
    fig.suptitle(title)
    return fig
