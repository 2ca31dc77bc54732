# LLM-assisted: prompts P1, P2, P3, P8, P13, P15, see report.md
"""The figures of images, attention maps and positions: each takes arrays and returns a Figure.

Images are CIFAR's uint8 pixels (B, 3, S, S). A map has one number per patch, in raster order; each
patch is drawn as a square over its grey pixels. Each map has a scale of its own, from
its least to its largest value; a signed one a diverging scale, as wide as its largest weight of
either sign. Only `head_maps` can draw all maps on one scale.

Shapes: B batch, L layers, H heads, N = g² patches, S pixels a side, D embed_dim."""

import math
from collections.abc import Sequence
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from cvassign.figure import COLOURS, WIDTH, legend_below, lines, styled, whole_ticks, wrapped

SEQUENTIAL, DIVERGING = "inferno", "RdBu_r"
OPACITY = 0.65  # of a map over its image
GREY = (0.299, 0.587, 0.114)
LABEL = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.8}  # behind a text on a map
LEFT = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 8}  # of a text before a row
PER_BLOCK = 8  # images beside each other in the figures that have an image a column


def _images(images) -> np.ndarray:
    """Checked images as pyplot wants them: (B, 3, S, S) uint8 -> (B, S, S, 3)."""
    x = np.asarray(images)
    if x.ndim != 4 or x.shape[1] != 3 or x.dtype != np.uint8:
        raise ValueError(f"expected images (B, 3, S, S) of uint8, got {x.shape} of {x.dtype}")
    return x.transpose(0, 2, 3, 1)


def _checked(images, maps: dict, shape: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Checked images (B, S, S, 3), and maps on their patch grid; `shape` has the names of their
    axes, for example "L, B, H, N"."""
    images, grids, axes = _images(images), {}, shape.split(", ")
    for name, of_name in maps.items():
        of_name = np.asarray(of_name, dtype=float)
        *front, N = of_name.shape
        g, B = math.isqrt(N), len(images)
        if of_name.ndim != len(axes) or g * g != N or front[axes.index("B")] != B:
            expected = f"maps of {name!r} ({shape}) with B = {B} and N = g²"
            raise ValueError(f"expected {expected}, got {of_name.shape}")
        grids[name] = of_name.reshape(*front, g, g)
    return images, grids


def captions(labels, predictions, classes: Sequence[str]) -> list[str]:
    """ "cat ✓" for a right prediction; "cat" and, in a line of its own, "✗ dog" for a mistake."""
    pairs = zip(labels, predictions, strict=True)
    return [f"{classes[y]} ✓" if y == p else f"{classes[y]}\n✗ {classes[p]}" for y, p in pairs]


def captions_of_all(texts: dict[str, Sequence[str]]) -> list[str]:
    """One caption an image with the answers of all models, from {model: its `captions`}: "cat",
    "ViT ✓", "Diff-ViT ✗ dog"."""
    classes = [text.split()[0] for text in next(iter(texts.values()))]
    answers = [[f"{name} {text.split(maxsplit=1)[1]}" for text in of] for name, of in texts.items()]
    return ["\n".join(of_image) for of_image in zip(classes, *answers, strict=True)]


def _cells(rows: int, columns: int, title: str, left, top, bottom=0.06, group=1, between=0.0):
    """A figure and its square cells without axes (rows, columns), the fewer rows the larger.

    The margins left, top, bottom, and `between` each `group` of rows, are in inches. Every size is
    known beforehand: constrained layout would take many seconds for a grid of 150 axes."""
    gap, top = 0.06, top + 0.3 * bool(title)
    side = min(max(0.9, min(1.7, 11 / rows)), (WIDTH - left - gap) / columns - gap)
    width = left + columns * (side + gap) + gap
    height = top + rows * (side + gap) + (rows // group - 1) * between + bottom
    fig = plt.figure(figsize=(width, height), layout="none")
    axes = np.empty((rows, columns), dtype=object)
    for r, c in np.ndindex(rows, columns):
        x = left + c * (side + gap)
        y = height - top - r * (side + gap) - r // group * between - side
        place = x / width, y / height, side / width, side / height
        axes[r, c] = fig.add_axes(place, xticks=[], yticks=[], frame_on=False)
    # Over the pictures: the margin of names would draw the figure's centre to the left.
    fig.suptitle(title, x=(left + width) / 2 / width, y=1 - 0.1 / height, va="top")
    return fig, axes


def _overlay(ax: Axes, image, grid, signed: bool, limit: float | None = None) -> None:
    """A map (g, g) over a grey image (S, S, 3); a signed one's scale reaches to `limit` if given.

    They are blended here, at the image's own S x S pixels, in 64 steps a colour, which no eye tells
    from 256: a grid of maps at the figure's resolution is megabytes."""
    S = len(image)
    values = np.asarray(Image.fromarray(grid.astype(np.float32)).resize((S, S), Image.NEAREST))
    limit = limit or np.abs(grid).max() or 1.0  # of zeros only: all white
    low, high = (-limit, limit) if signed else (grid.min(), grid.max())
    colours = plt.get_cmap(DIVERGING if signed else SEQUENTIAL)
    heat = colours(Normalize(low, high, clip=True)(values))[..., :3]  # (S, S, 3) in 0 ... 1
    # Paler than it is, so that the map's colours rule and the picture's outlines stay.
    grey = 1 - 0.7 * (1 - image @ np.array(GREY) / 255)
    ax.imshow(np.round(63 * (OPACITY * heat + (1 - OPACITY) * grey[..., None])) / 63)


def _scales(fig: Figure, signed: dict[str, bool], what: str, limit: float | None = None) -> None:
    """Colour bars in the lower margin, for each kind of map one that names its rows; with a `limit`
    a single one, with numbers."""
    width, height = fig.get_size_inches()
    each = (width - 0.6) / 2
    for i, kind in enumerate(sorted(set(signed.values()))):
        where = (0.3 + (i + 0.15) * each, 0.42, 0.7 * each, 0.09)  # inches
        cax = fig.add_axes(np.divide(where, (width, height, width, height)))
        norm = Normalize(-(limit or 1), limit or 1) if kind else Normalize(0, 1)
        drawn = ScalarMappable(norm, DIVERGING if kind else SEQUENTIAL)
        bar = fig.colorbar(drawn, cax=cax, orientation="horizontal", ticks=MaxNLocator(5))
        rows = " / ".join(name for name in signed if signed[name] == kind)
        scale = "all maps on one scale" if limit else "each map on its own scale"
        bar.set_label(f"{what}{rows}: {scale}", fontsize=8)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7.5)
        if not limit:
            texts = {-1: "−largest", 0: "0", 1: "largest"} if kind else {0: "least", 1: "largest"}
            bar.set_ticks(list(texts), labels=list(texts.values()))


def _rows_of_maps(images, grids: dict, heads: list[str], texts, title: str, common=False) -> Figure:
    """A row an image and model: the image, then the model's maps, of (B, columns, g, g)."""
    B, n, texts = len(images), len(grids), texts or {}  # n rows an image
    for name, of in texts.items():
        if name not in grids or len(of) != B:
            raise ValueError(f"expected {B} captions for {list(grids)}, got {len(of)} for {name!r}")
    limit = max(np.abs(maps).max() for maps in grids.values()) if common else None
    signed = {name: common or bool(maps.min() < 0) for name, maps in grids.items()}
    spaces = dict(left=1.0, top=0.3, bottom=0.6, group=n, between=0.12 * (n > 1))
    fig, axes = _cells(B * n, 1 + len(heads), title, **spaces)
    for row, (b, name) in zip(axes, product(range(B), grids)):
        row[0].imshow(images[b])
        before = [name] if n > 1 else []
        before += [texts[name][b]] if name in texts else []
        row[0].set_ylabel("\n".join(before), **LEFT)
        for ax, grid in zip(row[1:], grids[name][b]):  # a Diff-ViT has half as many heads
            _overlay(ax, images[b], grid, signed[name], limit)
            ax.text(1, 31, f"{np.abs(grid).sum():.0%}", fontsize=6.5, bbox=LABEL)
    for ax, head in zip(axes[0], ("image", *heads)):
        ax.set_title(head, fontsize=9, pad=4)
    _scales(fig, signed, "weights of ", limit)
    return fig


@styled
def head_maps(
    images, attention: dict, captions: dict | None = None, layer=-1, title="", common=False
) -> Figure:
    """CLS attention of every head of one layer, and the heads' mean; from {model: (L, B, H, N)} as
    `rollout.cls_attention` gives it, and {model: its `captions`}. A `common` scale is one for all
    maps, and its bar has numbers: what is pale is small."""
    images, grids = _checked(images, attention, "L, B, H, N")
    grids = {k: np.insert(m[layer], 0, m[layer].mean(axis=1), axis=1) for k, m in grids.items()}
    heads = max(maps.shape[1] for maps in grids.values())
    names = ["mean", *(f"head {h}" for h in range(1, heads))]
    return _rows_of_maps(images, grids, names, captions, title, common)


@styled
def layer_maps(images, attention: dict, captions: dict | None = None, title: str = "") -> Figure:
    """CLS attention in every layer, the mean over its heads, from what `head_maps` takes."""
    images, grids = _checked(images, attention, "L, B, H, N")
    grids = {name: maps.mean(axis=2).swapaxes(0, 1) for name, maps in grids.items()}
    layers = max(maps.shape[1] for maps in grids.values())
    return _rows_of_maps(images, grids, [f"layer {i + 1}" for i in range(layers)], captions, title)


@styled
def rollout_maps(images, maps: dict, captions: Sequence[str] = (), title: str = "") -> Figure:
    """Images in columns below their `captions` (or `captions_of_all`), under each its rollout by
    every model or treatment, from {name of the row: (B, N)} as `rollout.rollout_map` gives it."""
    images, grids = _checked(images, maps, "B, N")
    B = len(images)
    texts = captions or [""] * B
    if len(texts) != B:
        raise ValueError(f"expected {B} captions, got {len(texts)}")
    signed = {name: bool(grid.min() < 0) for name, grid in grids.items()}
    above = 0.1 + 0.135 * max(text.count("\n") + 1 for text in texts)  # inches of text
    columns, n = min(B, PER_BLOCK), 1 + len(grids)  # rows of a block
    spaces = dict(left=1.0, top=above, bottom=0.6, group=n, between=above + 0.04)
    fig, axes = _cells(-(-B // columns) * n, columns, title, **spaces)
    blocks = axes.reshape(-1, n, columns).swapaxes(1, 2).reshape(-1, n)  # a row an image
    for b, (column, image, text) in enumerate(zip(blocks, images, texts)):
        column[0].imshow(image)
        column[0].set_title(text, fontsize=7.5, pad=3)
        for ax, (name, grid) in zip(column[1:], grids.items()):
            _overlay(ax, image, grid[b], signed[name])
        if b % columns == 0:
            for ax, name in zip(column, ("image", *grids)):
                ax.set_ylabel(wrapped(name, 16), **LEFT)
    _scales(fig, signed, "")
    return fig


@styled
def augmentation_preview(augmented: dict, title: str = "") -> Figure:
    """A row an augmentation, from {its name: (B, 3, S, S) uint8}, a column an image."""
    rows = {name: _images(images) for name, images in augmented.items()}
    fig, axes = _cells(len(rows), max(map(len, rows.values())), title, left=1.6, top=0.06)
    for row, (name, images) in zip(axes, rows.items()):
        for ax, image in zip(row, images):
            ax.imshow(image)
        row[0].set_ylabel(wrapped(name, 24), **LEFT)
    return fig


def _cosines(positions) -> tuple[np.ndarray, np.ndarray, int]:
    """Checked embeddings (N, D) without the CLS token's, their cosines (N, N), and g."""
    positions = np.asarray(positions, dtype=float)
    g, shape = math.isqrt(len(positions)), positions.shape
    if positions.ndim != 2 or g * g != len(positions):
        raise ValueError(f"expected positions (N, D) of N = g² patches, without CLS; got {shape}")
    unit = positions / np.linalg.norm(positions, axis=1, keepdims=True)
    return positions, unit @ unit.T, g


def position_cosines(positions) -> dict[str, list[list]]:
    """Mean cosine of the positions (N, D) of patches of one column or row that are d apart, and how
    many pairs these are: rows [d, cosine, pairs] by direction.

    "Folded" is d as if the image were folded down its middle: at 0 are mirror images, without
    those of the two middle columns, which are neighbours."""
    _, cosine, g = _cosines(positions)
    row, column = np.divmod(np.arange(g * g), g)
    fold = np.minimum(column, g - 1 - column)
    down, across, folded = (abs(x[:, None] - x) for x in (row, column, fold))
    found = {}
    for name, distance, allowed in (
        ("vertical", down, across == 0),
        ("horizontal", across, down == 0),
        ("horizontal, folded", folded, (down == 0) & (across > 1 - np.sign(folded))),
    ):
        masks = [np.triu(allowed & (distance == d), 1) for d in range(g)]
        found[name] = [[d, cosine[m].mean(), int(m.sum())] for d, m in enumerate(masks) if m.any()]
    return found


@styled
def position_similarity(positions, title: str = "") -> Figure:
    """N x N similarity of the positions (N, D): dot products (left) and cosines (right)."""
    positions, cosines, g = _cosines(positions)
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.3))
    shown = {"dot product": positions @ positions.T, "cosine similarity": cosines}
    for ax, (name, values) in zip(axes, shown.items()):
        limit = np.abs(values).max()
        image = ax.imshow(values, cmap=DIVERGING, vmin=-limit, vmax=limit)
        ticks = range(0, g * g, g)  # the first patch of every row of the image
        for set_ticks in (ax.set_xticks, ax.set_yticks):
            set_ticks(ticks, [t + 1 for t in ticks], fontsize=7)
        ax.set(xlabel="patch, in raster order", ylabel="patch, in raster order")
        ax.grid(False)
        fig.colorbar(image, ax=ax, label=name, shrink=0.85)
    fig.suptitle(title)
    return fig


@styled
def position_grid(positions, title: str = "") -> Figure:
    """Figure 7 of the ViT paper: for each patch the cosines of its position with all others, from
    positions (N, D). Tile (row, column) is of the patch there, its pixel (i, j) with patch (i, j).
    """
    _, cosines, g = _cosines(positions)
    gap = max(1, g // 8)
    margins = (0, 0), (0, 0), (0, gap), (0, gap)  # after each tile
    tiles = np.pad(cosines.reshape(g, g, g, g), margins, constant_values=np.nan)
    mosaic = tiles.swapaxes(1, 2).reshape(g * (g + gap), -1)[:-gap, :-gap]
    fig, ax = plt.subplots(figsize=(6.4, 5.4))
    image = ax.imshow(mosaic, cmap="viridis", vmin=min(0.0, np.nanmin(mosaic)), vmax=1)
    ticks = [i * (g + gap) + (g - 1) / 2 for i in range(g)]
    ax.set_xticks(ticks, range(1, g + 1))
    ax.set_yticks(ticks, range(1, g + 1))
    ax.tick_params(length=0)
    ax.grid(False)
    ax.set(xlabel="input patch column", ylabel="input patch row", title=title, frame_on=False)
    fig.colorbar(image, ax=ax, label="cosine similarity", shrink=0.85)
    return fig


@styled
def position_distance(positions, title: str = "") -> Figure:
    """Mean cosine of two positions (N, D) by their distance, the lines of `position_cosines`."""
    fig, ax = plt.subplots(figsize=(WIDTH * 0.6, 3.4))
    for (name, rows), colour in zip(position_cosines(positions).items(), COLOURS):
        ax.plot(*np.array(rows).T[:2], "o-", ms=4, color=colour, label=name)
    ax.axhline(0, color="0.4", lw=0.8)
    ax.set(xlabel="distance (patches)", ylabel="mean cosine", title=title)
    return legend_below(fig)


@styled
def perturbation_curves(scores: dict[str, dict], title: str = "") -> Figure:
    """Probability of the class (percent) while patches leave the image (left) or enter it (right),
    in each map's order; means over images, from the `scores` of `study.attention`."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.3), sharey=True)
    for i, (ax, name) in enumerate(zip(axes, ("deletion", "insertion"))):
        curves = {key: row["curves"][i] for key, row in scores.items()}
        lines(ax, np.linspace(0, 100, len(next(iter(curves.values())))), curves)
        ax.set(title=name, xlabel=f"patches {('taken away', 'put in')[i]} (%)")
    axes[0].set_ylabel("probability of the class (%)")
    return legend_below(fig, title)


@styled
def by_layer(panels: dict[str, dict], uniform: dict | None = None, title: str = "") -> Figure:
    """Numbers of every layer, from {axis label of a panel: {line's name: (L,), or (L, 3) mean, low,
    high}}; `uniform`, by axis label, is what attention that is the same everywhere has: dashed."""
    fig, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.3), squeeze=False)
    for ax, (name, of_models) in zip(axes[0], panels.items()):
        lines(ax, range(1, 1 + max(map(len, of_models.values()))), of_models)
        ax.set(xlabel="layer", ylabel=name)
        whole_ticks(ax)
        if name in (uniform or {}):
            ax.axhline(uniform[name], color="0.4", lw=1, ls="--", label="if attention were uniform")
        if len(ax.get_lines()) > 1:
            ax.legend(fontsize=7.5, frameon=True, edgecolor="none")
    fig.suptitle(title)
    return fig
