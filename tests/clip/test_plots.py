# LLM-assisted: prompts P4, P14, see report.md
"""The figures of notebook 3 say what they are given, and show no picture that may not be shown."""

from dataclasses import replace

import pytest
from PIL import Image

from cvassign.clip import gallery, plots
from cvassign.stats import Difference


@pytest.fixture
def picture(tmp_path) -> gallery.Picture:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "p.png")
    return gallery.Picture(tmp_path / "p.png", 1, (1, 2), "photo", "photo", "s", "none", "a", True)


def words(figure) -> dict:
    """{text: colour and weight} of everything that is written in a figure."""
    found = [*figure.texts, *(t for ax in figure.axes for t in (*ax.texts, ax.title))]
    return {t.get_text(): (t.get_color(), t.get_weight()) for t in found}


def test_answers_show_names_windows_and_ranks(picture):
    window = replace(picture, cropped=(picture.path, (0.25, 0.0, 0.75, 0.5)), style="close-up 50%")
    top = [("hen of the woods mushroom", 0.5), ("goldfish", 0.4), ("great white shark", 0.3)]
    strip = {"as is": (picture.image, {"one": 412, "two": 3})}
    figure = plots.answers([picture, window], {"one": [top] * 2, "two": [top] * 2}, [strip] * 2)
    said = words(figure)
    assert said["one"] == (plots.PAIR[0], "bold") and said["left: one"][0] == plots.PAIR[0]
    assert said["2  goldfish"] == (plots.GREEN, "bold") and "0.40" in said  # its own class
    assert said["3  great white shark"] == (plots.GREEN, "normal")  # accepted beside it
    assert said["1  hen of the woods\n    mushroom"] == ("black", "normal")
    assert said["412"] == (plots.PAIR[0], "normal") and said["3"] == (plots.PAIR[1], "bold")
    (box,) = [patch for ax in figure.axes for patch in ax.patches]
    assert (box.get_x(), box.get_width(), box.get_height()) == (15, 30, 20)
    (ax,) = plots.gallery_rows({"photos": [picture]}, {"goldfish": "carp"}).axes
    assert ax.get_title() == "goldfish or carp?\nphoto" and ax.get_ylabel() == "photos"
    assert not (ax.get_frame_on() or len(ax.get_xticks()))


def test_pictures_without_a_licence_are_refused(picture):
    with pytest.raises(ValueError, match="may not be in a committed figure: .*p.png"):
        plots.answers([replace(picture, may_be_shown=False)], {"m": [[("a", 1.0)] * 5]})


def test_differences_stand_at_their_values():
    ends = (10.0, 5.0, 15.0), (0.25, 0.125, 0.5)
    points, factor = (dict(zip(("mean", "low", "high"), e)) for e in ends)
    change = {"grey": {"points": points | {"n": 16}, "factor": factor, "top5": [20, 30], "n": 28}}
    figure = plots.moved({"one": change, "two": change}, {"grey": "grey, not colour"})
    for ax, (mean, low, high) in zip(figure.axes, ends):
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        assert [d.get_xdata()[0] for d in dots] == [mean, mean]
        assert ax.collections[0].get_segments()[0][:, 0].tolist() == [low, high]
    style = {"rates": [20.0, 60.0], "n": 5, "difference": Difference(40.0, 1.0, 79.0, 5, "photos")}
    assert [t.get_text() for t in figure.axes[1].child_axes[0].get_yticklabels()] == ["28 (16)"]
    figure = plots.rates_by_style({"line_art": style}, ["one", "two"])
    assert "+40.0 [+1.0, +79.0]" in words(figure)
    assert figure.axes[0].get_yticklabels()[0].get_text() == "line art (n = 5)"
