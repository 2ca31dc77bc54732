# LLM-assisted: prompts P3, see report.md
"""Regions cover the pictures, heads are described by what their maps hold."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from cvassign.dino_figures import BEHIND, REGIONS, attention_figure, describe_heads, region_map


@pytest.mark.parametrize("picture", REGIONS)
def test_every_region_has_patches_and_every_patch_a_region(picture):
    index, names = region_map(picture, 34, 34)
    assert index.shape == (34, 34) and len(names) == len(REGIONS[picture])
    assert set(np.unique(index)) == set(range(len(names)))


def test_regions_lie_where_they_were_marked():
    index, names = region_map("astronaut", 60, 60)

    def at(x: float, y: float) -> str:
        return names[index[int(y * 60), int(x * 60)]]

    assert at(0.44, 0.25) == "the face" and at(0.42, 0.08) == "the hair"
    assert at(0.335, 0.755) == "the emblems on the suit" and at(0.2, 0.6) == "the suit"
    assert at(0.8, 0.9) == "the helmet" and at(0.05, 0.3) == "the flag"
    assert at(0.6, 0.2) == at(0.99, 0.55) == "the wall and the table"


def test_what_stands_behind_the_object_is_not_it():
    index, names = region_map("astronaut", 60, 60)
    assert set(BEHIND["astronaut"]) < set(names)
    flag = (index == names.index("the flag")).astype(float)
    (head,) = describe_heads(flag[None] / flag.sum(), "astronaut")
    assert head.region == "the flag" and head.on_object == 0 and 0.3 < head.object_area < 0.7


def test_a_head_is_described_by_its_map():
    index, names = region_map("coffee", 20, 20)
    spoon = index == names.index("the spoon")
    attention = np.zeros((2, 20, 20))
    attention[0][spoon] = 0.8 / spoon.sum()  # 0.8 of all, the rest is [CLS] on itself
    attention[1] = 1 / 400  # even: no region gets more than its area
    attention[1][0, 0] *= 1.5
    first, second = describe_heads(attention, "coffee")
    assert (first.region, first.peak_region) == ("the spoon", "the spoon")
    assert first.mass == pytest.approx(1) and first.area == pytest.approx(spoon.mean())
    assert first.half_in == pytest.approx((spoon.sum() // 2 + 1) / 400, abs=1 / 400)
    assert first.self_attention == pytest.approx(0.2) and "20 % of all" in str(first)
    assert second.self_attention < 0.1 and "itself" not in str(second)
    assert first.on_object == pytest.approx(1)
    table = index == names.index("the table")
    assert first.object_area == second.object_area == pytest.approx(1 - table.mean())
    assert second.on_object == pytest.approx(1 - table.mean(), abs=0.01)
    assert f"100 % of its attention on {100 * spoon.mean():.0f} % of the picture" in str(first)
    assert second.region == second.peak_region == "the table"
    assert second.mass / second.area == pytest.approx(1, abs=0.02)


def test_the_figure_shows_what_it_was_given():
    rng = np.random.default_rng(0)
    attention = rng.random((3, 4, 5))
    masks = attention > 0.5
    figure = attention_figure(rng.random((40, 50, 3)), attention, masks, "a title", "astronaut")
    axes = np.array(figure.axes).reshape(2, 8)  # two rows of four, of which five are used
    assert [a.get_title() for a in axes[0, :5]] == ["picture", "mean of heads", "head 0", "head 1",
                                                    "head 2"]  # fmt: skip
    assert np.array_equal(axes[0, 1].images[-1].get_array(), attention.mean(0))
    assert np.array_equal(axes[0, 4].images[-1].get_array(), attention[2])
    assert np.array_equal(axes[1, 3].images[-1].get_array()[..., 3] > 0, ~masks[1])
    assert not axes[0, 5].images and not axes[1, 5].images
    regions = REGIONS["astronaut"]
    ellipses = sum(len(e) for e in regions.values() if isinstance(e, list))
    assert len(axes[1, 0].patches) == ellipses and figure.get_suptitle() == "a title"
    (legend,) = (part.legends[0] for part in figure.subfigs if part.legends)
    assert [t.get_text() for t in legend.get_texts()] == [n for n in regions if n != "rest"]
    plt.close(figure)
