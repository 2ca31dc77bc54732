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
    idle = nn.Parameter(torch.ones(16, 16))  # a matrix without a gradient stays as it is
    muon = StackedMuon([dict(params=ours[:1], blocks=3), dict(params=[idle, *ours[1:]])], **options)
    torchs = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", nesterov=True, **options)
    for step in range(6):
        grads = [torch.randn(s, generator=seeded(100 * step + i)) for i, s in enumerate(shapes)]
        for p, g in zip((*ours, *theirs), (*grads, *grads[0].chunk(3), *grads[1:])):
            p.grad = g.clone()
        lr = 0.02 if step < 4 else 0.005  # the schedule changes the rate between steps
        for group in (*muon.param_groups, *torchs.param_groups):
            group["lr"] = lr
        muon.step()
        torchs.step()
        for p, want in zip(ours, (torch.cat(theirs[:3]), *theirs[3:])):
            # torch's rounds to bf16, and adds up in another order; a step's RMS is about 0.2 lr.
            error = (p - want).square().mean().sqrt()
            assert error < (0.01 if bf16 else 0.03) * 0.2 * lr * (step + 1)
    assert (idle == 1).all()


@pytest.mark.parametrize("attention", ("standard", "diff"))
@pytest.mark.parametrize("position", ("learned_1d", "learned_2d"))
@pytest.mark.parametrize("name", ("adamw", "muon"))
def test_each_parameter_gets_its_optimizer_its_decay_and_its_rate(name, position, attention):
    """Muon the layers' matrices, of which qkv is three; decay the matrices, wherever they are."""
    model = VisionTransformer(replace(SMALL, attention=attention, position=position))
    optimizers = build_optimizers(model, name, decay=0.5, lambda_share=0.5)
    set_rate(optimizers, 0.1)
    groups = [(type(o), group) for o in optimizers for group in o.param_groups]
    found = {p: (kind, group) for kind, group in groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for _, group in groups)  # none by two
    without = ("bias", "norm", "cls_token", "position", "lambda_q", "lambda_k")
    for path, p in model.named_parameters():
        kind, group = found.pop(p)
        matrix = not any(word in path for word in without)
        muon = name == "muon" and matrix and path.startswith("layers.")
        assert kind == (StackedMuon if muon else torch.optim.AdamW), path
        assert group["weight_decay"] == (0.5 if matrix else 0), path
        assert group["lr"].item() == pytest.approx(0.05 if ".lambda_" in path else 0.1), path
        assert not muon or group["blocks"] == (3 if "qkv" in path else 1), path
    assert not found


def test_schedule():
    for warmup, expected in (
        (0.1, {0: 0, 0.05: 0.5, 0.1: 1, 0.55: 0.5, 1: 0}),
        (0.0, {0: 1, 0.25: 0.5 + math.sqrt(0.125), 1: 0}),
        (1.0, {0.5: 0.5, 1: 1}),
    ):
        found = [lr_factor(progress, warmup) for progress in expected]
        assert found == pytest.approx(list(expected.values()), abs=1e-12)
