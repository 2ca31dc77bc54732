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


@pytest.mark.parametrize("attention", ("standard", "diff"))
def test_parts_give_what_the_whole_gives(attention, images):
    model = made(attention)
    found = study.attention_of(model, images, batch_size=3)
    with torch.no_grad():
        _, maps = model(normalise(images), return_attention=True)
        x = model.embed(normalise(images))
        second = model.layers[0](x)
    torch.testing.assert_close(found["cls"], rollout.cls_attention(maps))
    rolled = [name for name in found if "rollout" in name]
    assert len(rolled) == {"standard": 2, "diff": 3}[attention]
    for name in rolled:  # which says what it is
        signed = next((way for way in ("normalise", "clamp") if way in name), "error")
        whole = rollout.attention_rollout(maps, "mean", "no identity" not in name, signed)
        torch.testing.assert_close(found[name][0], rollout.rollout_map(whole))
    torch.testing.assert_close(found["entropy"].mean(1), rollout.attention_entropy(maps))
    torch.testing.assert_close(found["negative"].mean(1), rollout.negative_share(maps))
    assert (found["negative"] > 0).all() == (attention != "standard")
    for tokens, norms in zip((x, second), found["norms"]):
        torch.testing.assert_close(norms, tokens[:, 1:].norm(dim=-1))


def test_what_is_cancelled_is_the_common_part_of_what_the_model_subtracts(images):
    model = made("diff")
    found, layer = study.attention_of(model, images, batch_size=3), model.layers[0]
    with torch.no_grad():
        x = layer.norm1(model.embed(normalise(images)))
        a1, a2, lam = layer.attention.attention_maps(x)
    others = a2[[2, 0, 1, 4, 3, 6, 5]]  # neighbours in parts of 3, 2 and 2, never the image itself
    positive = (a1 - lam * a2).clamp(min=1e-30)
    positive /= positive.sum(-1, keepdim=True)
    for name, of_all in {
        "overlap": a1.minimum(lam * a2),
        "overlap with another image": a1.minimum(lam * others),
        "entropy of A1": -a1 * a1.log(),
        "entropy of the positive part": -positive * positive.log(),
    }.items():
        torch.testing.assert_close(found[name][0], of_all.sum(-1).mean((1, 2)))
    assert (study.cancelled(a1, a2, -lam)["overlap"] == 0).all()  # then the maps are added
    for i in (0, 1, -1):
        pair = study.noise_pair(model, images, i)
        torch.testing.assert_close(pair["A1 − λA2"][0], found["cls"][i])
        torch.testing.assert_close(pair["A1"] - pair["λA2"], pair["A1 − λA2"])
    with pytest.raises(ValueError, match="expected attention 'diff', got 'standard'"):
        study.noise_pair(made(), images)


def test_long_tokens_are_found_where_they_are():
    torch.manual_seed(0)
    norms = 1 + 0.1 * torch.rand(2, 5, 16)  # 2 layers, 5 images
    norms[..., (corners := [0, 3, 12, 15])] *= 3
    cls = torch.stack([norms[0], -1 / norms[1]]).unsqueeze(2)  # one head; only the size counts
    found, inner, border = study.tokens(norms, cls), [5, 6, 9, 10], [1, 2, 4, 7, 8, 11, 13, 14]
    for place, patches in {"corner": corners, "border": border, "inner": inner}.items():
        values = (norms[1] / norms[1].mean(-1, keepdim=True))[:, patches].mean(1)
        mean, half = values.mean().item(), 1.96 * values.std().item() / 5**0.5
        assert found["length"][place][1] == pytest.approx([mean, mean - half, mean + half])
    assert found["length"]["corner"][1][0] < found["longest"][1][0]
    assert found["attention"]["corner"][0][0] > 1 > found["attention"]["corner"][1][0]
    assert [r[0] for r in found["rank correlation"]] == pytest.approx([1, -1], abs=1e-5)


def test_gains_are_positive_for_the_better_map():
    flat = torch.full((4, 3), 0.5)
    falling, rising = (torch.tensor([[0.5, p, 0.5]] * 4) for p in (0.1, 0.8))
    curves = {study.CLS: (flat, flat), "good": (falling, rising), study.CENTRE: (flat, rising)}
    found = study.scores(curves | {study.RANDOM: (flat + 0.1, flat - 0.1)})
    good = found["good"]
    assert (good["deletion"], good["insertion"]) == pytest.approx((30, 65))  # trapezoids, percent
    assert good["curves"][0] == pytest.approx([50, 10, 50])
    for words, gains in (("", (30, 25)), (" over CLS", (20, 15)), (" over the centre", (20, 0))):
        got = [good[f"{way} gain{words}"]["mean"] for way in ("deletion", "insertion")]
        assert got == pytest.approx(gains)
    gains = {name: sum("deletion gain" in key for key in row) for name, row in found.items()}
    assert gains == {study.RANDOM: 0, study.CENTRE: 1, study.CLS: 2, "good": 3}
    away = study.central_maps(torch.zeros(2, 16))[1].argsort(stable=True)
    assert away.tolist() == [0, 3, 12, 15, 1, 2, 4, 7, 8, 11, 13, 14, 5, 6, 9, 10]


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # torch's RMSNorm under autocast
def test_a_study_has_a_number_for_every_layer_and_map(images):
    model, x, rolled = made("diff"), normalise(images), study.ROLLOUTS["Diff-ViT"]
    found = study.study(model, images, steps=2)
    assert all(len(values) == 3 for values in found["layers"].values())
    size = study.attention_of(model, images)["cls"].abs()  # to 16 patches, of which a tenth are two
    shares = (size.sort().values[..., 14:].sum(-1) / size.sum(-1)).mean((1, 2))
    assert found["layers"]["concentration"] == pytest.approx(shares.tolist())
    assert all(len(of_layers) == 3 for of_layers in found["tokens"]["length"].values())
    assert [*found["scores"]] == [study.CLS, study.SIZE, *rolled, study.CENTRE, study.RANDOM]
    assert found["scores"][study.RANDOM]["curves"] != found["scores"][study.CLS]["curves"]
    for name in rolled:
        maps = study.attention_of(model, images)[name][0]
        for insert, got in enumerate(found["scores"][name]["curves"]):
            with study.autocast(x.device):
                _, curve = rollout.perturbation_curve(model, x, maps, bool(insert), steps=2)
            assert got == pytest.approx(100 * curve.mean(0).numpy(), abs=0.5)


def test_clean_accuracy_is_that_of_each_split():
    model, data = made(), load_generated()
    for name, (mean, low, high) in study.clean_accuracy(model, data).items():
        assert mean == pytest.approx(evaluate(model, getattr(data, name))[1], abs=1e-3)
        assert low < mean < high
