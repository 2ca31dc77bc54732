# LLM-assisted: prompts P1, P2, P8, P13, P15, P16, see report.md
"""The style of all figures, their sizes, and how they are saved and shown.

ViT is blue and Diff-ViT vermilion in every figure, and no other thing ever has these two
colours. The colours keep apart for colour-blind readers (Okabe and Ito's, and Tol's "muted")."""

import io
import tempfile
import textwrap
from collections.abc import Sequence
from functools import wraps
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from cvassign.files import replacing
from cvassign.settings import SMOKE

# Figures of generated pictures replace no real ones.
FIGURES = Path(__file__).resolve().parents[1] / "figures"
FIGURES = Path(tempfile.mkdtemp(prefix="figures-")) if SMOKE else FIGURES
WIDTH = 9.5  # inches; a notebook's column
MAX_BYTES = 150_000  # of a figure's file
# Dots an inch, and the quality of a JPEG: the first that stays below MAX_BYTES is taken.
SIZES = ((150, 90), (150, 80), (120, 88), (120, 78), (100, 85), (100, 70), (80, 70))

STYLE = {
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "figure.titlesize": 11,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8.5, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "0.4",
    "xtick.color": "0.4", "ytick.color": "0.4", "xtick.labelcolor": "black",
    "ytick.labelcolor": "black", "axes.grid": True, "grid.color": "0.9", "axes.axisbelow": True,
    "lines.linewidth": 1.6, "lines.dashed_pattern": (4, 1.5), "lines.dotted_pattern": (1, 1.2),
    "lines.dashdot_pattern": (5, 1.5, 1, 1.5), "image.interpolation": "nearest",
    "figure.constrained_layout.use": True, "figure.dpi": 100,
}  # fmt: skip
MODEL_COLOURS = {"ViT": "#0072B2", "Diff-ViT": "#D55E00"}
COLOURS = ("#117733", "#AA4499", "#BB9900", "#44AA99", "#332288", "#999999", "#000000")


def styled(draw):
    """Makes a function draw in the common style, whatever the user has set."""

    @wraps(draw)
    def drawn(*args, **kwargs) -> Figure:
        with plt.style.context(STYLE, after_reset=True):
            figure = draw(*args, **kwargs)
        plt.close(figure)  # an open figure is shown by a notebook whether asked for or not
        return figure

    return drawn


def encoded(figure: Figure) -> tuple[bytes, str]:
    """The figure's file and its ending, in the highest resolution that takes below `MAX_BYTES`: a
    JPEG where it has pictures, a PNG in true colour where it has maps, else a PNG of 256."""
    images = [image for ax in figure.axes for image in ax.images]
    photo = any(image.get_array().ndim == 3 for image in images)
    # Without matplotlib's version in it the same figure gives the same PNG.
    kind, metadata = ("jpg", None) if photo else ("png", {"Software": None})
    # Ticks are made when drawn, in the style of then; the layout stays as it was made.
    style = STYLE | {"figure.constrained_layout.use": False}
    for dpi, quality in SIZES:
        file, pil = io.BytesIO(), {"quality": quality, "subsampling": 0, "optimize": True}
        with plt.style.context(style, after_reset=True):
            figure.savefig(file, format=kind, dpi=dpi, metadata=metadata, pil_kwargs=pil)
        if not images:  # a third of the bytes, and no difference that is seen
            drawn = Image.open(file).convert("RGB").quantize(256, dither=Image.Dither.NONE)
            drawn.save(file := io.BytesIO(), format="png", optimize=True)
        if file.tell() < MAX_BYTES:
            break
    return file.getvalue(), kind


def show(figure: Figure, name: str, folder: Path | None = None):
    """Saves a figure and shows its file, which keeps a notebook small: by the inline backend a grid
    of maps is megabytes. Where the folder cannot be written one line says so."""
    from IPython import display  # not needed but in a notebook, and there it is

    if not name or Path(name).name != name:
        raise ValueError(f"expected the bare name of a figure, got {name!r}")
    content, kind = encoded(figure)
    path = (folder or FIGURES) / f"{name}.{kind}"
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        print(f"{path.name} is shown but was not saved: {error.strerror or error}")
    return display.Image(data=content, width=round(100 * figure.get_figwidth()))


def errorbars(ax: Axes, x: Sequence, values: Sequence, colour, **look) -> None:
    """Points with their intervals, from `values` (n, 3): mean, low, high."""
    mean, low, high = np.asarray(values, dtype=float).T
    look = {"marker": "o", "ms": 4, "elinewidth": 1} | look
    ax.errorbar(x, mean, (mean - low, high - mean), color=colour, **look)


def lines(ax: Axes, x: Sequence, named: dict[str, Sequence]) -> None:
    """A line for each name: of numbers (n,), or of (n, 3) mean, low, high, with its intervals; a
    model in its own colour."""
    for i, (name, values) in enumerate(named.items()):
        colour = MODEL_COLOURS.get(name, COLOURS[i % len(COLOURS)])
        if np.ndim(values) == 2:
            errorbars(ax, x[: len(values)], values, colour, label=name)
        else:
            ax.plot(x[: len(values)], values, "o-", ms=4, color=colour, label=name)


def whole_ticks(ax: Axes) -> None:
    """At most eight ticks, at whole numbers, on the x axis."""
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=(1, 2, 5, 10)))


def wrapped(text: str, width: int) -> str:
    """The text in lines of about `width` characters, broken at spaces and after plus signs."""
    return textwrap.fill(text.replace("+", "+ "), width).replace("+ ", "+")


def panels(names: Sequence[str], columns: int, xlabel: str) -> tuple[Figure, dict[str, Axes]]:
    """A grid of panels with common axes, one a name; cells that are left over stay empty."""
    columns = min(columns, len(names))
    cells = np.reshape([*names, *[""] * (-len(names) % columns)], (-1, columns))
    titles = [wrapped(name, 110 // columns) for name in names]
    size = WIDTH, (1.8 + 0.15 * max(title.count("\n") for title in titles)) * len(cells) + 0.6
    fig, axes = plt.subplot_mosaic(cells, figsize=size, sharex=True, sharey=True, empty_sentinel="")
    for i, (ax, title) in enumerate(zip(axes.values(), titles)):
        ax.set_title(title, fontsize=9)
        ax.yaxis.set_major_locator(MaxNLocator(5))
        if i + columns >= len(names):  # the lowest panel of its column
            ax.xaxis.set_tick_params(labelbottom=True)
            ax.set_xlabel(xlabel)
    return fig, axes


def legend_below(fig: Figure, title: str = "") -> Figure:
    """The figure with a title, and one legend for all panels under it: each text once, in as many
    columns as fit. It grows by the legend's height, so that the panels keep theirs."""
    entries = {t: h for ax in fig.axes for h, t in zip(*ax.get_legend_handles_labels())}
    columns = max(1, min(4, int(WIDTH / (0.55 + 0.075 * max(map(len, entries))))))
    fig.set_figheight(fig.get_figheight() + 0.19 * -(-len(entries) // columns))
    fig.legend(entries.values(), entries, loc="outside lower center", ncols=columns)
    fig.suptitle(title)
    return fig
