# LLM-assisted: prompts P3, P8, see report.md
"""The figure of DINO's maps, and what each head looks at. A map says where, not at what: so each of
our two pictures has regions."""

import math
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

COLUMNS = 4  # panels side by side: large enough to see patches at the width of a notebook

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


@dataclass(frozen=True)
class HeadReport:
    """One head on one picture; mass and area are shares of 1."""

    head: int
    region: str  # the one that gets most beyond its area
    mass: float  # the head's attention in it
    area: float  # the picture's area in it
    peak_region: str  # where the strongest patch is


def describe_heads(attention: np.ndarray, picture: str) -> list[HeadReport]:
    """What each head looks at, by the regions of one of our pictures.

    Args:
        attention: (H, r, c) from [CLS] to each patch, not normalised.
        picture: a key of `REGIONS`.
    """
    index, names = region_map(picture, *attention.shape[1:])
    area = np.bincount(index.ravel(), minlength=len(names)) / index.size
    reports = []
    for head, weights in enumerate(attention):
        share = weights / weights.sum()
        mass = np.bincount(index.ravel(), weights=share.ravel(), minlength=len(names))
        best = int((mass - area).argmax())
        peak = names[index.flat[share.argmax()]]
        reports.append(HeadReport(head, names[best], float(mass[best]), float(area[best]), peak))
    return reports


def attention_figure(
    image: np.ndarray, attention: np.ndarray, masks: np.ndarray, title: str,
    picture: str | None = None,
) -> Figure:  # fmt: skip
    """The picture, the heads' mean and each head; below them, in the same order, the masks.

    Args:
        image: (h, w, 3), from 0 to 1.
        attention: (H, r, c), from [CLS] to each patch.
        masks: (H, r, c) bool, the patches that hold the threshold's share of the mass.
        title: what was looked at, with which weights.
        picture: a key of `REGIONS`, whose ellipses are then drawn and named; None for none.
    """
    H, (height, width) = len(attention), image.shape[:2]
    rows = math.ceil((H + 2) / COLUMNS)
    figure = plt.figure(figsize=(2.2 * COLUMNS, 2.35 * 2 * rows + 0.9), layout="constrained")
    top, bottom = figure.subfigures(2, 1)
    whole = (0, width, height, 0)  # maps of patches are drawn over the picture's pixels
    above, below = (part.subplots(rows, COLUMNS).ravel() for part in (top, bottom))
    for ax in (*above, *below):
        ax.set_axis_off()
    used = (*above[: H + 2], *below[: H + 2])
    for ax in used:
        ax.imshow(image, extent=whole)
    above[0].set_title("picture", fontsize=14)
    below[0].set_title("regions" if picture else "", fontsize=14)
    named = {k: v for k, v in REGIONS[picture].items() if k != "rest"} if picture else {}
    for i, (name, ellipses) in enumerate(named.items()):
        for cx, cy, rx, ry in ellipses:
            at, colour = (cx * width, cy * height), plt.get_cmap("tab10")(i)
            below[0].add_patch(Ellipse(at, 2 * rx * width, 2 * ry * height, fill=False,
                                       edgecolor=colour, lw=1.8))  # fmt: skip
        below[0].plot([], [], color=colour, label=name)
    if named:
        bottom.legend(loc="outside lower center", ncols=3, fontsize=13, frameon=False)
    share = masks.mean(axis=0)  # of the heads whose mask has the patch
    panels = [("mean of heads", attention.mean(axis=0), share)]
    panels += [(f"head {h}", attention[h], masks[h]) for h in range(H)]
    for (name, weights, mask), over, under in zip(panels, above[1:], below[1:]):
        over.imshow(weights, extent=whole)  # opaque, in the colours of the script's files
        over.set_title(name, fontsize=14)
        shade = np.zeros((*mask.shape, 4))  # black over what is cut off; red would vanish on red
        shade[..., 3] = 0.75 * (1 - mask)
        under.imshow(shade, extent=whole)
        under.set_title("all masks" if name.startswith("mean") else f"{name}, mask",
                        fontsize=14)  # fmt: skip
    for ax in used:
        ax.set(xlim=(0, width), ylim=(height, 0))
    figure.suptitle(title, fontsize=15)
    return figure
