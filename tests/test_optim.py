# LLM-assisted: prompts P1, P5, P15, see report.md
"""Muon against torch's, step by step; which parameter gets which optimizer; the schedule."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from cvassign import optim
from cvassign.optim import StackedMuon, build_optimizers, lr_factor, orthogonalise, set_rate
from cvassign.vit import VisionTransformer, ViTConfig

SMALL = ViTConfig(embed_dim=24, depth=3, num_heads=4, mlp_ratio=2.0, patch_size=8)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_orthogonalise_does_not_depend_on_scale_nor_on_the_rest_of_the_stack():
    stack = torch.randn(3, 8, 12, generator=seeded(0))
    got = orthogonalise(stack)
    torch.testing.assert_close(orthogonalise(stack * 2.0**10), got, rtol=0, atol=0.02)
    torch.testing.assert_close(orthogonalise(stack[1:2])[0], got[1])
    assert torch.isfinite(orthogonalise(torch.zeros(1, 4, 4))).all()  # no gradient, no NaN


def test_newton_schulz_is_the_same_in_bf16_and_in_fp32(monkeypatch):
    """Within Muon's own tolerance: five steps leave singular values between 0.7 and 1.2."""
    stack = torch.randn(4, 48, 96, generator=seeded(0))
    got = {}
    for bf16 in (True, False):
        monkeypatch.setattr(optim, "use_bf16", lambda device, bf16=bf16: bf16)
        got[bf16] = orthogonalise(stack)
        assert got[bf16].dtype == (torch.bfloat16 if bf16 else torch.float32)
        values = torch.linalg.svdvals(got[bf16].float())
        assert 0.65 < values.min() and values.max() < 1.25
    error = (got[True] - got[False]).square().mean().sqrt()
    assert error < 0.03 * got[False].square().mean().sqrt()


@pytest.mark.parametrize("bf16", (True, False))
def test_stacked_muon_is_torchs_step_by_step(bf16, monkeypatch):
    """One fused qkv of three maps, two equal matrices, a wide and a tall one."""
    monkeypatch.setattr(optim, "use_bf16", lambda device: bf16)
    shapes = ((48, 16), (16, 16), (16, 16), (16, 40), (40, 16))
    start = [0.1 * torch.randn(s, generator=seeded(i)) for i, s in enumerate(shapes)]
    ours = [nn.Parameter(w.clone()) for w in start]
    theirs = [nn.Parameter(w.clone()) for w in (*start[0].chunk(3), *start[1:])]
    options = dict(lr=0.02, weight_decay=0.3, momentum=0.9)
    groups = [dict(params=ours[:1], blocks=3), dict(params=ours[1:])]
    muon = StackedMuon(groups, **options)
    torchs = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", nesterov=True, **options)
    for step in range(6):
        grads = [torch.randn(s, generator=seeded(100 * step + i)) for i, s in enumerate(shapes)]
        for p, g in zip(ours, grads):
            p.grad = g.clone()
        for p, g in zip(theirs, (*grads[0].chunk(3), *grads[1:])):
            p.grad = g.clone()
        if step == 4:  # the schedule changes the rate between steps
            for group in (*muon.param_groups, *torchs.param_groups):
                group["lr"] = 0.005
        before = [p.detach().clone() for p in ours]
        muon.step()
        torchs.step()
        expected = [torch.cat([p.detach() for p in theirs[:3]]), *(p.detach() for p in theirs[3:])]
        for p, old, want in zip(ours, before, expected):
            # torch's rounds to bf16, and adds up in another order; errors are shares of a step.
            error = (p.detach() - want).square().mean().sqrt()
            size = (want - old).square().mean().sqrt()
            assert size > 1e-4 and error < (0.01 if bf16 else 0.03) * size * (step + 1)


def test_without_a_gradient_muon_leaves_a_matrix_as_torchs_does():
    p, idle = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    muon = StackedMuon([p, idle], lr=0.1, weight_decay=0.5)
    p.grad = torch.eye(4)
    muon.step()
    assert (p != 1).all() and (idle == 1).all()


@pytest.mark.parametrize("attention", ("standard", "diff"))
@pytest.mark.parametrize("position", ("learned_1d", "learned_2d"))
@pytest.mark.parametrize("name", ("adamw", "muon"))
def test_decay_falls_on_matrices_only(name, position, attention):
    model = VisionTransformer(replace(SMALL, attention=attention, position=position))
    optimizers = build_optimizers(model, name, decay=0.1, lambda_share=0.5)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    set_rate(optimizers, 1e-3)
    rates = {id(p): float(group["lr"]) for group in groups for p in group["params"]}
    for path, p in model.named_parameters():
        assert rates[id(p)] == pytest.approx(5e-4 if ".lambda_" in path else 1e-3), path
    decays = [(p, group["weight_decay"]) for group in groups for p in group["params"]]
    assert len(decays) == len(list(model.parameters()))  # each parameter has one optimizer
    without = ("bias", "norm", "cls_token", "position", "lambda_q", "lambda_k")
    for path, p in model.named_parameters():
        exempt = any(word in path for word in without)
        assert dict(decays)[p] == (0.0 if exempt else 0.1), path


@pytest.mark.parametrize("attention", ("standard", "diff"))
def test_muon_gets_the_matrices_of_the_layers_with_three_maps_in_qkv(attention):
    model = VisionTransformer(replace(SMALL, attention=attention))
    adamw, muon = build_optimizers(model, "muon", decay=0.1)
    names = {id(p): path for path, p in model.named_parameters()}
    got = {names[id(p)]: g["blocks"] for g in muon.param_groups for p in g["params"]}
    assert got == {
        f"layers.{i}.{path}.weight": 3 if path.endswith("qkv") else 1
        for i in range(3)
        for path in ("attention.qkv", "attention.proj", "mlp.0", "mlp.2")
    }
    assert isinstance(adamw, torch.optim.AdamW)


def test_decay_is_decoupled():
    """Without gradient of its own, a step shrinks a matrix by lr · decay and no bias at all."""
    for name in ("adamw", "muon"):
        model = VisionTransformer(SMALL)
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(1.0)
                p.grad = torch.zeros_like(p)
        optimizers = build_optimizers(model, name, decay=0.5)
        set_rate(optimizers, 0.1)
        for optimizer in optimizers:
            optimizer.step()
        for path, p in model.named_parameters():
            matrix = path.endswith("weight") and "norm" not in path and "position" not in path
            torch.testing.assert_close(p.detach(), torch.full_like(p, 0.95 if matrix else 1.0))


def test_schedule():
    for warmup, expected in (
        (0.1, {0: 0, 0.05: 0.5, 0.1: 1, 0.55: 0.5, 1: 0}),
        (0.0, {0: 1, 0.25: 0.5 + math.sqrt(0.125), 1: 0}),
        (1.0, {0.5: 0.5, 1: 1}),
    ):
        for progress, factor in expected.items():
            assert lr_factor(progress, warmup) == pytest.approx(factor, abs=1e-12)
