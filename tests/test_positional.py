# LLM-assisted: prompts P1, P15, see report.md
"""Each positional embedding against its formula in plain loops."""

import math
from itertools import product

import pytest
import torch

from cvassign.positional import POSITIONS, Learned2D, Sinusoidal

GRID, D = 3, 8
N = GRID * GRID


def tokens() -> torch.Tensor:
    return torch.randn(2, N + 1, D, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [name for name in POSITIONS if name != "none"])
def test_the_table_is_added_to_every_image(name):
    module, x = POSITIONS[name](GRID, D), tokens()
    table = module.table()
    assert table.shape == (N + 1, D)
    torch.testing.assert_close(module(x), torch.stack([image + table for image in x]))
    assert len(torch.unique(table, dim=0)) == N + 1  # no two places alike


def test_none_changes_nothing():
    assert torch.equal(POSITIONS["none"](GRID, D)(tokens()), tokens())


@pytest.mark.parametrize("name", POSITIONS)
def test_tokens_go_on_in_fp32(name):
    """Under autocast patches come in bf16; all kinds are compared at one precision."""
    assert POSITIONS[name](GRID, D)(tokens().bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("name", POSITIONS)
def test_only_what_is_learned_is_a_parameter_and_stored(name):
    counts = {"learned_1d": (N + 1) * D, "learned_2d": 2 * GRID * D // 2 + D}
    module, count = POSITIONS[name](GRID, D), counts.get(name, 0)
    assert sum(p.numel() for p in module.parameters()) == count
    assert bool(module.state_dict()) == bool(count)  # what is fixed is not stored


@pytest.mark.parametrize("name", ("learned_1d", "learned_2d"))
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
