# LLM-assisted: prompts P12, P14, P15, see report.md
"""The five pictures of 3.1.5 and what is stored of them."""

import json

import pytest
import torch
from torch import nn

from cvassign.clip import imagenet, zero_shot
from cvassign.study import answers, half, twin


def test_low_precision_is_compared_with_full():
    torch.manual_seed(0)  # one convolution and one linear layer, for 1000 names
    layers = (nn.Conv2d(3, 8, 16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1000))
    transform = imagenet.preprocessing((0.5,) * 3, (0.2,) * 3)
    classifier = imagenet.Classifier("small", nn.Sequential(*layers).eval(), transform)
    pictures = half.five()[:2]
    found, logits = half.compared(classifier, pictures), classifier.logits(pictures)
    assert found["top"] == logits.topk(5).indices.tolist()
    low = zero_shot.convert(classifier.model, "bf16")
    other = low(imagenet.stack(pictures, transform, low)).float().softmax(-1)
    change = (other - logits.softmax(-1)).abs().amax(1)
    assert torch.allclose(torch.tensor(found["bf16"]["largest"]), change)
    assert 0 < max(found["fp16"]["largest"]) < max(found["bf16"]["largest"])
    assert next(classifier.model.parameters()).dtype == torch.float32  # a copy was converted
    assert list(half.compared(classifier, pictures[:1], ["fp16"])) == ["top", "fp32", "fp16"]


def test_what_is_stored_is_of_five_photos_of_five_branches_that_are_not_saturated():
    held, five = json.loads(half.OUT.read_text(encoding="utf-8")), half.five()
    assert held["pictures"] == [answers.key(p) for p in five] and set(held["layers"]) == {*half.LOW}
    assert len({p.branch for p in five}) == 5 and twin.held_out(five) == five
    assert all(p.kind == "photo" and p.may_be_shown for p in five)
    assert list(held["models"]) == [answers.load(m).name for m in answers.MODELS]
    for model, found in zip(answers.MODELS, held["models"].values()):
        stored, fp32 = answers.load(model).of(five), torch.tensor(found["fp32"])
        assert model == "twin" or 0.29 < fp32[:, 0].min() < fp32[:, 0].max() < 0.91
        assert found["top"] == stored.indices[:, :5].tolist() and {*half.LOW} < {*found}
        assert (
            torch.allclose(fp32, stored.probabilities[:, :5], atol=2e-3) and stored.ranks.max() == 1
        )
        first, answer = half.table(found, five)[0], stored.topk(five)[0][0][0]
        assert list(first.values())[:3] == [
            five[0].class_name,
            answer,
            f"{found['fp32'][0][0]:.5f}",
        ]
        assert float(first["largest |Δp|, bf16"]) == pytest.approx(found["bf16"]["largest"][0], 0.1)
