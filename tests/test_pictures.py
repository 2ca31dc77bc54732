# LLM-assisted: prompts P10, P15, see report.md
"""Pictures are upright and keep the range of their depth."""

import numpy as np
import pytest
from PIL import Image

from cvassign.pictures import open_rgb

RAMP = np.linspace(0, 1, 64 * 96).reshape(64, 96)


def grey(path) -> np.ndarray:
    return np.asarray(open_rgb(path))[..., 0]


@pytest.mark.parametrize(
    "values, suffix",
    (
        ((RAMP * 65535).astype(np.uint16), "png"),
        ((RAMP * 4095).astype(np.uint16), "tif"),  # 12 bits
        (RAMP.astype(np.float32), "tif"),
        ((RAMP * 700 - 300).astype(np.float32), "tif"),
        ((RAMP * 65535).astype(np.int32), "tif"),
    ),
    ids=("16 bit", "12 bit", "float to 1", "float", "32 bit"),
)
def test_deep_pictures_keep_all_their_greys(values, suffix, tmp_path):
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(values).save(path)
    np.testing.assert_allclose(grey(path), RAMP * 255, atol=1.01)


def test_a_dark_16_bit_picture_stays_dark(tmp_path):
    Image.fromarray((RAMP * 6553).astype(np.uint16)).save(tmp_path / "dark.png")
    assert 20 < grey(tmp_path / "dark.png").max() < 30


def test_pixels_that_are_not_finite_are_refused(tmp_path):
    values = np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "nan.tif")
    with pytest.raises(ValueError, match="finite"):
        open_rgb(tmp_path / "nan.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_shown_upright(orientation, tmp_path):
    upright = Image.fromarray((RAMP * 255).astype(np.uint8))
    stored, exif = upright, Image.Exif()
    if orientation > 1:  # what undoes what the viewer will do
        undo = (
            "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_90 TRANSVERSE ROTATE_270"
        )
        stored = upright.transpose(getattr(Image, undo.split()[orientation - 2]))
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(grey(tmp_path / "turned.png"), np.asarray(upright))


def test_transparent_parts_are_white_and_palettes_are_read(tmp_path):
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(open_rgb(tmp_path / "clear.png")).min() == 255
    Image.new("RGB", (4, 4), (10, 20, 30)).convert("P").save(tmp_path / "palette.gif")
    assert open_rgb(tmp_path / "palette.gif").mode == "RGB"
