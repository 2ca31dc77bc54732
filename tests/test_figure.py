# LLM-assisted: prompts P1, P15, P16, see report.md
"""Files of figures: small, whole, in true colour, the same whatever the user's settings are."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from cvassign import figure as figures


@figures.styled
def curve():
    figure, ax = plt.subplots(figsize=(4, 2))
    ax.plot([1, 3, 2], label="λ")
    ax.set_title("a curve")
    return figure


@figures.styled
def photo(noise: float):
    figure, ax = plt.subplots(figsize=(figures.WIDTH, 6))
    pixels = np.random.default_rng(0).normal((180, 40, 60), noise, (300, 300, 3))
    ax.imshow(pixels.clip(0, 255).astype(np.uint8))
    return figure


def test_a_figure_is_saved_once_and_small(tmp_path):
    first, again = (figures.show(curve(), "curve", tmp_path) for _ in range(2))
    (file,) = tmp_path.iterdir()
    assert file.name == "curve.png" and file.read_bytes() == first.data == again.data
    assert len(first.data) < figures.MAX_BYTES and first.width == 400
    colours = [c for _, c in Image.open(file).convert("RGB").getcolors()]  # None above 256
    assert len(colours) > 2 and (255, 255, 255) in colours
    with pytest.raises(ValueError, match="bare name"):
        figures.show(curve(), "../curve", tmp_path)


@pytest.mark.parametrize("noise", (0, 20))
def test_pictures_keep_their_colours(noise):
    content, kind = figures.encoded(photo(noise))
    image = Image.open(io.BytesIO(content))
    assert kind == "jpg" and image.format == "JPEG" and len(content) < figures.MAX_BYTES
    x, height = image.width // 2, image.height
    middle = np.asarray(image.crop((x - 60, height // 3, x, height // 2)))  # between grid lines
    assert np.abs(middle.mean((0, 1)) - (180, 40, 60)).max() < 4


def test_a_users_settings_change_no_figure():
    expected = figures.encoded(curve())
    settings = {"figure.facecolor": "black", "text.color": "white", "axes.facecolor": "black"}
    settings |= {"text.usetex": True, "font.size": 30, "lines.linewidth": 9, "savefig.dpi": 10}
    settings |= {"savefig.transparent": True, "savefig.bbox": "tight", "savefig.facecolor": "red"}
    with plt.rc_context(settings):
        assert figures.encoded(curve()) == expected
        assert all(plt.rcParams[key] == value for key, value in settings.items())  # theirs stay
