# LLM-assisted: prompts P1, P2, P15, see report.md
"""The Vision Transformer against timm's, its parameters counted, its random parts measured."""

import re
from dataclasses import replace

import pytest
import timm
import torch

from cvassign import attention, vit
from cvassign.attention import MultiHeadAttention, MultiHeadDiffAttention, lambda_init_of
from cvassign.positional import POSITIONS
from cvassign.study.bench import timm_shape
from cvassign.vit import EncoderLayer, VisionTransformer, ViTConfig, count_parameters

SMALL = ViTConfig(embed_dim=24, depth=3, num_heads=4, mlp_ratio=2.0, patch_size=8)
T = SMALL.grid**2 + 1  # tokens, CLS included
KINDS = pytest.mark.parametrize("kind", ("standard", "diff"))


def made(config: ViTConfig = SMALL, noise: float = 0.1) -> VisionTransformer:
    """A model whose every parameter is random: at the start biases are zero and norms one."""
    torch.manual_seed(0)
    model = VisionTransformer(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(noise * torch.randn_like(p))
    return model


def pictures() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


THEIR_NAMES = {"position.weight": "pos_embed", "patch_embedding": "patch_embed"}
THEIR_NAMES |= {"layers": "blocks", "attention": "attn", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}


@pytest.mark.parametrize("config", (SMALL, ViTConfig(depth=2)))
@pytest.mark.parametrize("fused", (True, False))
def test_it_is_timms_at_copied_weights(config, fused, monkeypatch):
    monkeypatch.setattr(attention, "use_sdpa", lambda x: fused)
    ours, theirs = made(config, 0.05), timm.models.VisionTransformer(**timm_shape(config)).eval()
    weights = ours.state_dict()
    for our, their in THEIR_NAMES.items():
        weights = {name.replace(our, their): value for name, value in weights.items()}
    weights["pos_embed"] = weights["pos_embed"][None]
    theirs.load_state_dict(weights)  # strict: no parameter more or less
    with torch.no_grad():
        expected, logits = theirs(pictures()), ours(pictures())
    assert expected.std() > 0.1  # not two constants
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_parameter_counts_are_pinned():
    """Counted by hand once: stem, CLS, positions, layers, final norm, head."""
    diff = ViTConfig(patch_size=2, embed_dim=96, depth=4, attention="diff", position="learned_2d")
    for config, count in ((ViTConfig(), 2_693_578), (diff, 451_882)):
        assert count_parameters(VisionTransformer(config)) == count


@KINDS
def test_attention_is_a_second_output_on_request(kind):
    model, x = made(replace(SMALL, attention=kind, drop_path=0.5)), pictures()  # no drop: eval
    with torch.no_grad():
        logits, maps = model(x, return_attention=True)
        torch.testing.assert_close(model(x), logits, rtol=1e-5, atol=1e-5)
    assert maps.shape == (3, 4, 2 if kind == "diff" else 4, T, T)
    lambdas = model.lambdas() or [0, 0, 0]
    assert lambdas == [getattr(x.attention, "current_lambda", int)() for x in model.layers]
    for layer, lam in zip(maps.sum(-1), lambdas):
        torch.testing.assert_close(layer, torch.full_like(layer, 1 - lam))


@KINDS
@pytest.mark.parametrize("position", POSITIONS)
def test_every_parameter_gets_a_gradient(kind, position):
    model = made(replace(SMALL, attention=kind, position=position)).train()
    model(pictures()).square().sum().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_the_config_names_the_attention_and_its_layer():
    for name, kind in (("standard", MultiHeadAttention), ("diff", MultiHeadDiffAttention)):
        model = VisionTransformer(replace(SMALL, attention=name))
        assert [type(layer.attention) for layer in model.layers] == [kind] * 3
        assert model.config.kind == ("ViT" if name == "standard" else "Diff-ViT")
    starts = [layer.attention.lambda_init.item() for layer in model.layers]
    assert starts == pytest.approx([lambda_init_of(i) for i in (1, 2, 3)])


def test_weights_start_small_and_biases_at_zero():
    torch.manual_seed(0)
    model = VisionTransformer(ViTConfig(depth=2))
    for name, p in model.named_parameters():
        if name.startswith("layers.") and name.endswith("weight") and p.ndim == 2:
            assert p.std().item() == pytest.approx(0.02, rel=0.05), name
        if name.startswith("layers.") and name.endswith("bias"):
            assert not p.any(), name
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.2)


WRONG = dict(patch_size=(5, 0), depth=(2.0, 0), num_classes=(-1,), embed_dim=(25,))
WRONG |= dict(num_heads=(5, 0), position=("3d",), attention=("linear",), drop_path=(1.0, -0.1))


@pytest.mark.parametrize("name, value", [(n, v) for n, values in WRONG.items() for v in values])
def test_impossible_configurations_are_errors(name, value):
    with pytest.raises(ValueError, match=f"{name}.* {value!r}"):
        replace(SMALL, **{name: value})


@pytest.mark.parametrize("shape", ((2, 3, 28, 32), (2, 1, 32, 32), (3, 32, 32)))
def test_images_of_another_shape_are_errors(shape):
    with pytest.raises(ValueError, match=rf"3, 32, 32.*{re.escape(str(shape))}"):
        made()(torch.zeros(shape))


def test_stochastic_depth_keeps_the_mean_and_grows_with_the_layer():
    torch.manual_seed(0)
    model = VisionTransformer(replace(SMALL, drop_path=0.4)).train()
    gates = model._residual_gates(20_000)
    assert gates.shape == (3, 2, 20_000, 1, 1)
    dropped = (gates == 0).float().flatten(2)
    for layer, gone, rate in zip(gates, dropped, (0.0, 0.2, 0.4)):
        assert gone.mean().item() == pytest.approx(rate, abs=0.02)
        torch.testing.assert_close(layer.flatten(1), (1 - gone) / (1 - rate))  # the mean stays
    # Both branches of a layer, and two layers, are drawn by themselves.
    assert (dropped[2, 0] * dropped[2, 1]).mean().item() == pytest.approx(0.16, abs=0.02)
    assert (dropped[1, 0] * dropped[2, 0]).mean().item() == pytest.approx(0.08, abs=0.02)


def test_a_dropped_branch_leaves_the_tokens():
    torch.manual_seed(0)
    layer, x = EncoderLayer(SMALL, 1), torch.randn(3, T, 24)
    gates = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]).view(2, 3, 1, 1)
    out = layer(x, gates)
    torch.testing.assert_close(out[0], x[0])
    torch.testing.assert_close(out[1], x[1] + 2 * layer.attention(layer.norm1(x))[1])
    torch.testing.assert_close(out[2], x[2] + 2 * layer.mlp(layer.norm2(x))[2])


def test_operations_are_counted_as_the_formulas_say():
    N, D, L = T, SMALL.embed_dim, SMALL.depth
    attention, mlp = 4 * N * D * D + 2 * N * N * D, 2 * D * 2 * D  # multiply-adds
    expected = 16 * 3 * 64 * D + L * attention + (N * (L - 1) + 1) * mlp + D * 10
    assert vit.gflop_per_image(SMALL) == pytest.approx(2 * expected / 1e9)
