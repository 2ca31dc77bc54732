# LLM-assisted: prompts P4, see report.md
"""No figure shows a picture that may not be shown."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from cvassign.clip import gallery, plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def hidden() -> gallery.Picture:
    return gallery.Picture(Path("secret.jpg"), 1, (1,), "photo", "photo", "s", "none", "a", False)


def test_pictures_without_a_licence_are_refused():
    with pytest.raises(ValueError, match="may not be in a committed figure: .*secret.jpg"):
        plots.answers([hidden()], {"m": [[("a", 1.0)] * 5]})
