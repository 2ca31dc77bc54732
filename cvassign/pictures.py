# LLM-assisted: prompts P3, P10, P12, P15, see report.md
"""Pictures as people see them: upright, in RGB, and with the range that their depth has."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def open_rgb(image: Image.Image | Path | str) -> Image.Image:
    """A picture in RGB: turned as its EXIF says, transparent parts on white, the first frame. What
    has an `image` stands for that: the gallery's pictures, which may be windows of a file. 16-bit
    greys are divided by 256; 12-bit ones, other integers and floats have no depth that a file
    tells, so they are stretched over their own range; ValueError if they are not finite."""
    image = getattr(image, "image", image)
    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            return open_rgb(opened)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # Pillow would clip them to 0 ... 255, mostly white
        image = _shallow(np.asarray(image, dtype=np.float64), whole=image.mode != "F")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _shallow(values: np.ndarray, whole: bool) -> Image.Image:
    """An 8-bit grey picture of a deeper one, of whole numbers or of floats."""
    if not np.isfinite(values).all():
        raise ValueError("expected finite pixels, got NaN or infinity")
    low, high = values.min(), values.max()
    if whole and 4096 <= high < 65536:
        low, high = 0, 65535  # 16 bits that are used: their full range
    elif low >= 0 and high <= (full := 255 if whole else 1):
        low, high = 0, full  # 8 bits in a wide type, or shares
    scaled = (values - low) / ((high - low) or 1.0) * 255
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
