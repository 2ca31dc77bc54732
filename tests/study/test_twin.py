# LLM-assisted: prompts P4, P9, P14, P15, see report.md
"""The loss is CLIP's, training learns and repeats, the stored twin is the trained one, no source is
in two parts, and an icon gets the class that its name says."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

from cvassign.clip import gallery, imagenet
from cvassign.study import half, twin, twin_study

torch.set_num_threads(1)


def picture(index: int, kind: str = "photo", source: str = "openclipart", stem: str = "x"):
    path = Path(f"{stem}.png")
    return gallery.Picture(path, index, (index,), kind, kind, source, "CC0", "a", True)


def classifier(fc: nn.Linear, *layers: nn.Module) -> imagenet.Classifier:
    network, transform = nn.Sequential(*layers), imagenet.preprocessing((0.5,) * 3, (0.2,) * 3)
    network.fc = fc
    return imagenet.Classifier("some ResNet-50", network.eval(), transform)


def test_loss_is_clips_when_all_differ_and_does_not_push_equal_things_apart():
    torch.manual_seed(0)
    a, b = (F.normalize(torch.randn(6, 8), dim=-1) for _ in range(2))
    logits, right = 20 * a @ b.T, torch.arange(6)
    expected = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    assert torch.allclose(twin.contrastive_loss(a, b, right, torch.tensor(20.0)), expected)
    image, labels = torch.eye(3)[[0, 0, 1]], torch.tensor([4, 4, 7])
    same = twin.contrastive_loss(image, image, labels, torch.tensor(50.0))
    assert same == pytest.approx(np.log(2) * 2 / 3, abs=1e-5)  # two are right
    assert twin.contrastive_loss(image, image.roll(1, 0), labels, torch.tensor(50.0)) > 5


@pytest.fixture(scope="module")
def toy():
    """Ten classes: features around a centre each, three sentences around another centre each."""
    torch.manual_seed(0)
    labels = torch.arange(10).repeat(20)
    features = torch.rand(10, 64)[labels] + 0.2 * torch.rand(200, 64)
    texts = torch.randn(10, 1, 16) + 0.1 * torch.randn(10, 3, 16)
    return features, labels, F.normalize(texts, dim=-1)


def accuracy(head, toy):
    return (head(toy[0]).argmax(-1) == toy[1]).double().mean().item()


def new_head(toy):
    torch.manual_seed(5)
    classes = F.normalize(toy[2].mean(1), dim=-1)
    return twin.Head(nn.Linear(64, 10), classes, twin.TwinConfig())


def test_training_learns_and_repeats(toy):
    config = twin.TwinConfig(batch_size=32, max_epochs=20, lr=1e-3)
    heads = [new_head(toy) for _ in range(3)]
    fixed = heads[0].fixed[0].weight.clone()
    for i, (head, seed) in enumerate(zip(heads, (0, 0, 1))):
        torch.manual_seed(i)  # the world's random numbers play no part
        scores = twin.train(head, toy, lambda head: accuracy(head, toy), config, seed)
    assert accuracy(head, toy) == max(scores) > 0.95
    assert torch.equal(head.fixed[0].weight, fixed)  # the classifier's layer is never trained
    first, again, other = (head.project.weight for head in heads)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_early_stopping_keeps_the_best_and_a_score_must_be_a_number(toy):
    scores, states = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.1]), []

    def score(head):
        states.append([p.detach().clone() for p in head.parameters()])
        return next(scores)

    head = new_head(toy)
    assert len(twin.train(head, toy, score, twin.TwinConfig(patience=3), 0)) == 5
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), states[1]))
    with pytest.raises(ValueError, match="expected a finite score, got nan"):
        twin.train(head, toy, lambda head: float("nan"), twin.TwinConfig(), 0)


def test_untrained_head_says_what_the_classifier_says():
    torch.manual_seed(0)
    fc, features = nn.Linear(64, 20), 3 * torch.rand(50, 64)
    classes = F.normalize(torch.randn(20, 32), dim=-1)  # more room than classes: nothing is lost
    words = twin.put_into_words(classes, ridge=1e-6)
    p = fc(features).softmax(-1)
    again, expected = (z - z.mean(1, keepdim=True) for z in (p @ words @ classes.T, p))
    assert torch.allclose(again, expected, atol=1e-3)
    head = twin.Head(fc, classes, twin.TwinConfig(ridge=1e-6))
    assert torch.equal(head(features).argmax(-1), p.argmax(-1))
    large = twin.put_into_words(classes, ridge=1e6)  # the class vectors themselves, centred
    centred = classes - classes.mean(0)
    assert torch.allclose(F.normalize(large, dim=-1), F.normalize(centred, dim=-1), atol=1e-4)


def test_stored_twin_is_the_trained_one(tmp_path):
    torch.manual_seed(0)
    fc, pool = nn.Linear(2048, 1000), nn.AdaptiveAvgPool2d(1)
    trunk = classifier(fc, nn.Conv2d(3, 2048, 32, 32), nn.ReLU(), pool, nn.Flatten())
    config, classes = twin.TwinConfig(), F.normalize(torch.randn(1000, 384), dim=-1)
    head = twin.Head(fc, classes, config)
    nn.init.normal_(head.project.weight, std=0.1)  # as if trained
    with pytest.raises(FileNotFoundError, match="python -m cvassign.study.twin_study"):
        twin.load(trunk, tmp_path)
    twin.save(head, config, trunk.name, tmp_path)
    image = Image.effect_noise((260, 300), 80).convert("RGB")
    loaded = twin.load(trunk, tmp_path)
    features, found = trunk.model[:-1](trunk.preprocess(image)[None]), loaded.logits([image])
    expected = head.scale * head.embed(features) @ classes.T
    assert torch.allclose(found, expected, atol=0.05)  # half precision
    assert loaded.name == twin.NAME and trunk.model.fc is fc  # a copy was made
    low = half.lower(loaded, "bf16")
    assert low.model.fc.project.weight.dtype == torch.bfloat16
    assert torch.allclose(low.logits([image]), found, atol=0.5)
    with pytest.raises(ValueError, match="belongs to some ResNet-50, the network here is another"):
        twin.load(replace(trunk, name="another"), tmp_path)


def test_each_source_has_one_part_and_held_out_ones_are_the_tests():
    parts = {"debian:tuxpaint 1": ["test"], "github:ajschumacher/imagen": ["test"]}
    parts |= {"npm:twemoji": ["train"], "a user's/photos": [], "Caltech101": ["validation"]}
    assert {source: twin.parts(source) for source in parts} == parts
    held_out = twin.held_out([picture(0, source=source) for source in parts])
    assert [p.source for p in held_out] == [s for s in parts if parts[s] in (["test"], [])]
    # what the project's gallery measures on is never trained on, by the words of either list
    assert all(s in twin.PARTS["test"] for s in gallery.SOURCES)


def test_stored_study_is_that_of_the_stored_head():
    study = json.loads((twin.FOLDER / "twin.json").read_bytes())
    made = safe_open(twin.FOLDER / twin.HEAD, "pt").metadata()
    assert list(study["variants"]) == list(twin_study.VARIANTS) and study["trunk"] == made["trunk"]
    first = study["variants"]["with renditions"]["config"]
    assert json.loads(made["config"]).items() <= first.items()  # some settings came since


def test_study_trains_every_variant_and_keeps_the_first_of_all(monkeypatch, capsys):
    torch.manual_seed(0)
    centres, pictures, features = torch.rand(20, 64), {}, {}
    for part, n in (("train", 6), ("validation", 2), ("test", 2)):
        sources = ["npm:openmoji", *["npm:x"] * (n - 1)]
        pictures[part] = [picture(*of) for of in product(range(20), twin_study.KINDS, sources)]
        features[part] = centres.repeat_interleave(2 * n, 0) + torch.rand(40 * n, 64)
    sentences = F.normalize(torch.randn(20, 1, 16) + 0.1 * torch.randn(20, 7, 16), dim=-1)
    trunk, saved = classifier(nn.Linear(64, 20)), []
    monkeypatch.setattr(twin, "save", lambda *what: saved.append(what))
    for label, config in twin_study.VARIANTS.items():
        monkeypatch.setitem(twin_study.VARIANTS, label, replace(config, lr=1e-3, batch_size=16))
    out = twin_study.study(trunk, pictures, features, sentences, None)
    assert [v["pairs"] for v in out["variants"].values()] == [240, 120, 200]

    def rates(head, part):
        top = head(features[part]).topk(5).indices.tolist()
        right = [(p.kind, p.index in of) for p, of in zip(pictures[part], top)]
        return [np.mean([hit for k, hit in right if k == kind]) for kind in twin_study.KINDS]

    ((head, *_),), trained = saved, out["variants"]["with renditions"]
    assert [*out["classifier"].values()] == pytest.approx(rates(trunk.model.fc, "test"))
    assert [trained[k]["values"][0] for k in twin_study.KINDS] == pytest.approx(rates(head, "test"))
    assert min(v["photo"]["mean"] for v in out["variants"].values()) > 0.9
    told = float(capsys.readouterr().out.split()[5])  # of validation, which chooses the epoch
    assert told == pytest.approx(np.mean(rates(head, "validation")), abs=1e-3)


def test_a_copy_is_a_near_picture_of_the_same_class_and_none_that_is_measured_is_trained_on():
    cos = torch.tensor([1.0, 0.96, 0.94])  # of the pictures with the first; COPY lies between
    x = torch.stack([cos, (1 - cos**2).sqrt()], dim=1) * torch.tensor([[3.0], [1.0], [2.0]])
    far, one, other = -x[:1], picture(1), picture(2)
    assert twin_study.originals(x[:2], [one, other], far) == [True, True]
    assert twin_study.originals(x, [one] * 3, far) == [True, False, True]
    assert twin_study.originals(x, [one, one, other], x[:1]) == [False, True, True]


def test_icons_are_named_by_classes_and_their_emoji():
    tiger = picture(292, source="npm:openmoji", stem="tiger-face")
    found = twin_study.icon_names([tiger, *map(picture, (478, 134, 348))])
    expected = {"tiger-face": 292, "cardboard-box": 478, "carton": 478, "crane-bird": 134}
    assert {n: p.index for n, p in found.items()} == expected | {"ram": 348}
    other = picture(288, source="npm:twemoji", stem="tiger-face")  # a name of two classes
    assert "tiger-face" not in twin_study.icon_names([tiger, other])


def test_aliases_are_followed_and_one_drawing_counts_once(tmp_path):
    pytest.importorskip("resvg_py")
    wanted = {n: picture(i) for i, n in enumerate(("box", "carton", "piano", "tiger"))}
    square = {"body": '<path fill="currentColor" d="M0 0h24v24H0z"/>'}
    content = {"width": 24, "height": 24, "icons": {"box": square, "piano": {"body": "<g/>"}}}
    content["aliases"] = {"carton": {"parent": "box"}, "tiger": {"parent": "box", "hFlip": True}}
    got = twin_study.icon_set(content, "mdi", wanted, tmp_path)
    assert [(p.path.name, p.index) for p in got] == [("box.png", 0), ("piano.png", 2)]
    assert twin.parts(got[0].source) == ["train"]
    drawn = np.asarray(Image.open(got[0].path))[..., 0] < 128  # black on white, within its margin
    assert drawn.shape == (twin_study.SIZE,) * 2 and not drawn[0].any()
    assert drawn.any(1).sum() == pytest.approx(twin_study.SIZE / (1 + 2 * twin_study.MARGIN), abs=2)


def test_a_set_has_a_part_by_its_hand_its_kind_and_its_licence():
    for prefix, category, licence, part in (
        ("mdi", "Material", "Apache-2.0", "train"),
        ("lucide", "UI 24px", "ISC", "validation"),
        ("lucide-lab", "UI 24px", "ISC", None),
        ("simple-icons", "Logos", "CC0-1.0", None),
        ("ps", "General", "CC-BY-NC-4.0", None),
    ):
        about = {"license": {"spdx": licence}, "category": category}
        assert twin_study.icon_part(prefix, about) == part
