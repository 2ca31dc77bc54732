# LLM-assisted: prompts P1, P8, P15, see report.md
"""CIFAR-10 augmentation of whole batches on the device, drawn anew for every image.

torchvision's RandAugment draws ONE operation and magnitude for all images of a tensor, and an image
at a time it would be called 45,000 times an epoch. Here a batch is a fixed number of tensor
operations, without a loop or a transfer between host and device; tests hold each one equal to
torchvision's. There are fourteen, but of three kinds, so every image goes through three steps, of
which all but its own do nothing:

    warp      shear, translate, rotate: each output pixel fetches a source pixel
    blend     colour, sharpness: a step away from the grey, or from the smoothed, image
    look up   the rest maps grey level to grey level: a table of 256 entries per image and channel

All randomness comes from the generator that is passed in. B batch, S image side, K classes."""

import re
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor

SIZE = 32  # S; torchvision's largest translation depends on it
PAD = 4  # pixels an image moves at most when cropped from its zero-padded version
BINS = 31  # magnitudes are numbered 0..30
GREY = (0.2989, 0.587, 0.114)  # luma weights, ITU-R BT.601
# Ordered by step: five warps, two blends, and from Identity on the tables.
OPS = (
    "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Color", "Sharpness",
    "Identity", "Brightness", "Contrast", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip

# What a spec may name, in the order of application: how arguments are written, and the defaults.
NAMES = dict.fromkeys(("none", "crop", "flip", "jitter"), ("", ()))
NAMES["randaugment"] = r"(?:\((\d+),([12]?\d|30)\))?", (2, 9)
NAMES["cutmix"] = r"(?:\(([01]|0?\.\d+|1\.0*)\))?", (0.5,)
KNOWN = "none, crop, flip, jitter, randaugment(n,m) of integers, m in 0..30, cutmix(p), p in 0..1"


@dataclass(frozen=True)
class Augmentation:
    """The augmentations named in a spec; build it with `build_augmentation`."""

    parts: dict[str, tuple[float, ...]]  # name -> arguments; applied in the order of NAMES

    def pixels(self, images: Tensor, generator: Generator) -> Tensor:
        """Crop, flip, colour jitter and RandAugment: (B, 3, S, S) uint8 -> same."""
        if images.dtype != torch.uint8 or images.shape[1:] != (3, SIZE, SIZE):
            got = f"{images.dtype} of shape {tuple(images.shape)}"
            raise ValueError(f"expected uint8 images (B, 3, {SIZE}, {SIZE}), got {got}")
        B, device = len(images), images.device
        if {"crop", "flip"} & self.parts.keys():
            images = crop_flip(images, "crop" in self.parts, "flip" in self.parts, generator)
        if "jitter" in self.parts:
            images = colour_jitter(images, generator)
        n, level = self.parts.get("randaugment", (0, 0))
        for _ in range(n):
            op = torch.randint(len(OPS), (B,), device=device, generator=generator)
            magnitude = magnitude_table(device)[op, level] * _random_sign(B, device, generator)
            images = apply_op(images, op, magnitude)
        return images

    def mix(self, images: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """CutMix (arXiv 1905.04899): pastes a box of another image into a share of (B, C, S, S).
        Its area is drawn from Beta(1, 1) as in the paper, which is uniform. Targets (B, K) are
        weighted by what is left of the image outside the box, clipped at the border."""
        if "cutmix" not in self.parts:
            return images, targets
        B, S, device = len(images), images.shape[-1], images.device
        u = torch.rand(5, B, device=device, generator=generator)
        partner, kept, mixed = u[0].argsort(), u[1], u[2] < self.parts["cutmix"][0]
        side = S * (1 - kept).sqrt()
        start = (S * u[3:] - side / 2).round()[..., None]  # (2, B, 1): top, left
        i = torch.arange(S, device=device)
        rows, columns = (i >= start) & (i < start + side.round()[:, None])  # (B, S) each
        pasted = (mixed[:, None, None] & rows[:, :, None] & columns[:, None])[:, None]
        own = (~pasted).float().mean((1, 2, 3))[:, None]  # (B, 1)
        images = torch.where(pasted, images[partner], images)
        return images, torch.lerp(targets[partner], targets, own.to(targets.dtype))


def build_augmentation(spec: str) -> Augmentation:
    """Reads names joined by "+", as in "crop+flip+randaugment(2,9)+cutmix(0.5)": two operations of
    magnitude 9 of 30, half of the images mixed. ValueError lists what is known."""
    parts = {}
    for term in spec.replace(" ", "").split("+"):
        name = term.partition("(")[0]
        pattern, default = NAMES.get(name, ("never", ()))
        if not (match := re.fullmatch(pattern, term[len(name) :])):
            raise ValueError(f"unknown augmentation {term!r} in {spec!r}; known: {KNOWN}")
        if name in parts:
            raise ValueError(f"augmentation {name!r} comes twice in {spec!r}")
        given = tuple(float(g) if "." in g else int(g) for g in match.groups() if g)
        parts[name] = given or default
    if "none" in parts and len(parts) > 1:
        raise ValueError(f"'none' cannot be joined with another augmentation, got {spec!r}")
    return Augmentation(parts)


def crop_flip(images: Tensor, crop: bool, flip: bool, generator: Generator) -> Tensor:
    """Random crop of the zero-padded image and random mirroring, as one warp."""
    B, device = len(images), images.device
    matrix = torch.eye(2, 3, device=device).repeat(B, 1, 1)
    if flip:
        matrix[:, 0, 0] = _random_sign(B, device, generator)
    if crop:
        shift = torch.randint(-PAD, PAD + 1, (B, 2), device=device, generator=generator)
        matrix[:, :, 2] = shift.float()
    return warp(images, matrix)


def _random_sign(B: int, device: torch.device, generator: Generator) -> Tensor:
    return torch.randint(2, (B,), device=device, generator=generator) * 2.0 - 1


@lru_cache
def magnitude_table(device: torch.device) -> Tensor:
    """Magnitudes (14, 31) of each operation, as torchvision's."""
    upper = dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), 0.9) | {"Rotate": 30.0}
    upper |= dict.fromkeys(("TranslateX", "TranslateY"), 150 / 331 * SIZE)  # pixels
    upper |= dict.fromkeys(("ShearX", "ShearY"), 0.3)
    rows = {op: torch.linspace(0, upper.get(op, 0.0), BINS) for op in OPS}
    rows["Posterize"] = (8 - torch.arange(BINS) / ((BINS - 1) / 4)).round()  # bits that stay
    rows["Solarize"] = torch.linspace(1, 0, BINS)  # grey levels from here on are inverted
    return torch.stack([rows[op] for op in OPS]).to(device)


def apply_op(images: Tensor, op: Tensor, magnitude: Tensor) -> Tensor:
    """Operation `OPS[op[i]]` of magnitude[i], in the units of `magnitude_table`, on image i:
    (B, 3, S, S) uint8, (B,), (B,)."""

    def amount(name: str) -> Tensor:  # (B,): 0, which does nothing, where another op was drawn
        return torch.where(op == OPS.index(name), magnitude, 0.0)

    # Inverse maps, as a warp asks where a pixel comes from. Shears leave the upper left corner in
    # place, hence the S/2: 0 is the centre here.
    shear_x, shear_y, angle = amount("ShearX"), amount("ShearY"), amount("Rotate").deg2rad()
    move_x = shear_x * (SIZE / 2) - amount("TranslateX").trunc()
    move_y = shear_y * (SIZE / 2) - amount("TranslateY").trunc()
    cos, sin = angle.cos(), angle.sin()
    rows = (cos, shear_x - sin, move_x), (shear_y + sin, cos, move_y)
    images = warp(images, torch.stack([torch.stack(row, -1) for row in rows], 1))

    is_colour = (op == OPS.index("Color")).view(-1, 1, 1, 1)
    degenerate = torch.where(is_colour, grey(images), smooth(images))
    images = blend(images.float(), degenerate, amount("Color") + amount("Sharpness")).byte()
    return look_up(images, op, magnitude)


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Output pixel p of images (B, 3, S, S) uint8 is source pixel A p + t, rounded to the nearest;
    outside it is 0. The matrix (B, 2, 3) is [A | t], in pixels from the image's centre."""
    S = images.shape[-1]
    p = torch.arange(S, device=images.device) - (S - 1) / 2  # (S,) pixel positions
    m = matrix[..., None, None]  # (B, 2, 3, 1, 1)
    # Written out and not a matrix product, which the GPU may compute in reduced precision.
    source = m[:, :, 0] * p + m[:, :, 1] * p[:, None] + m[:, :, 2]  # (B, 2, S, S)
    x, y = (source + (S - 1) / 2).round().long().unbind(1)
    inside = (x >= 0) & (x < S) & (y >= 0) & (y < S)
    index = (y.clamp(0, S - 1) * S + x.clamp(0, S - 1)).flatten(1)[:, None]  # (B, 1, S²)
    return images.flatten(2).gather(2, index.expand(-1, 3, -1)).view_as(images) * inside[:, None]


def blend(images: Tensor, degenerate: Tensor | int, amount: Tensor) -> Tensor:
    """A step of amount (B,) away from a degenerate image, at -1 to it; floats in 0..255."""
    return torch.addcmul(images, amount.view(-1, 1, 1, 1), images - degenerate).clamp_(0, 255)


def grey(images: Tensor) -> Tensor:
    """Luma in whole levels, (B, 1, S, S) float32."""
    r, g, b = images.unbind(1)
    return (r * GREY[0] + g * GREY[1] + b * GREY[2]).floor_()[:, None]


def smooth(images: Tensor) -> Tensor:
    """3 x 3 filter with weights 1, in the middle 5, over 13; the outermost pixels stay. float32"""
    x = images.float()
    inner, rows = x[..., 1:-1, 1:-1], x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    nine = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner.copy_(((nine + 4 * inner) / 13).round_())
    return x


def look_up(images: Tensor, op: Tensor, magnitude: Tensor) -> Tensor:
    """`apply_op` for the operations with a table, each pixel's new value by its grey level; an
    image of any other operation stays."""
    B, levels = len(images), images.flatten(2).long()  # (B, 3, S²), an index
    v = torch.arange(256, device=images.device, dtype=torch.float32)
    m = magnitude.view(B, 1, 1)

    mean = grey(images).mean((2, 3))[..., None]  # (B, 1, 1)
    low, high = (x[..., None].float() for x in images.flatten(2).aminmax(dim=2))  # (B, 3, 1)
    stretched = (v - low) / ((high - low) / 255).clamp(min=1e-6)

    # PIL's equalisation: the cumulative histogram in steps of 1/255 of all pixels but the lightest
    ones = levels.new_ones((), dtype=torch.int32).expand_as(levels)
    counts = ones.new_zeros(B, 3, 256).scatter_add_(2, levels, ones)
    below = counts.cumsum(2) - counts  # pixels darker than this level
    step = (levels.shape[2] - counts.gather(2, high.long())) // 255
    equalised = (below + step // 2) // step.clamp(min=1)

    tables = {
        "Identity": v,
        "Brightness": v + m * v,
        "Contrast": v + m * (v - mean),
        "Posterize": v - v % 2 ** (8 - m.abs()),  # this and the next know no sign
        "Solarize": torch.where(v >= 255 * m.abs(), 255 - v, v),
        "AutoContrast": torch.where(high > low, stretched, v),
        "Equalize": torch.where(step > 0, equalised, v),
    }  # as in OPS
    tables = torch.stack([t.clamp(0, 255).byte().expand(B, 3, 256) for t in tables.values()])
    own = tables[(op - OPS.index("Identity")).clamp(min=0), torch.arange(B, device=op.device)]
    return own.gather(2, levels).view_as(images)


def colour_jitter(images: Tensor, generator: Generator) -> Tensor:
    """Brightness, contrast and saturation by a factor in [0.6, 1.4], hue by a tenth of a turn, in
    this order, which torchvision also shuffles."""
    u = torch.rand(4, len(images), device=images.device, generator=generator) * 2 - 1
    x = blend(images.float(), 0, 0.4 * u[0])  # 0 is black
    x = blend(x, grey(x).mean((2, 3), keepdim=True), 0.4 * u[1])
    x = blend(x, grey(x), 0.4 * u[2])
    return turn_hue(x, 0.1 * u[3]).round().byte()


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Adds turn (B,), a share of the colour circle, to the hue of images (B, 3, S, S) floats. In
    HSV a channel over the circle's six sectors is a trapezoid between the pixel's extremes."""
    r, g, b = images.unbind(1)
    high = images.amax(1)
    chroma = high - images.amin(1)
    c = chroma.clamp(min=1e-6)  # a grey pixel has no hue, any will do
    hue = torch.where(high == g, 2 + (b - r) / c, 4 + (r - g) / c)
    hue = torch.where(high == r, (g - b) / c, hue) + 6 * turn.view(-1, 1, 1)  # in sixths
    sector = torch.stack([(hue + k) % 6 for k in (5, 3, 1)], 1)  # (B, 3, S, S) for r, g, b
    return high[:, None] - chroma[:, None] * torch.minimum(sector, 4 - sector).clamp(0, 1)
