# LLM-assisted: prompts P1, P2, P15, see report.md
"""Rollout against its formula in plain loops; scores against a model whose curve is known."""

import math
from functools import partial
from operator import mul
from statistics import fmean

import pytest
import torch

from cvassign import rollout

L, B, H, N = 3, 2, 4, 4
T = N + 1


def softmax_maps(layers=L, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(layers, B, H, T, T, generator=g).mul(2).softmax(-1)


def signed_maps(lam=0.6):
    """A1 - λA2, whose rows sum to 1 - λ; `lam` a number, or one for each layer."""
    lam = torch.as_tensor(lam).view(-1, 1, 1, 1, 1)
    return softmax_maps(seed=1) - lam * softmax_maps(seed=2)


def assert_is_formula(attentions, head_fusion="mean", residual=True, signed="error"):
    """One image, one layer, one number at a time."""
    got = rollout.attention_rollout(attentions, head_fusion, residual, signed)
    fuse = {"mean": fmean, "max": max, "min": min}[head_fusion]
    places, kept = range(T), attentions.clamp(min=0) if signed == "clamp" else attentions
    for b, of_image in enumerate(got):
        expected = torch.eye(T).tolist()
        for heads in kept[:, b]:
            step = [[fuse(heads[:, i, j].tolist()) for j in places] for i in places]
            step = [[v / sum(row) for v in row] for row in step]
            if residual:
                step = [[0.5 * step[i][j] + 0.5 * (i == j) for j in places] for i in places]
            columns = list(zip(*expected))
            expected = [[sum(map(mul, row, column)) for column in columns] for row in step]
        torch.testing.assert_close(of_image, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.sum(-1), torch.ones(B, T), rtol=0, atol=1e-4)
    return got


@pytest.mark.parametrize("layers", (1, 3, 7))
@pytest.mark.parametrize("residual", (True, False))
@pytest.mark.parametrize("fusion", ("mean", "max", "min"))
def test_rollout_is_the_formula(fusion, residual, layers):
    assert_is_formula(softmax_maps(layers), head_fusion=fusion, residual=residual)


@pytest.mark.parametrize("signed", ("normalise", "clamp"))
def test_signed_rollout_is_the_formula(signed):
    attentions = signed_maps([0.2, 0.5, 0.7])
    assert (attentions < 0).any()
    got = assert_is_formula(attentions, signed=signed)
    assert (got < 0).any() == (signed == "normalise")
    assert_is_formula(softmax_maps(), signed=signed)


def test_a_layer_that_cannot_be_normalised_is_clamped_for_its_image_and_no_other():
    """λ above 1; in the second version of differential attention every token has its own λ."""
    attentions = signed_maps([0.3, 0.5, 1.2])
    attentions[1, 0, :, 3] -= 0.5  # one row of one image
    with pytest.warns(UserWarning, match=r"layers \[2, 3\]"):
        got = rollout.attention_rollout(attentions, signed="normalise")
    for image, second in enumerate(("clamp", "normalise")):
        expected = torch.eye(T)
        for layer, signed in zip(attentions[:, [image]], ("normalise", second, "clamp")):
            expected = rollout.attention_rollout(layer[None], signed=signed)[0] @ expected
        torch.testing.assert_close(got[image], expected)


def test_a_row_that_attends_to_nothing_keeps_its_token():
    attentions = torch.full((1, 1, 1, T, T), -0.1)
    got = rollout.attention_rollout(attentions, signed="clamp", residual=False)
    torch.testing.assert_close(got[0], torch.eye(T))


def test_cls_attention_and_rollout_map_are_the_row_of_cls_without_its_own_column():
    attentions = softmax_maps()
    assert torch.equal(rollout.cls_attention(attentions), attentions[:, :, :, 0, 1:])
    rolled = rollout.attention_rollout(attentions)
    assert torch.equal(rollout.rollout_map(rolled), rolled[:, 0, 1:])


def test_grid_is_in_raster_order():
    assert rollout.to_grid(torch.arange(4).expand(2, 4)).tolist() == [[[0, 1], [2, 3]]] * 2


def test_entropy_is_the_mean_over_rows_of_the_formula():
    one, uniform = torch.eye(T).expand(1, B, H, T, T), torch.full((1, B, H, T, T), 1 / T)
    got = rollout.attention_entropy(torch.cat([one, uniform, -uniform, signed_maps()]))
    torch.testing.assert_close(got[:3], torch.tensor([0.0, math.log(T), math.log(T)]))
    size = signed_maps().abs()
    share = size / size.sum(-1, keepdim=True)
    torch.testing.assert_close(got[3:], -(share * share.log()).sum(-1).mean((1, 2, 3)))


def test_negative_share_counts_weights():
    attentions = torch.ones(2, 1, 1, T, T)
    attentions[1, 0, 0, 0, :3] = -1
    torch.testing.assert_close(rollout.negative_share(attentions), torch.tensor([0, 3 / T**2]))


# A model that reads one number: the share of patches that are not grey, weighted. With logits
# (ln s, ln(1 - s)) the probability of class 0 is s itself, so each curve is a sum of weights.
WEIGHTS = torch.tensor([0.1, 0.4, 0.2, 0.3])


def weighing_model(images):
    seen = (images[:, 0, ::2, ::2] != 0).flatten(1).float()  # 4 x 4 pixels, 2 x 2 patches
    share = (seen * WEIGHTS).sum(1).clamp(1e-6, 1 - 1e-6)
    return torch.stack([share.log(), (1 - share).log()], dim=1)


IMAGES = torch.ones(2, 3, 4, 4)
BEST_FIRST = [0.0, 0.4, 0.7, 0.9, 1.0]  # the weights, largest first, added up
WORST_FIRST = [0.0, 0.1, 0.3, 0.6, 1.0]


@pytest.mark.parametrize("batch_size", (1, 3, 1000))
@pytest.mark.parametrize("insert", (True, False))
@pytest.mark.parametrize("steps, step", ((None, 1), (2, 2)))
def test_curves_of_a_perfect_and_of_an_inverted_map(batch_size, insert, steps, step):
    maps = torch.stack([WEIGHTS, -WEIGHTS])
    curve = rollout.perturbation_curve
    share, curves = curve(weighing_model, IMAGES, maps, insert, steps, batch_size)
    gained = torch.tensor([BEST_FIRST, WORST_FIRST])[:, ::step]
    torch.testing.assert_close(share, torch.tensor([0, 0.25, 0.5, 0.75, 1])[::step])
    torch.testing.assert_close(curves, gained if insert else 1 - gained, rtol=0, atol=1e-5)


def test_the_predicted_class_is_that_of_the_whole_image():
    images = IMAGES.clone()
    images[1, :, :, :2] = images[1, :, :2] = 0  # only patch 3 is not grey, 0.3: class 1 by 0.7
    _, curves = rollout.perturbation_curve(weighing_model, images, WEIGHTS.expand(2, N))
    expected = torch.tensor([BEST_FIRST, [0.3, 0.3, 0.0, 0.0, 0.0]])  # of class 1 by the second
    torch.testing.assert_close(curves, 1 - expected, rtol=0, atol=1e-5)


def test_a_random_order_is_the_images_own_and_follows_its_seed():
    random, again, other = (rollout.random_maps(WEIGHTS.expand(64, N), seed) for seed in (3, 3, 4))
    assert torch.equal(random, again) and not torch.equal(random, other)
    assert len(random.argsort(1).unique(dim=0)) > 10


def test_what_does_not_fit_is_named():
    maps, zeros = softmax_maps(), torch.zeros
    rolled, curve = rollout.attention_rollout, partial(rollout.perturbation_curve, weighing_model)
    for function, arguments, words in (
        (rolled, [signed_maps()], "got a weight of -.*signed='normalise'"),
        (rolled, [2 * maps], "sums of 2 ... 2"),
        (rolled, [math.nan * maps], "finite attentions"),
        (rolled, [maps, "median"], "'mean', 'max', 'min'.*'median'"),
        (rolled, [maps, "mean", True, "abs"], "'error', 'normalise', 'clamp'.*'abs'"),
        (rolled, [maps[0]], r"L, B, H, N\+1, N\+1\), got shape \(2, 4, 5, 5\)"),
        (rollout.cls_attention, [maps[..., 1:]], r"N\+1.*5, 4"),
        (rollout.attention_entropy, [maps[0]], r"N\+1.*5, 5"),
        (rollout.rollout_map, [maps[0, 0, 0]], r"B, N\+1, N\+1.*5, 5"),
        (rollout.to_grid, [zeros(8)], "N = 8"),
        (curve, [IMAGES, zeros(3, 4)], "expected images"),
        (curve, [IMAGES, zeros(2, 9)], "expected images"),
        (curve, [zeros(2, 3, 4, 6), zeros(2, 4)], "expected images"),
        (curve, [IMAGES, zeros(2, 4) * math.nan], "finite"),
    ):
        with pytest.raises(ValueError, match=words):
            function(*arguments)
