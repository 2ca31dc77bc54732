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


@pytest.mark.parametrize("bf16", (True, False))
def test_orthogonalise_depends_neither_on_scale_nor_on_the_rest_of_the_stack(bf16, monkeypatch):
    monkeypatch.setattr(optim, "use_bf16", lambda device: bf16)
    stack = torch.randn(4, 48, 96, generator=seeded(0))
    got = orthogonalise(stack)
    assert got.dtype == (torch.bfloat16 if bf16 else torch.float32)
    values = torch.linalg.svdvals(got.float())
    assert 0.65 < values.min() and values.max() < 1.25  # five steps come no nearer to one
    torch.testing.assert_close(orthogonalise(stack * 2.0**10), got, rtol=0, atol=0.02)
    torch.testing.assert_close(orthogonalise(stack[1:2])[0], got[1])
    assert torch.isfinite(orthogonalise(torch.zeros(1, 4, 4))).all()  # no gradient, no NaN


@pytest.mark.parametrize("bf16", (True, False))
def test_stacked_muon_is_torchs_step_by_step(bf16, monkeypatch):
    """One fused qkv of three maps, two equal matrices, a wide and a tall one."""
    monkeypatch.setattr(optim, "use_bf16", lambda device: bf16)
    shapes = ((48, 16), (16, 16), (16, 16), (16, 40), (40, 16))
    start = [0.1 * torch.randn(s, generator=seeded(i)) for i, s in enumerate(shapes)]
    ours = [nn.Parameter(w.clone()) for w in start]
    theirs = [nn.Parameter(w.clone()) for w in (*start[0].chunk(3), *start[1:])]
    options = dict(lr=0.02, weight_decay=0.3, momentum=0.9)
    muon = StackedMuon([dict(params=ours[:1], blocks=3), dict(params=ours[1:])], **options)
    torchs = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", nesterov=True, **options)
    for step in range(6):
        grads = [torch.randn(s, generator=seeded(100 * step + i)) for i, s in enumerate(shapes)]
        for p, g in zip((*ours, *theirs), (*grads, *grads[0].chunk(3), *grads[1:])):
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
    p.grad = torch.eye(4)
    StackedMuon([p, idle], lr=0.1, weight_decay=0.5).step()
    assert (p != 1).all() and (idle == 1).all()


@pytest.mark.parametrize("attention", ("standard", "diff"))
@pytest.mark.parametrize("position", ("learned_1d", "learned_2d"))
@pytest.mark.parametrize("name", ("adamw", "muon"))
def test_decay_is_decoupled_and_falls_on_matrices_only(name, position, attention):
    """Where the gradient is zero a step shrinks a matrix by rate · decay, and nothing else."""
    model = VisionTransformer(replace(SMALL, attention=attention, position=position))
    optimizers = build_optimizers(model, name, decay=0.5, lambda_share=0.5)
    set_rate(optimizers, 0.1)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates = {p: group["lr"].item() for group in groups for p in group["params"]}
    for p in model.parameters():
        p.data.fill_(1.0)
        p.grad = torch.zeros_like(p)
    for optimizer in optimizers:
        optimizer.step()
    without = ("bias", "norm", "cls_token", "position", "lambda_q", "lambda_k")
    for path, p in model.named_parameters():
        expected = 1.0 if any(word in path for word in without) else 0.95
        torch.testing.assert_close(p.detach(), torch.full_like(p, expected), msg=path)
        assert rates.pop(p) == pytest.approx(0.05 if ".lambda_" in path else 0.1), path
    assert not rates


@pytest.mark.parametrize("attention", ("standard", "diff"))
def test_muon_gets_the_matrices_of_the_layers_with_three_maps_in_qkv(attention):
    model = VisionTransformer(replace(SMALL, attention=attention))
    adamw, muon = build_optimizers(model, "muon", decay=0.1)
    names = {p: path for path, p in model.named_parameters()}
    got = {names.pop(p): g["blocks"] for g in muon.param_groups for p in g["params"]}
    blocks = {"attention.qkv": 3, "attention.proj": 1, "mlp.0": 1, "mlp.2": 1}
    assert got == {f"layers.{i}.{path}.weight": n for i in range(3) for path, n in blocks.items()}
    others = [p for group in adamw.param_groups for p in group["params"]]
    assert isinstance(adamw, torch.optim.AdamW) and len(others) == len(names)
    assert set(others) == set(names)


@pytest.mark.parametrize(
    "warmup, expected",
    (
        (0.1, {0: 0, 0.05: 0.5, 0.1: 1, 0.55: 0.5, 1: 0}),
        (0.0, {0: 1, 0.25: 0.5 + math.sqrt(0.125), 1: 0}),
        (1.0, {0.5: 0.5, 1: 1}),
    ),
)
def test_schedule(warmup, expected):
    for progress, factor in expected.items():
        assert lr_factor(progress, warmup) == pytest.approx(factor, abs=1e-12)
