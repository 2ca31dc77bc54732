# LLM-assisted: prompts P1, P2, P5, see report.md
"""One style for all figures of notebooks 1 and 2, and how they are saved.

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

from cvassign.files import replacing

FIGURES = Path(__file__).resolve().parents[1] / "figures"
if os.environ.get("CVASSIGN_SMOKE") == "1":  # figures of generated pictures replace no real ones
    FIGURES = Path(tempfile.mkdtemp(prefix="figures-"))
WIDTH = 9.5  # inches; a notebook's column
MAX_BYTES = 300_000  # of a figure's file
DPIS = (150, 120, 100, 80, 60)  # the first that stays below MAX_BYTES is taken

STYLE = {
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "figure.titlesize": 11,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8.5, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "0.4",
    "xtick.color": "0.4", "ytick.color": "0.4", "xtick.labelcolor": "black",
    "ytick.labelcolor": "black", "axes.grid": True, "grid.color": "0.9", "axes.axisbelow": True,
    "lines.linewidth": 1.6, "image.interpolation": "nearest",
    "figure.constrained_layout.use": True, "figure.dpi": 100,
}  # fmt: skip
MODELS = {"standard": "ViT", "diff": "Diff-ViT", "diff_v2": "Diff-ViT v2"}  # by config.attention
MODEL_COLOURS = {"ViT": "#0072B2", "Diff-ViT": "#D55E00", "Diff-ViT v2": "#882255"}
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


def png(figure: Figure, about: dict[str, str] | None = None) -> bytes:
    """The figure as PNG, in the highest resolution that takes below 300 KB.

    Args:
        figure: what to draw.
        about: texts that the file carries: keyword -> text.
    """
    for dpi in DPIS:
        file = io.BytesIO()
        # Without matplotlib's version in it the same figure gives the same file.
        figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None, **(about or {})},
                       pil_kwargs={"optimize": True})  # fmt: skip
        if file.tell() < MAX_BYTES:
            break
    return file.getvalue()


def save(
    figure: Figure, name: str, folder: Path = FIGURES, about: dict[str, str] | None = None
) -> Path:
    """Writes `folder/name.png` atomically; `about` as for `png`.

    Returns:
        The file's path.

    Raises:
        ValueError: if the name is a path.
    """
    return _write(png(figure, about), name, folder)


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
    from IPython.display import Image  # not needed but in a notebook, and there it is

    content = png(figure)
    try:
        _write(content, name, folder)
    except OSError as error:
        print(f"{name}.png is shown but was not saved: {error.strerror or error}")
    return Image(data=content, width=round(100 * figure.get_figwidth()))


def std_over_seeds(values: np.ndarray) -> np.ndarray:
    """Sample standard deviation over the seeds; zero for a single one."""
    return values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])


def band(ax: Axes, x: Sequence, values: np.ndarray, colour, **line) -> None:
    """The mean of values (seeds, len(x)) as a line, in a band of one standard deviation."""
    mean, std = values.mean(axis=0), std_over_seeds(values)
    ax.plot(x, mean, color=colour, **line)
    if len(values) > 1:
        ax.fill_between(x, mean - std, mean + std, color=colour, alpha=0.2, lw=0)


def per_seed(name: str, values, width: int | None = None) -> np.ndarray:
    """`values` as (seeds, width), from (width,) or (seeds, width)."""
    values = np.atleast_2d(np.asarray(values, dtype=float))
    if values.ndim != 2 or (width is not None and values.shape[1] != width):
        expected = f"(seeds, {'n' if width is None else width})"
        raise ValueError(f"expected {name} of shape {expected}, got {values.shape}")
    return values


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
    for ax in axes.flat[len(names):]:
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
