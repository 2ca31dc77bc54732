# LLM-assisted: prompts P2, see report.md
"""What the study says of many images is what the formulas say of all of them at once."""

import pytest
import torch

from cvassign import attention_study as study
from cvassign.data import normalise
from cvassign.rollout import (
    attention_entropy,
    attention_rollout,
    cls_attention,
    deletion_score,
    insertion_score,
    negative_share,
    rollout_map,
)
from cvassign.vit import VisionTransformer, ViTConfig


def made(attention="standard", **changes):
    torch.manual_seed(0)
    fields = dict(patch_size=8, embed_dim=24, depth=3, num_heads=4, mlp_ratio=1.0) | changes
    model = VisionTransformer(ViTConfig(attention=attention, **fields)).eval()
    for p in model.parameters():  # as made, all attention is almost alike
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.fixture(scope="module")
def images():
    return torch.randint(256, (7, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize("attention", ("standard", "diff", "diff_v2"))
def test_parts_give_what_the_whole_gives(attention, images):
    model = made(attention)
    found = study.attention_of(model, images, batch_size=3)
    with torch.no_grad():
        _, maps = model(normalise(images), return_attention=True)
    torch.testing.assert_close(found.cls, cls_attention(maps))
    torch.testing.assert_close(found.entropy, attention_entropy(maps))
    torch.testing.assert_close(found.negative, negative_share(maps))
    assert (found.negative > 0).all() == (attention != "standard")
    names = {"rollout": "error"} if attention == "standard" else {
        "rollout, normalised": "normalise", "rollout, clamped": "clamp"}  # fmt: skip
    assert list(found.rollouts) == list(names)
    for name, signed in names.items():
        expected = rollout_map(attention_rollout(maps, signed=signed))
        torch.testing.assert_close(found.rollouts[name], expected)
    assert found.messages == []


def test_a_warning_is_a_message_once_and_no_warning(images, recwarn):
    model = made("diff", lambda_init=1.0)
    for layer in model.layers:  # λ is exactly 1: all rows of all images sum to zero
        layer.attention.lambda_q1.data.zero_()
        layer.attention.lambda_q2.data.zero_()
    found = study.attention_of(model, images, batch_size=2)
    assert len(found.messages) == 1 and "layers [1, 2, 3]" in found.messages[0]
    assert not [w for w in recwarn if "rollout" in str(w.message)]
    with pytest.raises(ValueError, match="at least one"):
        study.attention_of(model, images[:0])


@pytest.mark.parametrize("layer", (0, 1, -1))
def test_the_pair_of_maps_is_what_the_model_subtracts(layer, images):
    model = made("diff")
    pair = study.noise_pair(model, images, layer)
    assert list(pair) == ["A1", "λA2", "A1 − λA2"]
    signed = study.attention_of(model, images).cls[layer]
    torch.testing.assert_close(pair["A1 − λA2"][0], signed)
    torch.testing.assert_close(pair["A1"] - pair["λA2"], pair["A1 − λA2"])
    assert pair["A1"].min() >= 0 and pair["λA2"].min() >= 0


@pytest.mark.parametrize("attention", ("standard", "diff_v2"))
def test_there_is_no_pair_without_differential_attention(attention, images):
    with pytest.raises(ValueError, match=attention):
        study.noise_pair(made(attention), images)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # torch's RMSNorm under autocast
def test_areas_are_the_scores(images):
    model = made()
    maps = {"a map": study.attention_of(model, images).rollouts["rollout"]}
    found = study.areas(study.perturb(model, images, maps, steps=4))
    assert list(found) == ["a map", "random order"]
    deletion, insertion = found["a map"]
    x = normalise(images)
    with study.autocast(x.device):
        expected = [f(model, x, maps["a map"], steps=4) for f in (deletion_score, insertion_score)]
    torch.testing.assert_close(deletion, expected[0], rtol=0, atol=0.02)
    torch.testing.assert_close(insertion, expected[1], rtol=0, atol=0.02)
    assert not torch.equal(deletion, insertion)
