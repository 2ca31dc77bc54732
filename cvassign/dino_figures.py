# LLM-assisted: prompts P3, see report.md
"""Part 1.4.1's figure of a picture's attention maps, and what each head looks at in numbers.

A map says where, not at what: so each of our two pictures has regions, marked by hand as
ellipses, and a head is described by the share of its attention that falls into them.
"""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

# Ellipses (centre x, centre y, half width, half height) as shares of the picture's sides. Where
# they overlap the first region counts; `rest` is what none of them covers.
REGIONS = {
    "cat": {
        "the eyes": [(0.36, 0.39, 0.13, 0.11), (0.855, 0.455, 0.09, 0.10)],
        "nose and mouth": [(0.66, 0.86, 0.14, 0.13)],
        "the ears": [(1.0, 0.1, 0.08, 0.17), (0.02, 0.03, 0.08, 0.1)],
        "the cheeks and the bridge of the nose": [(0.52, 0.62, 0.38, 0.17)],
        "forehead and fur": [(0.5, 0.42, 0.56, 0.53)],
        "rest": "throat, whiskers and background",
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
    """One head on one picture; masses and areas are shares of 1."""

    head: int
    region: str  # the one that gets most beyond its area
    mass: float  # the head's attention in it
    area: float  # the picture's area in it
    half_in: float  # the smallest share of patches that holds half of the attention
    peak_region: str  # where the strongest patch is
    on_object: float  # the head's attention outside of `rest`
    object_area: float  # the picture's area outside of `rest`
    self_attention: float  # of [CLS] on itself, which no map shows

    def __str__(self) -> str:
        itself = f" {self.self_attention:.0%} of all it has stays on [CLS] itself."
        return (
            f"Head {self.head} looks most at {self.region}: {self.mass:.0%} of its attention on "
            f"{self.area:.0%} of the picture, {self.mass / self.area:.1f} times an even spread. "
            f"Half of it sits in {self.half_in:.0%} of the patches, the strongest one in "
            f"{self.peak_region}."
        ) + (itself if self.self_attention > 0.1 else "")


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
        cumulative = np.sort(share.ravel())[::-1].cumsum()
        half_in = (np.searchsorted(cumulative, 0.5) + 1) / share.size
        peak = names[index.flat[share.argmax()]]
        reports.append(HeadReport(head, names[best], float(mass[best]), float(area[best]),
                                  float(half_in), peak, float(1 - mass[-1]),
                                  float(1 - area[-1]), float(1 - weights.sum())))  # fmt: skip
    return reports


def attention_figure(
    image: np.ndarray, attention: np.ndarray, masks: np.ndarray, title: str,
    picture: str | None = None,
) -> Figure:  # fmt: skip
    """The picture, the heads' mean and each head; below them the thresholded masks.

    Args:
        image: (h, w, 3), from 0 to 1.
        attention: (H, r, c), from [CLS] to each patch.
        masks: (H, r, c) bool, the patches that hold the threshold's share of the mass.
        title: what was looked at, with which weights.
        picture: a key of `REGIONS`, whose ellipses are then drawn; None for none.
    """
    H, (height, width) = len(attention), image.shape[:2]
    figure, axes = plt.subplots(2, H + 2, figsize=(1.6 * (H + 2), 3.7), layout="constrained")
    whole = (0, width, height, 0)  # maps of patches are drawn over the picture's pixels
    for ax in axes.flat:
        ax.set_axis_off()
        ax.imshow(image, extent=whole)
    axes[0, 0].set_title("picture", fontsize=9)
    axes[1, 0].set_title("regions, by hand" if picture else "", fontsize=9)
    for ellipses in REGIONS[picture].values() if picture else ():
        for cx, cy, rx, ry in ellipses if isinstance(ellipses, list) else ():
            axes[1, 0].add_patch(Ellipse((cx * width, cy * height), 2 * rx * width,
                                         2 * ry * height, fill=False, edgecolor="cyan"))  # fmt: skip
    share = masks.mean(axis=0)  # of the heads whose mask has the patch
    columns = [("mean of heads", attention.mean(axis=0), share)]
    columns += [(f"head {h}", attention[h], masks[h]) for h in range(H)]
    for (name, weights, mask), top, bottom in zip(columns, axes[0, 1:], axes[1, 1:]):
        top.imshow(weights, extent=whole)  # opaque, in the colours of the script's files
        top.set_title(name, fontsize=9)
        shade = np.zeros((*mask.shape, 4))  # black over what is cut off; red would vanish on red
        shade[..., 3] = 0.85 * (1 - mask)
        bottom.imshow(shade, extent=whole)
        bottom.set_title("share of heads" if name.startswith("mean") else "mask", fontsize=8)
    for ax in axes.flat:
        ax.set(xlim=(0, width), ylim=(height, 0))
    figure.suptitle(title, fontsize=10)
    return figure
