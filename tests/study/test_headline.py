# LLM-assisted: prompt P13, see report.md
"""Noise is taken from what has several seeds, apart for each length."""

import math

import pytest

from cvassign.results import RESULTS
from cvassign.stats import Noise, pooled
from cvassign.study import factorial, headline
from cvassign.study.headline import noise, over_seeds
from tests.made import made_result, made_run


def test_noise_is_pooled_by_length():
    made = {("a", 5): (80, 81, 82), ("b", 5): (70, 70.5), ("c", 5): (60,), ("d", 9): (90, 92)}
    results = [
        made_result(made_run(name, seed=i, epochs=epochs), val=float(v))
        for (name, epochs), values in made.items()
        for i, v in enumerate(values)
    ]
    found = noise(results)
    assert list(found) == ["5 epochs", "9 epochs"]
    five, nine = found.values()
    short = pooled([made["a", 5], made["b", 5]])  # single runs say nothing
    assert Noise(**five["val"]) == short and short.df == 3 and five["recipes"] == 2
    assert Noise(**nine["val"]) == pooled([[90, 92]]) and nine["val"] != nine["test"]


def test_a_difference_over_seeds_is_by_the_pooled_noise():
    d = over_seeds([80.0, 81.0, 82.0], [81.0, 83.0, 85.0])  # squares 2 and 8, of 2 + 2
    half = 2.7764 * math.sqrt(10 / 4) * math.sqrt(2 / 3)  # Student's t with four degrees: table
    assert [d.mean, d.low, d.high] == pytest.approx([2, 2 - half, 2 + half], abs=1e-3)


@pytest.mark.parametrize("study", (headline, factorial))
def test_the_stored_numbers_are_those_of_the_results(study, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    study.main()
    (made,) = (tmp_path / "study").iterdir()
    assert made.read_bytes() == (RESULTS / "study" / made.name).read_bytes()
