# LLM-assisted: prompts P4, see report.md
"""The figures of the twin show what they are given, and nothing that may not be shown."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from cvassign.clip import gallery, plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def hidden() -> gallery.Picture:
    return gallery.Picture(Path("secret.jpg"), 1, (1,), "photo", "photo", "s", "none", "a", False)


def test_pictures_without_a_licence_are_refused():
    with pytest.raises(ValueError, match="may not be in a committed figure: .*secret.jpg"):
        plots.retrieved(["a fish"], [[hidden()]])
    with pytest.raises(ValueError, match="may not be in a committed figure"):
        plots.answers([hidden()], {"m": [[("a", 1.0)] * 5]})


def test_retrieved_has_a_row_a_query():
    some = gallery.read(gallery.BUNDLED)[:3]
    fig = plots.retrieved(["a bird", "a big cat with stripes"], [some, some[::-1]])
    assert len(fig.axes) == 6 and fig.axes[3].get_ylabel().replace("\n", " ") == "a big cat with stripes"
    assert fig.axes[0].get_title() == fig.axes[5].get_title() == some[0].class_name[:18]


def test_embedding_map_lies_on_the_names_axes():
    names = torch.tensor([[3.0, 0, 0], [-3.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0]])
    images = names + torch.tensor([0.0, 0, 5.0])  # a gap between the sides, off the axes
    fig = plots.embedding_map(images, names, [0, 1, 2, 3], ["photo", "rendition"] * 2, list("abcd"))
    photos, renditions, *stars = (c.get_offsets() for c in fig.axes[0].collections)
    assert abs(abs(photos[0][0]) - 3) < 1e-5 and abs(abs(renditions[1][1]) - 1) < 1e-5
    assert photos[0][0] == pytest.approx(stars[0][0][0], abs=1e-5)  # the gap is centred away
    assert [t.get_text() for t in fig.axes[0].texts] == list("abcd")


def test_names_on_the_map_cover_no_other_and_stay_inside():
    names = torch.tensor([[3.0, 0, 0], [3.0, 0.02, 0], [-3.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0]])
    words = ["syringe at the edge", "umbrella", "taxicab", "above", "below"]
    fig = plots.embedding_map(names, names, list(range(5)), ["photo"] * 5, words)
    fig.canvas.draw()
    ax = fig.axes[0]
    boxes = [t.get_window_extent() for t in ax.texts]
    assert [t.get_text() for t in ax.texts] == words
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    frame = ax.get_window_extent()
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 for b in boxes)


def test_reliability_and_templates_show_the_numbers():
    c = {"ece": 0.123, "bins": [[0.2, 0.1, 30], [0.9, 0.8, 70]]}
    fig = plots.reliability({"twin": c, "classifier": c})
    assert len(fig.axes) == 2 and "12.3 %" in fig.axes[0].get_title()
    rates = {"1": [{"photo": 0.5, "rendition": 0.25}, {"photo": 0.7, "rendition": 0.35}]}
    fig = plots.templates(rates)
    assert list(fig.axes[0].lines[0].get_ydata()) == [pytest.approx(60)]


def test_embedding_map_of_one_name_has_its_two_axes():
    """Few pictures may leave one class: one sentence spans no plane."""
    images = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
    fig = plots.embedding_map(images, images[:1], [0] * 5, ["photo"] * 5, ["a"])
    assert len(fig.axes[0].collections[0].get_offsets()) == 5
