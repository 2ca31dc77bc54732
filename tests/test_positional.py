# LLM-assisted: prompts P1, P15, see report.md
"""Each positional embedding against its formula in plain loops."""

import math
from itertools import product

import pytest
import torch

from cvassign.positional import POSITIONS, Learned2D, Sinusoidal

GRID, D = 3, 8
N = GRID * GRID
LEARNED = {"learned_1d": (N + 1) * D, "learned_2d": 2 * GRID * D // 2 + D}  # numbers in each


@pytest.mark.parametrize("name", POSITIONS)
def test_the_table_is_added_to_every_image(name):
    """In fp32, whatever the patches come in, so that all kinds are compared at one precision."""
    module, x = POSITIONS[name](GRID, D), torch.randn(2, N + 1, D).bfloat16()
    table = torch.zeros(N + 1, D) if name == "none" else module.table()
    assert table.shape == (N + 1, D)
    torch.testing.assert_close(module(x), torch.stack([image.float() + table for image in x]))
    assert name == "none" or len(torch.unique(table, dim=0)) == N + 1  # no two places alike
    assert sum(p.numel() for p in module.parameters()) == LEARNED.get(name, 0)
    assert bool(module.state_dict()) == (name in LEARNED)  # what is fixed is not stored


@pytest.mark.parametrize("name", LEARNED)
def test_learned_positions_start_small(name):
    torch.manual_seed(0)
    table = POSITIONS[name](16, 64).table()
    assert table.std().item() == pytest.approx(0.02, rel=0.1)
    assert table.mean().item() == pytest.approx(0, abs=0.002)


def test_2d_is_the_x_of_the_column_and_the_y_of_the_row():
    module = Learned2D(GRID, D)
    table = module.table()
    assert torch.equal(table[0], module.cls[0])
    for place, (row, column) in zip(table[1:], product(range(GRID), repeat=2), strict=True):
        assert torch.equal(place, torch.cat([module.x[column], module.y[row]]))


@pytest.mark.parametrize("grid, dim", ((GRID, D), (8, 192), (16, 6)))
def test_sinusoidal_is_the_formula(grid, dim):
    table = Sinusoidal(grid, dim).table()
    assert len(table) == grid * grid + 1
    for p, row in enumerate(table.tolist()):  # CLS is p = 0
        angles = [p / 10000 ** (2 * i / dim) for i in range(dim // 2)]
        expected = [f(angle) for angle in angles for f in (math.sin, math.cos)]
        assert row == pytest.approx(expected, abs=5e-5)  # fp32 carries 256 rad to about 2e-5


@pytest.mark.parametrize("name", ("learned_2d", "sinusoidal"))
def test_an_odd_embedding_is_an_error(name):
    with pytest.raises(ValueError, match="embed_dim 7 is odd"):
        POSITIONS[name](GRID, 7)
