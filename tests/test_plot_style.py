# LLM-assisted: prompts P1, P5, see report.md
"""Files are small, whole and repeatable; helpers draw what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from cvassign import files, plot_style


@plot_style.styled
def simple(points=10):
    fig, ax = plt.subplots(figsize=(4, 2))
    ax.plot(np.arange(points), label="a line")
    return fig


@plot_style.styled
def noisy(width=8.0):
    fig, ax = plt.subplots(figsize=(width, width))
    ax.imshow(np.random.default_rng(0).random((900, 900, 3)))
    return fig


def test_the_style_holds_inside_only_and_no_figure_stays_open():
    before = plt.rcParams["axes.grid"], plt.rcParams["font.size"]
    fig = simple()
    assert (plt.rcParams["axes.grid"], plt.rcParams["font.size"]) == before
    assert plt.get_fignums() == []
    tick = fig.axes[0].xaxis.get_major_ticks()[0].label1
    assert tick.get_fontsize() == plot_style.STYLE["xtick.labelsize"]
    assert not fig.axes[0].spines["top"].get_visible()


def test_save_writes_a_png_of_the_highest_resolution(tmp_path):
    path = plot_style.save(simple(), "curve", tmp_path / "figures")
    assert path == tmp_path / "figures" / "curve.png"
    assert imread(path).shape[:2] == (2 * plot_style.DPIS[0], 4 * plot_style.DPIS[0])
    assert [p.name for p in path.parent.iterdir()] == ["curve.png"]  # no temporary file is left


def test_a_large_figure_loses_resolution_until_it_is_small(tmp_path):
    path = plot_style.save(noisy(width=3.6), "noise", tmp_path)
    assert path.stat().st_size < plot_style.MAX_BYTES
    dpi = imread(path).shape[1] / 3.6
    assert round(dpi) in plot_style.DPIS[1:]


def test_the_same_figure_gives_the_same_file(tmp_path):
    first, second = (plot_style.save(simple(), name, tmp_path).read_bytes() for name in "ab")
    assert first == second
    assert first != plot_style.save(simple(points=5), "c", tmp_path).read_bytes()


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = plot_style.save(simple(), "curve", tmp_path)
    old = path.read_bytes()

    def full_disk(*args):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        plot_style.save(simple(points=5), "curve", tmp_path)
    assert path.read_bytes() == old and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ("a/b", "../a", ""))
def test_names_are_not_paths(name, tmp_path):
    with pytest.raises(ValueError, match="bare name"):
        plot_style.save(simple(), name, tmp_path)


def test_show_gives_the_notebook_the_saved_file(tmp_path):
    pytest.importorskip("IPython")
    shown = plot_style.show(simple(), "curve", tmp_path)
    assert shown.data == (tmp_path / "curve.png").read_bytes()
    assert shown.width == 400


def test_band_is_the_mean_and_one_standard_deviation():
    _, ax = plt.subplots()
    values = np.array([[1.0, 2], [3, 6], [5, 4]])
    plot_style.band(ax, [1, 2], values, "red")
    plt.close("all")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [3, 4])
    edges = ax.collections[0].get_paths()[0].vertices
    assert edges[:, 1].min() == pytest.approx(1) and edges[:, 1].max() == pytest.approx(6)


def test_one_seed_has_no_band():
    _, ax = plt.subplots()
    plot_style.band(ax, [1, 2], np.array([[1.0, 2]]), "red")
    plt.close("all")
    assert len(ax.lines) == 1 and not ax.collections


def test_per_seed_takes_one_or_many_and_names_wrong_shapes():
    assert plot_style.per_seed("x", [1, 2, 3]).shape == (1, 3)
    assert plot_style.per_seed("x", [[1, 2, 3]] * 2, 3).shape == (2, 3)
    with pytest.raises(ValueError, match=r"x of shape \(seeds, 4\), got \(1, 3\)"):
        plot_style.per_seed("x", [1, 2, 3], 4)
    with pytest.raises(ValueError, match=r"\(seeds, n\), got \(1, 1, 3\)"):
        plot_style.per_seed("x", [[[1, 2, 3]]])


def test_no_other_colour_is_near_that_of_a_model():
    for name in ("ViT", "Diff-ViT"):
        own = np.array(to_rgb(plot_style.MODEL_COLOURS[name]))
        for other in plot_style.COLOURS:
            assert np.abs(own - to_rgb(other)).max() > 0.2


def test_wrapped_breaks_at_spaces_and_plus_signs():
    assert plot_style.wrapped("crop+flip+cutmix", 10) == "crop+flip+\ncutmix"
    assert plot_style.wrapped("a long label", 7) == "a long\nlabel"
    assert plot_style.wrapped("short", 10) == "short"


@pytest.mark.parametrize("names, columns, kept", (("abcdefg", 4, 7), ("ab", 4, 2), ("abcd", 2, 4)))
def test_panels_are_named_and_the_lowest_of_a_column_has_the_label(names, columns, kept):
    fig, axes = plot_style.panels(list(names), columns, "epoch")
    plt.close(fig)
    assert len(fig.axes) == kept and [axes[n].get_title() for n in names] == list(names)
    labelled = [n for n in names if axes[n].get_xlabel() == "epoch"]
    assert labelled == list(names[-min(columns, len(names)):])


def test_legend_below_has_each_text_once_and_makes_room():
    fig, axes = plt.subplots(1, 2, figsize=(6, 3))
    for ax in axes:
        ax.plot([1], label="one")
        ax.plot([2], label="two")
    plot_style.legend_below(fig, columns=1)
    plt.close(fig)
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["one", "two"]
    assert fig.get_figheight() == pytest.approx(3 + 2 * 0.19)
