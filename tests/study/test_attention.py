# LLM-assisted: prompts P2, see report.md
"""What the study says of many images is what the formulas say of all of them at once."""

import pytest
import torch

from cvassign import rollout
from cvassign.data import normalise
from cvassign.study import attention as study
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


@pytest.mark.parametrize("attention", ("standard", "diff"))
def test_parts_give_what_the_whole_gives(attention, images):
    model = made(attention)
    found = study.attention_of(model, images, batch_size=3)
    with torch.no_grad():
        _, maps = model(normalise(images), return_attention=True)
    torch.testing.assert_close(found.cls, rollout.cls_attention(maps))
    torch.testing.assert_close(found.entropy, rollout.attention_entropy(maps))
    torch.testing.assert_close(found.negative, rollout.negative_share(maps))
    assert (found.negative > 0).all() == (attention != "standard")
    names = {"rollout": "error"} if attention == "standard" else {
        "rollout, normalised": "normalise", "rollout, clamped": "clamp"}  # fmt: skip
    assert list(found.rollouts) == list(names)
    for name, signed in names.items():
        expected = rollout.rollout_map(rollout.attention_rollout(maps, signed=signed))
        torch.testing.assert_close(found.rollouts[name], expected)
    assert found.messages == []


def test_a_warning_is_a_message_once_and_no_warning(images, recwarn):
    model = made("diff")
    for layer in model.layers:  # λ is exactly 1: all rows of all images sum to zero
        layer.attention.lambda_init.fill_(1.0)
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


def test_there_is_no_pair_without_differential_attention(images):
    for f in (study.noise_pair, study.cancelled):
        with pytest.raises(ValueError, match="standard"):
            f(made(), images)


def test_what_is_cancelled_is_the_common_part(images):
    model = made("diff")
    found = study.cancelled(model, images, batch_size=3)
    with torch.no_grad():
        a1, a2, lam = model.layers[0].attention.attention_maps(
            model.layers[0].norm1(model.embed(normalise(images)))
        )
    common = [min(x, float(lam) * y) for x, y in zip(a1.flatten().tolist(), a2.flatten().tolist())]
    rows = a1[..., 0].numel()
    assert found["overlap"][0].item() == pytest.approx(sum(common) / rows, rel=1e-4)
    entropy = -(a1 * a1.log()).sum(-1).mean().item()
    assert found["entropy of A1"][0].item() == pytest.approx(entropy, rel=1e-4)
    model.layers[-1].attention.lambda_init.fill_(-9.0)  # then the maps are added
    assert study.cancelled(model, images)["overlap"][-1] == 0


def test_the_peak_share_counts_weights_of_both_signs():
    maps = torch.full((2, 20), 0.5)
    assert study.peak_share(maps).tolist() == pytest.approx([0.1, 0.1])
    maps[1, 3:5] = torch.tensor([-5.0, 5.0])
    assert study.peak_share(maps).tolist() == pytest.approx([0.1, 10 / 19])
    assert study.peak_share(-maps).tolist() == study.peak_share(maps).tolist()


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # torch's RMSNorm under autocast
def test_areas_are_the_scores(images):
    model = made()
    maps = {"a map": study.attention_of(model, images).rollouts["rollout"]}
    found = study.perturb(model, images, maps, steps=4)
    assert list(found) == ["a map", "random order"]
    deletion, insertion = found["a map"]
    x = normalise(images)
    with study.autocast(x.device):
        for insert, got in ((False, deletion), (True, insertion)):
            share, curve = rollout.perturbation_curve(model, x, maps["a map"], insert, steps=4)
            expected = torch.trapezoid(curve, share, dim=1)
            torch.testing.assert_close(got, expected, rtol=0, atol=0.02)
    assert not torch.equal(deletion, insertion)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_a_study_has_a_number_for_every_layer_and_map(images):
    found = study.study(made("diff"), images, steps=2)
    assert all(len(values) == 3 for values in found["layers"].values())
    assert {"entropy", "concentration", "overlap", "lambda"} <= found["layers"].keys()
    scores = found["scores"]
    random = scores.pop("random order")
    assert scores.keys() == {"CLS, last layer", "rollout, normalised", "rollout, clamped"}
    for s in scores.values():  # both gains are better when positive
        gains = random["deletion"] - s["deletion"], s["insertion"] - random["insertion"]
        got = s["deletion gain"]["mean"], s["insertion gain"]["mean"]
        assert got == pytest.approx(gains, abs=1e-3)
