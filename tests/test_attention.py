# LLM-assisted: prompts P1, P2, P15, see report.md
"""Attention against torch's and timm's, and the fused path against the formula."""

import math
from functools import partial
from unittest.mock import Mock

import pytest
import timm.layers
import torch
import torch.nn.functional as F
from torch import nn

from cvassign import attention, variants
from cvassign.attention import MultiHeadAttention, MultiHeadDiffAttention, lambda_init_of
from cvassign.variants import ATTENTIONS

B, N, D, H = 3, 7, 24, 4
CLOSE = dict(rtol=1e-5, atol=1e-5)
KINDS = {name: partial(make, D, H, 3) for name, make in ATTENTIONS.items()}


def made(kind: str) -> nn.Module:
    """A module whose every parameter is random: at the start biases and norms are no test."""
    torch.manual_seed(0)
    module = KINDS[kind]()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return module


def tokens(seed: int = 1) -> torch.Tensor:
    return torch.randn(B, N, D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dv", (6, 9))
def test_sdpa_is_torchs(dv):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, H, n, d, generator=g) for n, d in ((N, 6), (5, 6), (5, dv)))
    out, weights = attention.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(out, F.scaled_dot_product_attention(q, k, v), **CLOSE)
    assert weights.shape == (B, H, N, 5) and (weights > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, N), **CLOSE)


def test_multi_head_attention_is_torchs_at_copied_weights():
    ours = made("standard")
    theirs = nn.MultiheadAttention(D, H, batch_first=True)
    state = {k.replace("qkv.", "in_proj_"): v for k, v in ours.state_dict().items()}
    theirs.load_state_dict({k.replace("proj.", "out_proj."): v for k, v in state.items()})
    x = tokens()
    expected = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(ours(x, return_attention=True), expected, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_fused_is_explicit_gradients_too(kind, monkeypatch):
    module, target, results = made(kind), tokens(2), []
    kernel = Mock(wraps=F.scaled_dot_product_attention)
    monkeypatch.setattr(F, "scaled_dot_product_attention", kernel)
    for fused in (True, False):
        for file in (attention, variants):
            monkeypatch.setattr(file, "use_sdpa", Mock(return_value=fused))
        kernel.reset_mock()
        module.zero_grad()
        x = tokens().requires_grad_()
        out = module(x)
        (out * target).mean().backward()
        assert kernel.called == fused  # each path was really taken
        results.append([out.detach(), x.grad] + [p.grad for p in module.parameters()])
        torch.testing.assert_close(module(x, return_attention=True)[0], out, **CLOSE)
    for of_fused, of_explicit in zip(*results):
        assert of_explicit.abs().max() > 0
        torch.testing.assert_close(of_fused, of_explicit, **CLOSE)


def test_the_formula_trains_on_a_cpu_and_the_kernel_predicts():
    assert not attention.use_sdpa(tokens())
    with torch.no_grad():
        assert attention.use_sdpa(tokens())


@pytest.mark.parametrize("layer", (1, 2, 6, 12))
def test_diff_attention_is_timms_at_mapped_weights(layer, monkeypatch):
    """timm counts differential heads, that is H / 2, and layers from 0."""
    monkeypatch.setitem(KINDS, "diff", lambda: MultiHeadDiffAttention(D, H, layer))
    ours, x = made("diff"), tokens()
    theirs = timm.layers.DiffAttention(D, H // 2, qkv_bias=True, depth=layer - 1)
    state = ours.state_dict().items()
    theirs.load_state_dict({k.replace("norm.", "sub_norm."): v for k, v in state})
    torch.testing.assert_close(ours(x, return_attention=True)[0], theirs(x), **CLOSE)
    theirs.fused_attn = False
    torch.testing.assert_close(ours(x), theirs(x), **CLOSE)


def test_lambda_vectors_start_as_the_paper_says():
    torch.manual_seed(0)
    parts = nn.ModuleList(MultiHeadDiffAttention(64, 2, layer=1) for _ in range(50))
    values = torch.cat([p for name, p in parts.named_parameters() if "lambda" in name])
    assert len(values) == 50 * 4 * 32
    assert values.mean().item() == pytest.approx(0, abs=0.005)
    assert values.std().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("kind", [k for k in KINDS if k[:4] == "diff" and k != "diff_v2"])
def test_rows_of_the_signed_map_sum_to_one_minus_lambda(kind):
    module, x = made(kind), tokens()
    weights, (first, second, lam) = module(x, return_attention=True)[1], module.attention_maps(x)
    torch.testing.assert_close(weights, first - lam * second, **CLOSE)
    torch.testing.assert_close(first.sum(-1), torch.ones(B, H // 2, N), **CLOSE)
    torch.testing.assert_close(weights.sum(-1), (1 - lam).expand(B, H // 2, N), **CLOSE)
    assert (weights < 0).any() and (first - second).abs().max() > 0.05  # not one map twice


def test_impossible_shapes_heads_and_layers_are_errors():
    q, wide, more = torch.zeros(2, 4, 6), torch.zeros(2, 4, 5), torch.zeros(2, 3, 6)
    formula = attention.scaled_dot_product_attention
    for make, arguments, words in (
        (formula, (q, wide, q), r"got \(2, 4, 6\), \(2, 4, 5\), \(2, 4, 6\)"),
        (formula, (q, q, more), r"got \(2, 4, 6\), \(2, 4, 6\), \(2, 3, 6\)"),
        (MultiHeadAttention, (10, 4), "embed_dim 10 .* num_heads 4"),
        (MultiHeadDiffAttention, (10, 4, 1), "embed_dim 10 .* num_heads 4"),
        (MultiHeadDiffAttention, (12, 3, 1), "num_heads 3 is odd"),
        (MultiHeadDiffAttention, (12, 2, 0), "from 1, got layer 0"),
    ):
        with pytest.raises(ValueError, match=words):
            make(*arguments)


def test_each_variant_changes_one_thing():
    """From the module that it is a variant of, at the same weights."""
    x, d = tokens(), D // H
    plain, normed = made("standard"), KINDS["standard_norm"]()
    normed.load_state_dict(plain.state_dict(), strict=False)
    heads = F.scaled_dot_product_attention(*plain.qkv(x).view(B, N, 3, H, d).permute(2, 0, 3, 1, 4))
    expected = plain.join(F.rms_norm(heads, (d,), eps=1e-5))
    torch.testing.assert_close(normed(x), expected, **CLOSE)

    diff = made("diff")
    first, second, lam = diff.attention_maps(x)
    for name, kept, scale, weight in (
        ("diff_no_norm", lam, 1 - lambda_init_of(3), None),
        ("diff_no_scale", lam, 1, diff.norm.weight),
        ("diff_constant_init", lam - lambda_init_of(3) + 0.8, 1 - 0.8, diff.norm.weight),
        ("diff_fixed_lambda", lambda_init_of(3), 1 - lambda_init_of(3), diff.norm.weight),
    ):
        variant = KINDS[name]()
        variant.load_state_dict(diff.state_dict(), strict=False)
        heads = (first - kept * second) @ diff._split(x)[2]
        if weight is not None:
            heads = F.rms_norm(heads, (2 * d,), weight, eps=1e-5)
        expected = diff.proj((heads * scale).transpose(1, 2).flatten(2))
        torch.testing.assert_close(variant(x), expected, **CLOSE)


def test_the_second_version_is_its_equation_head_by_head():
    """Two queries share a head's keys and values; λ is a sigmoid for each token and head."""
    module, x = made("diff_v2"), tokens()
    lam, heads = module.lambda_proj(x).sigmoid(), []
    for h, parts in enumerate(module.qkv(x).view(B, N, 4, H, -1).unbind(3)):
        q1, q2, k, v = parts.unbind(2)
        a1, a2 = ((q @ k.mT / math.sqrt(D // H)).softmax(-1) for q in (q1, q2))
        heads.append((a1 - lam[..., h : h + 1] * a2) @ v)
    torch.testing.assert_close(module(x), module.proj(torch.cat(heads, -1)), **CLOSE)
    sums = module(x, return_attention=True)[1].sum(-1)
    torch.testing.assert_close(sums, 1 - lam.mT, **CLOSE)
