# LLM-assisted: prompts P1, P2, P13, P15, see report.md
"""Every cell of a grid is read back: the right map over the right image, on the right scale."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from cvassign import maps as ap
from cvassign.figure import MODEL_COLOURS

L, B, H, g, S = 3, 2, 4, 4, 16
N = g * g
CLASSES = ("cat", "dog", "ship")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (B, 3, S, S), dtype=np.uint8)
PIXELS = IMAGES.transpose(0, 2, 3, 1)
MAPS = RNG.random((L, B, H, N))
SIGNED = RNG.normal(size=(L, B, H // 2, N))


def cells(fig):
    return [ax for ax in fig.axes if ax.images]


def drawn(ax):
    return np.asarray(ax.images[0].get_array(), dtype=float)


def assert_overlay(ax, image, grid, signed=False, limit=None):
    limit = limit or np.abs(grid).max()
    low, high = (-limit, limit) if signed else (grid.min(), grid.max())
    squares = np.kron(grid.reshape(g, g), np.ones((S // g, S // g)))
    colours = plt.get_cmap(ap.DIVERGING if signed else ap.SEQUENTIAL)
    heat = colours(np.clip((squares - low) / (high - low), 0, 1))[..., :3]
    pale = 0.3 + 0.7 * np.tensordot((0.299, 0.587, 0.114), image, 1) / 255
    expected = ap.OPACITY * heat + (1 - ap.OPACITY) * pale[..., None]
    assert np.abs(drawn(ax) - expected).max() < 0.5 / 63 + 1e-2  # a step of the colour map


@pytest.mark.parametrize("layer", (1, -1))
def test_head_maps_show_the_mean_and_every_head_of_one_layer(layer):
    signed = np.where(np.arange(B)[:, None, None] == 0, np.abs(SIGNED), SIGNED)  # one is positive
    maps = {"ViT": MAPS, "Diff-ViT": torch.from_numpy(signed)}
    texts = {"ViT": ["cat ✓", "dog\n✗ cat"]}
    rest = cells(ap.head_maps(torch.from_numpy(IMAGES), maps, texts, layer))
    assert [ax.get_title() for ax in rest[:3]] == ["image", "mean", "head 1"]
    names = ["ViT\ncat ✓", "Diff-ViT", "ViT\ndog\n✗ cat", "Diff-ViT"]
    for b in range(B):
        for of_model in (MAPS, signed):  # each on its own scale
            heads = of_model[layer, b]
            row, rest = rest[: 2 + len(heads)], rest[2 + len(heads) :]
            assert row[0].get_ylabel() == names.pop(0)
            np.testing.assert_array_equal(drawn(row[0]), PIXELS[b])
            for ax, grid in zip(row[1:], (heads.mean(0), *heads), strict=True):
                assert_overlay(ax, IMAGES[b], grid, of_model is signed)
                assert ax.texts[0].get_text() == f"{abs(grid).sum():.0%}"
    assert not rest


def test_maps_of_one_scale_have_a_bar_with_its_numbers():
    pair = {"A1": MAPS[:, :, :2], "A1 − λA2": 0.1 * SIGNED}
    *axes, bar = ap.head_maps(IMAGES, pair, common=True).axes
    limit = max(np.abs(m[-1]).max() for m in pair.values())
    a1, difference = np.array(axes).reshape(B, 2, 4)[1]
    assert_overlay(a1[2], IMAGES[1], MAPS[-1, 1, 0], True, limit)
    assert_overlay(difference[1], IMAGES[1], 0.1 * SIGNED[-1, 1].mean(0), True, limit)
    assert bar.get_xlabel() == "weights of A1 / A1 − λA2: all maps on one scale"
    assert bar.get_xlim() == pytest.approx((-limit, limit))


def test_layer_maps_show_the_mean_of_the_heads_in_every_layer():
    axes = np.array(cells(ap.layer_maps(IMAGES, {"ViT": MAPS}))).reshape(B, 1 + L)
    for b, layer in np.ndindex(B, L):
        assert_overlay(axes[b, 1 + layer], IMAGES[b], MAPS[layer, b].mean(0))
    assert len(cells(ap.augmentation_preview({"none": IMAGES[:1], "crop+flip": IMAGES}))) == 1 + B


@pytest.mark.parametrize("n, side", ((3, 1.7), (10, 0.995)))
def test_rollout_maps_have_an_image_a_column(n, side):
    images = RNG.integers(0, 256, (n, 3, S, S), dtype=np.uint8)
    rows = dict(ViT=RNG.random((n, N)), clamped=RNG.random((n, N)), signed=RNG.normal(size=(n, N)))
    fig = ap.rollout_maps(images, rows, [f"image {i} ✓" for i in range(n)])
    scales = [f"{n}: each map on its own scale" for n in ("ViT / clamped", "signed")]
    assert [ax.get_xlabel() for ax in fig.axes[-2:]] == scales
    axes = cells(fig)
    assert len(axes) == 4 * n
    assert axes[0].get_position().width * fig.get_figwidth() == pytest.approx(side)  # inches
    of_image = {ax.get_title(): i for i, ax in enumerate(axes) if ax.get_title()}
    for i, image in enumerate(images):
        start = of_image[f"image {i} ✓"]
        width = min(n, 8) if i < 8 else n - 8  # of its block
        np.testing.assert_array_equal(drawn(axes[start]), image.transpose(1, 2, 0))
        for ax, (name, maps) in zip(axes[start + width :: width], rows.items()):
            assert_overlay(ax, image, maps[i], signed=name == "signed")


def test_what_does_not_fit_is_named():
    for draw, given, words in (
        (ap.head_maps, (IMAGES, {"ViT": MAPS[0]}), r"'ViT' \(.*B = 2.*got .*16"),
        (ap.layer_maps, (IMAGES, {"ViT": MAPS[..., :-1]}), r"'ViT' \(.*B = 2.*got .*15"),
        (ap.rollout_maps, (IMAGES, {"ViT": MAPS[0, :1, 0]}), r"'ViT' \(.*B = 2.*got .*16"),
        (ap.layer_maps, (PIXELS, {"ViT": MAPS}), r"images \(B, 3, S, S\) of uint8, got"),
        (ap.layer_maps, (IMAGES / 255.0, {"ViT": MAPS}), "of uint8, got .* float64"),
        (ap.head_maps, (IMAGES, {"ViT": MAPS}, {"ViT": ["cat"]}), "2 captions .*, got 1 for 'ViT'"),
        (ap.rollout_maps, (IMAGES, {"ViT": MAPS[0, :, 0]}, "abc"), "2 captions, got 3"),
        (ap.position_grid, (np.ones((N + 1, 6)),), r"without CLS; got \(17, 6\)"),
    ):
        with pytest.raises(ValueError, match=words):
            draw(*given)


def test_captions_say_right_and_wrong():
    vit = ap.captions([0, 1], [0, 2], CLASSES)
    assert vit == ["cat ✓", "dog\n✗ ship"]
    both = ap.captions_of_all({"ViT": vit, "Diff-ViT": ap.captions([0, 1], [1, 1], CLASSES)})
    assert both == ["cat\nViT ✓\nDiff-ViT ✗ dog", "dog\nViT ✗ ship\nDiff-ViT ✓"]


POSITIONS = RNG.normal(size=(N, 6))
DOTS = POSITIONS @ POSITIONS.T
COSINES = DOTS / np.outer(*[np.sqrt(DOTS.diagonal())] * 2)


def test_position_similarity_shows_dot_products_and_cosines():
    for ax, expected in zip(ap.position_similarity(POSITIONS).axes, (DOTS, COSINES)):
        np.testing.assert_allclose(drawn(ax), expected)
        assert ax.images[0].norm.vmin == -ax.images[0].norm.vmax  # a diverging scale is centred


def test_position_grid_is_figure_7_of_the_paper():
    mosaic = ap.position_grid(POSITIONS).axes[0].images[0].get_array()
    expected = np.full((g * g + g - 1,) * 2, np.nan)  # with a gap between the patches' maps
    for r, c in np.ndindex(g, g):
        expected[r * (g + 1) :, c * (g + 1) :][:g, :g] = COSINES[r * g + c].reshape(g, g)
    np.testing.assert_allclose(np.ma.filled(mosaic, np.nan), expected)


def test_cosines_by_distance_count_each_pair_once():
    column = np.arange(N) % g
    mirrored = np.eye(g)[np.minimum(column, g - 1 - column)]  # only the folded column is known
    found = ap.position_cosines(mirrored)
    assert found["vertical"] == [[1, 1, 12], [2, 1, 8], [3, 1, 4]]
    assert found["horizontal"] == [[1, pytest.approx(1 / 3), 12], [2, 0, 8], [3, 1, 4]]
    assert found["horizontal, folded"] == [[0, 1, 4], [1, 0, 16]]  # no pair of the middle columns
    (ax,) = ap.position_distance(mirrored).axes
    assert [line.get_label() for line in ax.lines[:3]] == list(found)
    assert ax.lines[1].get_ydata().tolist() == pytest.approx([1 / 3, 0, 1])


def test_perturbation_curves_have_a_line_a_map():
    scores = {"rollout": {"curves": [[90, 50, 10], [10, 60, 90]]}}
    scores["random order"] = {"curves": [[90, 70, 10], [10, 40, 90]]}
    for i, ax in enumerate(ap.perturbation_curves(scores).axes):
        for line, (name, row) in zip(ax.lines, scores.items(), strict=True):
            assert line.get_label() == name and line.get_xdata().tolist() == [0, 50, 100]
            assert list(line.get_ydata()) == row["curves"][i]


def test_numbers_by_layer_and_what_uniform_attention_gives():
    numbers = {"entropy": {"ViT": [3.0, 2.0], "Diff-ViT": [1.0, 2.5]}, "share": {"ViT": [5, 6]}}
    left, right = ap.by_layer(numbers, {"entropy": 4.17}).axes
    assert [line.get_ydata().tolist() for line in left.lines[:2]] == [[3, 2], [1, 2.5]]
    assert left.lines[0].get_color() == MODEL_COLOURS["ViT"]
    assert left.lines[2].get_ydata()[0] == 4.17
    assert [line.get_xdata().tolist() for line in right.lines] == [[1, 2]]
    (ax,) = ap.by_layer({"length": {"corner": [[1, 0.5, 2], [3, 2, 4]]}}).axes  # with intervals
    assert ax.lines[0].get_ydata().tolist() == [1, 3]
    bars = ax.containers[0][2][0].get_segments()
    assert [bar[:, 1].tolist() for bar in bars] == [[0.5, 2], [2, 4]]
