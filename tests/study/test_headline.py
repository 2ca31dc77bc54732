# LLM-assisted: prompt P13, see report.md
"""Noise is taken from what has several seeds, apart for each length."""

import pytest

from cvassign.stats import Noise, pooled
from cvassign.study.headline import noise
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
    short = pooled([made["a", 5], made["b", 5]])  # single runs say nothing
    assert Noise(**found["5 epochs"]["val"]) == short and short.df == 3
    widths = found["5 epochs"]["half widths"]["val"]
    assert widths["one and three"] == pytest.approx(short.between(1, 3))
    assert found["5 epochs"]["recipes"] == 2
    assert Noise(**found["9 epochs"]["val"]) == pooled([[90, 92]])
    assert found["9 epochs"]["test"]["std"] != found["9 epochs"]["val"]["std"]
