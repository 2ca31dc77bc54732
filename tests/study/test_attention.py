# LLM-assisted: prompts P2, P13, P15, see report.md
"""What the study says of many images is what the formulas say of all of them at once."""

import pytest
import torch

from cvassign import rollout
from cvassign.data import load_generated, normalise
from cvassign.study import attention as study
from cvassign.train import evaluate
from cvassign.vit import VisionTransformer, ViTConfig


def made(attention="standard", **changes):
    torch.manual_seed(0)
    fields = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 4, "mlp_ratio": 1.0}
    model = VisionTransformer(ViTConfig(attention=attention, **fields | changes)).eval()
    for p in model.parameters():  # as made, all attention is almost alike
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.fixture(scope="module")
def images():
    return torch.randint(256, (7, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()


MAPS = {
    "standard": {"rollout": ("error", True), "rollout, no identity": ("error", False)},
    "diff": {
        "rollout, normalised": ("normalise", True),
        "rollout, clamped": ("clamp", True),
        "rollout, clamped, no identity": ("clamp", False),
    },
}


@pytest.mark.parametrize("attention", MAPS)
def test_parts_give_what_the_whole_gives(attention, images):
    model = made(attention)
    found = study.attention_of(model, images, batch_size=3)
    with torch.no_grad():
        _, maps = model(normalise(images), return_attention=True)
        x = model.embed(normalise(images))
        second = model.layers[0](x)
    expected = {"cls": rollout.cls_attention(maps)}
    for name, (signed, residual) in MAPS[attention].items():
        whole = rollout.attention_rollout(maps, signed=signed, residual=residual)
        expected[name] = rollout.rollout_map(whole)[None]
    assert [name for name in found if "rollout" in name] == list(MAPS[attention])
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    torch.testing.assert_close(found["entropy"].mean(1), rollout.attention_entropy(maps))
    torch.testing.assert_close(found["negative"].mean(1), rollout.negative_share(maps))
    assert (found["negative"] > 0).all() == (attention != "standard")
    for tokens, norms in zip((x, second), found["norms"]):
        torch.testing.assert_close(norms, tokens[:, 1:].norm(dim=-1))
    with pytest.raises(ValueError, match="at least one"):
        study.attention_of(model, images[:0])


@pytest.mark.parametrize("layer", (0, 1, -1))
def test_the_pair_of_maps_is_what_the_model_subtracts(layer, images):
    model = made("diff")
    pair = study.noise_pair(model, images, layer)
    assert list(pair) == ["A1", "λA2", "A1 − λA2"]
    signed = study.attention_of(model, images)["cls"][layer]
    torch.testing.assert_close(pair["A1 − λA2"][0], signed)
    torch.testing.assert_close(pair["A1"] - pair["λA2"], pair["A1 − λA2"])
    assert pair["A1"].min() >= 0 and pair["λA2"].min() >= 0
    with pytest.raises(ValueError, match="expected attention 'diff', got 'standard'"):
        study.noise_pair(made(), images, layer)


def test_what_is_cancelled_is_the_common_part(images):
    model = made("diff")
    found, layer = study.attention_of(model, images, batch_size=3), model.layers[0]
    with torch.no_grad():
        x = layer.norm1(model.embed(normalise(images)))
        a1, a2, lam = layer.attention.attention_maps(x)
    others = a2[[2, 0, 1, 4, 3, 6, 5]]  # neighbours in parts of 3, 2 and 2, never the image itself
    for name, second in (("overlap", a2), ("overlap with another image", others)):
        common = torch.where(a1 < lam * second, a1, lam * second).sum(-1).mean((1, 2))
        torch.testing.assert_close(found[name][0], common)
    entropy = -(a1 * a1.log()).sum(-1).mean((1, 2))
    torch.testing.assert_close(found["entropy of A1"][0], entropy)
    assert (study.cancelled(a1, a2, -lam)["overlap"] == 0).all()  # then the maps are added


def test_the_peak_share_counts_weights_of_both_signs():
    maps = torch.full((2, 20), 0.5)
    assert study.peak_share(maps).tolist() == pytest.approx([0.1, 0.1])
    maps[1, 3:5] = torch.tensor([-5.0, 5.0])
    assert study.peak_share(maps).tolist() == pytest.approx([0.1, 10 / 19])
    assert study.peak_share(-maps).tolist() == study.peak_share(maps).tolist()


def test_places_of_a_grid():
    found = {name: mask.view(4, 4).int().tolist() for name, mask in study.places(4).items()}
    assert found["corner"] == [[1, 0, 0, 1], [0] * 4, [0] * 4, [1, 0, 0, 1]]
    assert found["border"] == [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]]
    assert found["inner"] == [[0] * 4, [0, 1, 1, 0], [0, 1, 1, 0], [0] * 4]


def test_long_tokens_are_found_where_they_are():
    torch.manual_seed(0)
    norms = 1 + 0.1 * torch.rand(2, 5, 16)  # 2 layers, 5 images
    norms[..., study.places(4)["corner"]] *= 3
    cls = torch.stack([norms[0], -1 / norms[1]]).unsqueeze(2)  # one head; only the size counts
    found = study.tokens(norms, cls)
    values = (norms[1] / norms[1].mean(-1, keepdim=True))[:, [0, 3, 12, 15]].mean(1)
    mean, half = values.mean().item(), 1.96 * values.std().item() / 5**0.5
    assert found["length"]["corner"][1] == pytest.approx([mean, mean - half, mean + half])
    assert found["length"]["inner"][1][0] < 1 < 1.5 < mean < found["longest"][1][0]
    assert found["attention"]["corner"][0][0] > 1 > found["attention"]["corner"][1][0]
    assert [r[0] for r in found["rank correlation"]] == pytest.approx([1, -1], abs=1e-5)


def test_gains_are_positive_for_the_better_map():
    flat = torch.full((4, 3), 0.5)
    falling, rising = (torch.tensor([[0.5, p, 0.5]] * 4) for p in (0.1, 0.8))
    curves = {study.CLS: (flat, flat), "good": (falling, rising)}
    found = study.scores(curves | {study.RANDOM: (flat + 0.1, flat - 0.1)})
    good = found["good"]
    assert (good["deletion"], good["insertion"]) == pytest.approx((30, 65))  # trapezoids, percent
    assert good["curves"][0] == pytest.approx([50, 10, 50])
    for words, gains in (("", (30, 25)), (" over CLS", (20, 15))):
        got = [good[f"{way} gain{words}"]["mean"] for way in ("deletion", "insertion")]
        assert got == pytest.approx(gains)
    assert "deletion gain over CLS" not in found[study.CLS]
    assert not [key for key in found[study.RANDOM] if "gain" in key]


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # torch's RMSNorm under autocast
def test_a_study_has_a_number_for_every_layer_and_map(images):
    model, x, rolled = made("diff"), normalise(images), study.ROLLOUTS["Diff-ViT"]
    found = study.study(model, images, steps=2)
    assert all(len(values) == 3 for values in found["layers"].values())
    assert {"entropy", "concentration", "overlap"} <= found["layers"].keys()
    assert all(len(of_layers) == 3 for of_layers in found["tokens"]["length"].values())
    assert [*found["scores"]] == [study.CLS, f"{study.CLS}, |weight|", *rolled, study.RANDOM]
    for name in rolled:
        maps = study.attention_of(model, images)[name][0]
        for insert, got in enumerate(found["scores"][name]["curves"]):
            with study.autocast(x.device):
                _, curve = rollout.perturbation_curve(model, x, maps, bool(insert), steps=2)
            assert got == pytest.approx(100 * curve.mean(0).numpy(), abs=0.5)


def test_clean_accuracy_is_that_of_each_split():
    model, data = made(), load_generated()
    found = study.clean_accuracy(model, data)
    for name in ("train", "val", "test"):
        mean, low, high = found[name]
        assert mean == pytest.approx(evaluate(model, getattr(data, name))[1], abs=1e-3)
        assert low < mean < high
