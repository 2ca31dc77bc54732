# LLM-assisted: prompts P13, P14, P15, see report.md
"""Intervals against printed tables, and against the share of the time that they hold."""

import math

import numpy as np
import pytest

from cvassign import stats


@pytest.mark.parametrize("of, expected", (((1,), 12.706), ((2,), 4.303), ((10, 5), 3.169)))
def test_the_t_quantile_is_that_of_a_printed_table(of, expected):
    assert stats.t_quantile(*of) == pytest.approx(expected, abs=6e-4)


def test_differences_over_images():
    first, second = np.arange(400) % 10 < 7, np.arange(400) % 10 < 8  # a tenth is won, none lost
    d = stats.paired_bootstrap(first, second)
    half = 1.96 * 100 * math.sqrt(0.1 * 0.9 / 400)
    assert [d.mean, d.low, d.high] == pytest.approx([10, 10 - half, 10 + half], abs=0.3)
    with pytest.raises(ValueError, match=r"n >= 1 pairs, got \(1,\), \(2,\)"):
        stats.paired_bootstrap([1.0], [2.0, 3.0])


def test_clusters_are_drawn_whole():
    first, second = np.zeros(40), np.arange(40) % 10 < 1
    tenfold = (np.repeat(values, 10) for values in (first, second, range(40)))
    whole = stats.clustered_bootstrap(*tenfold, "sets")  # copies are no further samples
    forty = stats.paired_bootstrap(first, second)
    assert [whole.low, whole.high] == pytest.approx([forty.low, forty.high], abs=0.1)
    assert (whole.mean, whole.n, whole.over) == (10, 40, "sets")


def test_noise_is_pooled_within_groups():
    noise = stats.pooled([[80, 82], [90, 91, 92], [75]])  # squares 2 and 2, of 1 + 2
    assert (noise.std, noise.df) == (pytest.approx(math.sqrt(4 / 3)), 3)
    half = 3.1824 * noise.std  # table, 3 degrees of freedom
    for runs, variance in (((1, 3), 4 / 3), ((1, 1), 2), ((3,), 1 / 3)):
        assert noise.between(*runs) == pytest.approx(half * math.sqrt(variance), rel=1e-4)
    with pytest.raises(ValueError, match="two runs or more, got 2 groups of one"):
        stats.pooled([[80], [81]])


@pytest.mark.parametrize("n, m", ((1, 3), (1, 1), (3, 3)))
def test_a_chance_difference_is_inside_nineteen_times_of_twenty(n, m):
    rng, inside = np.random.default_rng(0), 0
    for _ in range(2000):
        groups = rng.normal(80, 0.4, (4, 3)) + [[0], [1], [5], [10]]  # their means do not matter
        gap = rng.normal(80, 0.4, n).mean() - (groups[0].mean() if m == 3 else rng.normal(80, 0.4))
        inside += abs(gap) < stats.pooled(groups).between(n, m)
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)
