# LLM-assisted: prompts P10, P15, see report.md
"""Pictures are upright and keep the range of their depth."""

import numpy as np
import pytest
from PIL import Image

from cvassign.pictures import open_rgb

RAMP = np.linspace(0, 1, 64 * 96).reshape(64, 96)


@pytest.mark.parametrize(
    "values, suffix, greys",
    (
        ((RAMP * 65535).astype(np.uint16), "png", RAMP),
        ((RAMP * 4095).astype(np.uint16), "tif", RAMP),  # 12 bits
        ((RAMP * 6553).astype(np.uint16), "png", RAMP / 10),  # a dark one stays dark
        ((RAMP * 100).astype(np.uint16), "tif", RAMP * 100 / 255),  # 8 bits
        (RAMP.astype(np.float32), "tif", RAMP),
        ((RAMP * 700 - 300).astype(np.float32), "tif", RAMP),
        ((RAMP * 65535).astype(np.int32), "tif", RAMP),
    ),
    ids="16-bit 12-bit dark 8-in-16-bit float-to-1 float 32-bit".split(),
)
def test_deep_pictures_keep_all_their_greys(values, suffix, greys, tmp_path):
    Image.fromarray(values).save(path := tmp_path / f"deep.{suffix}")
    np.testing.assert_allclose(np.asarray(open_rgb(path))[..., 0], greys * 255, atol=1.01)


def test_pixels_that_are_not_finite_are_refused():
    values = np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32)
    with pytest.raises(ValueError, match="finite"):
        open_rgb(Image.fromarray(values))


UNDO = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_90 TRANSVERSE ROTATE_270"


@pytest.mark.parametrize("orientation, undo", [*enumerate(UNDO.split(), 2)])  # 1 is upright
def test_every_exif_orientation_is_shown_upright(orientation, undo, tmp_path):
    upright = Image.fromarray((RAMP * 255).astype(np.uint8))
    (exif := Image.Exif())[0x0112] = orientation
    path = tmp_path / "turned.png"
    upright.transpose(getattr(Image, undo)).save(path, exif=exif)
    np.testing.assert_array_equal(open_rgb(path).convert("L"), upright)


def test_transparent_parts_are_white_and_palettes_are_read():
    assert np.asarray(open_rgb(Image.new("RGBA", (4, 4), (200, 0, 0, 0)))).min() == 255
    palette = Image.new("RGB", (4, 4), (0, 51, 102)).convert("P")
    assert open_rgb(palette).getpixel((0, 0)) == (0, 51, 102)
