# LLM-assisted: prompts P3, P8, P12, P15, see report.md
"""The figure of DINO's maps, and what each head looks at. A map says where, not at what: so each of
our two pictures has regions."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib import patheffects
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from cvassign.plots import styled
from dino import store
from dino.visualize_attention import MEAN, STD, AttentionMaps

COLUMNS = 4  # panels side by side: large enough to see patches at the width of a notebook
# Of the regions' outlines: none is in the pictures, whose suit is red and whose table is brown.
COLOURS = ("#FFFFFF", "#56D7FF", "#F7F700", "#39FF14", "#FF5CD6", "#0050FF", "#B48CFF", "#00B28A")

# Ellipses (centre x, centre y, half width, half height) as shares of the picture's sides. Where
# they overlap the first region counts; `rest` is what none of them covers.
REGIONS = {
    "astronaut": {
        "the face": [(0.44, 0.25, 0.09, 0.105)],
        "the hair": [(0.445, 0.15, 0.15, 0.125)],
        "the suit's neck ring": [(0.415, 0.43, 0.195, 0.15)],
        "the emblems on the suit": [(0.335, 0.755, 0.085, 0.075), (0.594, 0.7, 0.055, 0.045)],
        "the helmet": [(0.765, 0.865, 0.235, 0.2)],
        "the suit": [(0.375, 0.78, 0.35, 0.37)],
        "the model of the shuttle": [(0.81, 0.29, 0.12, 0.3)],
        "the flag": [(0.06, 0.45, 0.13, 0.55)],
        "rest": "the wall and the table",
    },
    "coffee": {
        "the coffee": [(0.515, 0.37, 0.205, 0.125)],
        "the cup's rim and inner wall": [(0.52, 0.28, 0.295, 0.245)],
        "the spoon": [(0.71, 0.705, 0.10, 0.115), (0.845, 0.24, 0.05, 0.09)],
        "the cup's body and handle": [(0.52, 0.49, 0.27, 0.23), (0.37, 0.67, 0.09, 0.11)],
        "the saucer": [(0.5, 0.57, 0.5, 0.4)],
        "rest": "the table",
    },
}

# The regions that are the picture's subject.
SUBJECT = {
    "astronaut": (
        "the face",
        "the hair",
        "the suit's neck ring",
        "the emblems on the suit",
        "the suit",
    ),
    "coffee": ("the coffee", "the cup's rim and inner wall", "the cup's body and handle"),
}


def region_map(picture: str, rows: int, columns: int) -> tuple[np.ndarray, list[str]]:
    """The region of each patch's centre: indices (rows, columns), and the regions' names."""
    regions = REGIONS[picture]
    y, x = (np.mgrid[:rows, :columns] + 0.5) / np.array([rows, columns])[:, None, None]
    marked = [name for name in regions if name != "rest"]
    index = np.full((rows, columns), len(marked))
    for i in reversed(range(len(marked))):  # the first one is written last, over the others
        for cx, cy, rx, ry in regions[marked[i]]:
            index[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1] = i
    return index, [*marked, regions["rest"]]


def region_table(maps: dict[str, AttentionMaps] | None = None) -> pd.DataFrame:
    """What each head of the last layer looks at, by the regions of our pictures.

    Args:
        maps: by key of `REGIONS`; None for the stored ones.

    Returns:
        A row a head, counted from 1: the region that gets most beyond its area, the head's
        attention in it, its area, where the strongest patch is, and the same for the `SUBJECT`.
    """
    maps = maps or {picture: store.load(picture)[0] for picture in REGIONS}
    rows = []
    for picture, found in maps.items():
        index, names = region_map(picture, *found.attention.shape[1:])
        area = np.bincount(index.ravel(), minlength=len(names)) / index.size
        subject = [names.index(name) for name in SUBJECT[picture]]
        for head, weights in enumerate(found.attention.cpu().numpy(), start=1):
            share = (weights / weights.sum()).ravel()
            mass = np.bincount(index.ravel(), weights=share, minlength=len(names))
            best = int((mass - area).argmax())
            row = {"picture": picture, "head": head, "most beyond its area": names[best]}
            row["attention there"] = f"{100 * mass[best]:.0f} %"
            row["area"] = f"{100 * area[best]:.0f} %"
            row["strongest patch in"] = names[index.flat[share.argmax()]]
            row["on the subject"] = f"{100 * mass[subject].sum():.0f} %"
            rows.append(row | {"its area": f"{100 * area[subject].sum():.0f} %"})
    return pd.DataFrame(rows).set_index(["picture", "head"])


def _outline(ax, picture: str, width: int, height: int) -> None:
    """The ellipses of a picture's regions, each in a colour of its own with a dark edge."""
    edge = [patheffects.withStroke(linewidth=3.5, foreground="black")]
    for colour, (name, ellipses) in zip(COLOURS, REGIONS[picture].items()):
        if name == "rest":
            return
        for cx, cy, rx, ry in ellipses:
            place = (cx * width, cy * height), 2 * rx * width, 2 * ry * height
            look = dict(lw=1.8, fill=False, edgecolor=colour, path_effects=edge)
            ax.add_patch(Ellipse(*place, **look))
        ax.plot([], [], color=colour, lw=3, path_effects=edge, label=name)


@styled
def attention_figure(
    picture: str, maps: AttentionMaps | None = None, weights_name: str = ""
) -> Figure:
    """The picture, the heads' mean and each head; below them, in the same order, the masks.

    Args:
        picture: a key of `REGIONS`, whose ellipses are drawn and named.
        maps: what a model gave for it, with masks; None for the stored ones.
        weights_name: whose they are, for the title.
    """
    if maps is None:
        maps, weights_name = store.load(picture)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    image = (maps.image.cpu() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
    attention, masks = maps.attention.cpu().numpy(), maps.masks.cpu().numpy()
    H, (height, width) = len(attention), image.shape[:2]
    rows = math.ceil((H + 2) / COLUMNS)
    figure = plt.figure(figsize=(2.2 * COLUMNS, 2.35 * 2 * rows + 1.8), layout="constrained")
    top, bottom = figure.subfigures(2, 1)
    whole = (0, width, height, 0)  # maps of patches are drawn over the picture's pixels
    above, below = (part.subplots(rows, COLUMNS).ravel() for part in (top, bottom))
    for ax in (*above, *below):
        ax.set_axis_off()
    used = (*above[: H + 2], *below[: H + 2])
    for ax in used:
        ax.imshow(image, extent=whole)
    above[0].set_title("picture")
    below[0].set_title("regions")
    _outline(below[0], picture, width, height)
    bottom.legend(loc="outside lower center", ncols=3, frameon=False)
    share = masks.mean(axis=0)  # of the heads whose mask has the patch
    panels = [("mean of heads", attention.mean(axis=0), share)]
    panels += [(f"head {h}", a, m) for h, (a, m) in enumerate(zip(attention, masks), start=1)]
    for (name, weights, mask), over, under in zip(panels, above[1:], below[1:]):
        drawn = over.imshow(weights / weights.max(), extent=whole, vmin=0, vmax=1)
        over.set_title(f"{name}, max {100 * weights.max():.1f} %")
        shade = np.zeros((*mask.shape, 4))  # black over what is cut off; red would vanish on red
        shade[..., 3] = 0.75 * (1 - mask)
        under.imshow(shade, extent=whole)
        under.set_title("all masks" if name.startswith("mean") else f"{name}, mask")
    for ax in used:
        ax.set(xlim=(0, width), ylim=(height, 0))
    bar = top.colorbar(drawn, ax=list(above), location="bottom", shrink=0.5, aspect=40)
    bar.set_label("attention to a patch, as a share of the panel's max")
    top.suptitle(f"{picture}: attention of CLS to the patches, last layer\n{weights_name}")
    bottom.suptitle(
        f"Masks: the fewest patches that hold {100 * maps.threshold:.0f} % of a head's "
        "attention; the others are darkened"
    )
    return figure
