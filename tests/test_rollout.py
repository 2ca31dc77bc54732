# LLM-assisted: prompts P1, P2, P15, see report.md
"""Rollout against its formula in plain loops; scores against a model whose curve is known."""

import math
import warnings

import pytest
import torch

from cvassign import rollout

L, B, H, N = 3, 2, 4, 4
T = N + 1


def softmax_maps(layers=L, batch=B, heads=H, tokens=T, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(layers, batch, heads, tokens, tokens, generator=g).mul(2).softmax(-1)


def signed_maps(lam=0.6, **shape):
    """A1 - λA2, whose rows sum to 1 - λ; `lam` a number, or one for each layer."""
    lam = torch.as_tensor(lam).view(-1, 1, 1, 1, 1)
    return softmax_maps(seed=1, **shape) - lam * softmax_maps(seed=2, **shape)


def by_loops(attentions, residual=True, head_fusion="mean", signed="error"):
    """The formula, one number at a time, for one image: lists (L, H, T, T) -> (T, T)."""
    fuse = {"mean": lambda v: sum(v) / len(v), "max": max, "min": min}[head_fusion]
    tokens = range(len(attentions[0][0]))
    result = [[float(i == j) for j in tokens] for i in tokens]
    for heads in attentions:
        if signed == "clamp":
            heads = [[[max(v, 0.0) for v in row] for row in head] for head in heads]
        step = [[fuse([head[i][j] for head in heads]) for j in tokens] for i in tokens]
        step = [[v / sum(row) for v in row] for row in step]
        if residual:
            step = [[0.5 * step[i][j] + 0.5 * (i == j) for j in tokens] for i in tokens]
        result = [[sum(step[i][k] * result[k][j] for k in tokens) for j in tokens] for i in tokens]
    return result


def assert_is_formula(attentions, **options):
    got = rollout.attention_rollout(attentions, **options)
    for b, of_image in enumerate(got):
        expected = torch.tensor(by_loops(attentions[:, b].tolist(), **options))
        torch.testing.assert_close(of_image, expected, rtol=1e-4, atol=1e-5)
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


def test_a_layer_with_lambda_above_one_is_clamped_with_a_warning():
    attentions = signed_maps([0.3, 1.2, 1.0])
    with pytest.warns(UserWarning, match=r"layers \[2, 3\]"):
        got = rollout.attention_rollout(attentions, signed="normalise")
    first = rollout.attention_rollout(attentions[:1], signed="normalise")
    others = rollout.attention_rollout(attentions[1:], signed="clamp")
    torch.testing.assert_close(got, others @ first)


def test_one_row_that_cannot_be_normalised_clamps_its_image_and_no_other():
    """In the second version of differential attention every token has its own λ."""
    attentions = signed_maps(0.5)
    attentions[1, 0, :, 3] -= 0.5
    with pytest.warns(UserWarning, match=r"layers \[2\]"):
        together = rollout.attention_rollout(attentions, signed="normalise")
    assert together.abs().max() < 3  # nothing was divided by almost nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = rollout.attention_rollout(attentions[:, 1:], signed="normalise")
    torch.testing.assert_close(together[1:], alone)


def test_a_row_that_attends_to_nothing_keeps_its_token():
    attentions = torch.full((1, 1, 1, T, T), -0.1)
    got = rollout.attention_rollout(attentions, signed="clamp", residual=False)
    torch.testing.assert_close(got[0], torch.eye(T))


def test_what_cannot_be_rolled_out_is_an_error():
    for maps, options, message in (
        (signed_maps(), {}, "got a weight of -.*signed='normalise'"),
        (2 * softmax_maps(), {}, "sums of 2 ... 2"),
        (math.nan * softmax_maps(), {}, "finite attentions"),
        (softmax_maps(), dict(head_fusion="median"), "'mean', 'max', 'min'.*'median'"),
        (softmax_maps(), dict(signed="abs"), "'error', 'normalise', 'clamp'.*'abs'"),
    ):
        with pytest.raises(ValueError, match=message):
            rollout.attention_rollout(maps, **options)


@pytest.mark.parametrize("name", "attention_rollout cls_attention attention_entropy".split())
@pytest.mark.parametrize("shape", ((B, H, T, T), (L, B, H, T, N)))
def test_wrong_shapes_are_named(name, shape):
    with pytest.raises(ValueError, match=f"N\\+1.*{shape[-2]}, {shape[-1]}"):
        getattr(rollout, name)(torch.zeros(shape))


def test_cls_attention_and_rollout_map_are_the_row_of_cls_without_its_own_column():
    attentions = softmax_maps()
    assert torch.equal(rollout.cls_attention(attentions), attentions[:, :, :, 0, 1:])
    rolled = rollout.attention_rollout(attentions)
    assert torch.equal(rollout.rollout_map(rolled), rolled[:, 0, 1:])
    with pytest.raises(ValueError, match="B, N\\+1, N\\+1.*5, 5"):
        rollout.rollout_map(rolled[0])


def test_grid_is_in_raster_order():
    maps = torch.arange(2 * 9).view(2, 9)
    got = rollout.to_grid(maps)
    assert got.shape == (2, 3, 3) and got[1, 2, 0] == maps[1, 6]
    with pytest.raises(ValueError, match="N = 8"):
        rollout.to_grid(torch.zeros(8))


def test_entropy_of_one_place_and_of_all_places():
    one, uniform = torch.eye(T).expand(1, B, H, T, T), torch.full((1, B, H, T, T), 1 / T)
    got = rollout.attention_entropy(torch.cat([one, uniform, -uniform]))
    torch.testing.assert_close(got, torch.tensor([0.0, math.log(T), math.log(T)]))


def test_entropy_is_the_mean_over_rows_of_the_formula():
    attentions = signed_maps()
    rows = [[abs(v) for v in row] for row in attentions[1].reshape(-1, T).tolist()]
    expected = -sum(v / sum(row) * math.log(v / sum(row)) for row in rows for v in row) / len(rows)
    assert rollout.attention_entropy(attentions)[1] == pytest.approx(expected, rel=1e-5)


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
def test_curves_of_a_perfect_and_of_an_inverted_map(batch_size):
    maps, options = torch.stack([WEIGHTS, -WEIGHTS]), dict(batch_size=batch_size)
    gained = torch.tensor([BEST_FIRST, WORST_FIRST])
    for insert, expected in ((True, gained), (False, 1 - gained)):
        share, curves = rollout.perturbation_curve(weighing_model, IMAGES, maps, insert, **options)
        torch.testing.assert_close(share, torch.tensor([0, 0.25, 0.5, 0.75, 1]))
        torch.testing.assert_close(curves, expected, rtol=0, atol=1e-5)


def test_fewer_steps_are_a_subset_of_the_curve():
    maps = WEIGHTS.expand(2, N)
    share, curve = rollout.perturbation_curve(weighing_model, IMAGES, maps, steps=2)
    torch.testing.assert_close(share, torch.tensor([0, 0.5, 1]))
    torch.testing.assert_close(curve[0], torch.tensor([1.0, 0.3, 0.0]), rtol=0, atol=1e-5)


def test_the_predicted_class_is_that_of_the_whole_image():
    images = IMAGES.clone()
    images[1, :, :, :2] = images[1, :, :2] = 0  # only patch 3 is not grey, 0.3: class 1 by 0.7
    _, curves = rollout.perturbation_curve(weighing_model, images, WEIGHTS.expand(2, N))
    expected = torch.tensor([BEST_FIRST, [0.3, 0.3, 0.0, 0.0, 0.0]])  # of class 1 by the second
    torch.testing.assert_close(curves, 1 - expected, rtol=0, atol=1e-5)


def test_a_random_order_scores_between_the_right_and_the_wrong_one():
    maps, images = WEIGHTS.expand(64, N), torch.ones(64, 3, 4, 4)
    random = rollout.random_maps(maps, seed=3)
    assert torch.equal(random, rollout.random_maps(maps, seed=3))
    assert len(random.argsort(1).unique(dim=0)) > 10  # each image has its own order
    share, curves = rollout.perturbation_curve(weighing_model, images, random, insert=True)
    area = torch.trapezoid(curves, share, dim=1).mean()
    assert area == pytest.approx(0.5, abs=0.03)  # the mean over all orders is exactly one half


def test_maps_that_do_not_fit_the_images_are_errors():
    for shape, maps, words in (
        ((2, 3, 4, 4), torch.zeros(3, 4), "expected images"),
        ((2, 3, 4, 4), torch.zeros(2, 9), "expected images"),
        ((2, 3, 4, 6), torch.zeros(2, 4), "expected images"),
        ((2, 3, 4, 4), torch.full((2, 4), math.nan), "finite"),
    ):
        with pytest.raises(ValueError, match=words):
            rollout.perturbation_curve(weighing_model, torch.zeros(shape), maps)
