# LLM-assisted: prompts P3, P10, P12, P15, see report.md
"""What a ViT pre-trained by DINO looks at: the last layer's attention from [CLS] to each patch.

    python dino/visualize_attention.py --image_path dino/pictures/astronaut.jpg --threshold 0.6

takes the flags of DINO's own visualize_attention.py and writes the same files: img.png, one
attn-headN.png per head and, with a threshold, mask_thT_headN.png. Written for this project, not
copied; dino/README.md names the original, what differs, and the command that runs it.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # run as a script: Python looks into dino/ only, not into its parent
    sys.path[0] = str(ROOT)

import matplotlib
import numpy as np
import torch
import torchvision
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision import transforms

import cvassign  # noqa: F401  before torch: it sets up OpenMP
from cvassign.assets import AssetError
from cvassign.pictures import open_rgb
from dino import weights
from dino.vision_transformer import SIZES, VisionTransformer

PICTURES = ROOT / "dino/pictures"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as in DINO's training


@dataclass(frozen=True)
class AttentionMaps:
    """What one picture gives; r rows and c columns of patches, H heads, p patch_size."""

    image: Tensor  # (3, r p, c p), normalised, cut to whole patches
    attention: Tensor  # (H, r, c), from [CLS] to each patch; what lacks to 1 is [CLS] on itself
    masks: Tensor | None  # (H, r, c) bool: the patches that hold `threshold` of the head's mass
    threshold: float | None
    patch_size: int

    def pixels(self, maps: Tensor) -> np.ndarray:
        """(H, r, c) maps of patches -> (H, r p, c p), each patch a square of its one value."""
        maps = maps.repeat_interleave(self.patch_size, 1).repeat_interleave(self.patch_size, 2)
        return maps.cpu().numpy()


def open_image(path: Path | str) -> Image.Image:
    """A picture in RGB.

    Raises:
        ValueError: if there is none, or it cannot be read to its end.
    """
    try:
        return open_rgb(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such picture") from None
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable picture: {error}") from error


def prepare(image: Image.Image, patch_size: int, image_size: Sequence[int]) -> Tensor:
    """A picture as the model's input (3, h, w), cut at right and bottom to whole patches.

    Args:
        image_size: (height, width), or one number for the shorter side.
    """
    if len(image_size) not in (1, 2) or min(image_size) < 1:
        raise ValueError(f"expected an image size of 1 or 2 numbers from 1, got {image_size}")
    steps = [transforms.Resize(list(image_size)), transforms.ToTensor()]
    tensor = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])(image)
    height, width = (s - s % patch_size for s in tensor.shape[1:])
    if not height or not width:
        expected = f"an image of at least one {patch_size} x {patch_size} patch"
        got = f"{tensor.shape[1]} x {tensor.shape[2]} pixels"
        raise ValueError(f"expected {expected}, got {got}")
    return tensor[:, :height, :width]


def keep_mass(attention: Tensor, threshold: float) -> Tensor:
    """The fewest patches that hold a share of each head's attention.

    Args:
        attention: (H, r, c), not negative.
        threshold: the share of the mass to keep, in (0, 1].

    Returns:
        (H, r, c) bool.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"expected a threshold in (0, 1], got {threshold}")
    flat = attention.flatten(1)  # (H, N)
    values, order = flat.sort()  # ascending: what is cut off first is what weighs least
    cumulative = (values / values.sum(dim=1, keepdim=True)).cumsum(dim=1)
    kept = torch.zeros_like(flat, dtype=torch.bool)
    return kept.scatter(1, order, cumulative > 1 - threshold).view_as(attention)


def _memory(device: torch.device) -> float:
    """The device's memory in bytes; infinite where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return float("inf")


@torch.inference_mode()
def attention_maps(
    image: Image.Image,
    model: VisionTransformer,
    image_size: Sequence[int] = (480, 480),
    threshold: float | None = None,
) -> AttentionMaps:
    """Where each head of the last layer looks, from [CLS].

    Args:
        image: a picture in RGB.
        model: in eval mode; the picture goes to its device.
        image_size: (height, width) to resize to, or one number for the shorter side.
        threshold: share of each head's mass that its mask keeps; None for no masks.
    """
    x = prepare(image, model.patch_size, image_size)
    rows, columns = (s // model.patch_size for s in x.shape[1:])
    heads, tokens = model.blocks[-1].attn.num_heads, rows * columns + 1
    needed = 3 * 4 * heads * tokens**2  # scores, weights, a copy: bytes
    if needed > 0.8 * _memory(model.cls_token.device):
        raise ValueError(
            f"{x.shape[1]} x {x.shape[2]} pixels are {rows * columns} patches, whose attention is "
            f"{needed / 2**30:.0f} GiB of memory: choose a smaller --image_size"
        )
    last = model.get_last_selfattention(x[None].to(model.cls_token.device))  # (1, H, N+1, N+1)
    if not last.isfinite().all():
        raise ValueError("the attention is not finite: the weights hold NaN or infinity")
    attention = last[0, :, 0, 1:].reshape(-1, rows, columns)  # CLS's row without its own column
    masks = None if threshold is None else keep_mass(attention, threshold)
    return AttentionMaps(x, attention, masks, threshold, model.patch_size)


def save(maps: AttentionMaps, output_dir: Path | str) -> list[Path]:
    """The original script's files, in its colours and names; returns their paths."""
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "img.png"]
    grid = torchvision.utils.make_grid(maps.image[None], normalize=True, scale_each=True)
    torchvision.utils.save_image(grid, paths[0])
    for head, attention in enumerate(maps.pixels(maps.attention)):
        paths.append(folder / f"attn-head{head}.png")
        matplotlib.image.imsave(paths[-1], attention, format="png")
    if maps.masks is not None:
        picture = np.asarray(Image.open(paths[0]))
        for head, mask in enumerate(maps.pixels(maps.masks)):
            paths.append(folder / f"mask_th{maps.threshold}_head{head}.png")
            _masked(picture, mask).savefig(paths[-1], dpi=100)
    return paths


def _masked(picture: np.ndarray, mask: np.ndarray) -> Figure:
    """The picture, half red and outlined where the mask is: 500 x 500 pixels, no margin."""
    figure = Figure(figsize=(5, 5), frameon=False)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    red = np.array([255.0, 0.0, 0.0])
    ax.imshow(
        np.where(mask[..., None], 0.5 * picture + 0.5 * red, picture).astype(np.uint8),
        aspect="auto",
    )
    padded = np.pad(mask.astype(float), 1)  # so that outlines close at the picture's edge
    if mask.any():
        columns, rows = (np.arange(-1, s + 1) for s in reversed(mask.shape))
        ax.contour(columns, rows, padded, levels=[0.5], colors=[(1.0, 0.0, 0.0)], linewidths=1)
    ax.set(xlim=(0, mask.shape[1]), ylim=(mask.shape[0], 0))
    return figure


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "visualize_attention.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--arch", default="vit_small", choices=SIZES)
    add("--patch_size", default=8, type=int, help="8 or 16 (DINO), 14 (DINOv2)")
    add("--pretrained_weights", default="", help="a file of weights; default: the published ones")
    add("--checkpoint_key", default="teacher", help="the network in a full training checkpoint")
    add("--image_path", default=None, help="default: a picture in dino/pictures")
    add("--image_size", default=(480, 480), type=int, nargs="+", help="height and width")
    add("--output_dir", default=".", help="made if missing")
    add("--threshold", type=float, default=None, help="share of the mass that the masks keep")
    return parser


def run(arguments: list[str] | None = None) -> AttentionMaps:
    """The whole script, with the maps as its result: flags in, files written.

    Raises:
        ValueError: for a flag, a picture or a file of weights that cannot be used.
        cvassign.assets.AssetError: if the published weights cannot be had.
    """
    args = _parser().parse_args(arguments)
    if args.threshold is not None and not 0 < args.threshold <= 1:
        raise ValueError(f"expected a threshold in (0, 1], got {args.threshold}")
    if args.patch_size < 1:
        raise ValueError(f"expected a patch size from 1, got {args.patch_size}")
    path = args.image_path or PICTURES / "astronaut.jpg"
    image = open_image(path)
    prepare(image, args.patch_size, args.image_size)  # its errors come before any download
    if args.pretrained_weights:
        model = weights.load(
            args.pretrained_weights, args.arch, args.patch_size, args.checkpoint_key
        )
        name = args.pretrained_weights
    else:
        model, name = weights.load_published(args.arch, args.patch_size)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    print(f"picture: {path}\nweights: {name}")
    maps = attention_maps(image, model, args.image_size, args.threshold)
    for file in save(maps, args.output_dir):
        print(f"{file} saved.")
    return maps


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 2 for anything that stops it, said in one line."""
    try:
        run(arguments)
    except AssetError as error:
        print(f"error: {error}", file=sys.stderr)
        if _parser().parse_args(arguments).patch_size != 14:  # else it is not Meta's that failed
            print(
                "With --patch_size 14, or with --pretrained_weights FILE, Meta's address is not "
                "needed.",
                file=sys.stderr,
            )
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
