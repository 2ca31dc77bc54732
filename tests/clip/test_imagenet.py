# LLM-assisted: prompts P3, P12, P15, see report.md
"""The classes are WordNet's, and Keras's ResNet-50 computes in torchvision's module what it was."""

import json
import shutil
from itertools import pairwise
from unittest.mock import Mock

import pytest
import torch
from timm.data import ImageNetInfo
from torch.nn import functional as F
from torchvision.transforms.functional import to_pil_image

from cvassign import assets
from cvassign.clip import imagenet

torch.set_num_threads(1)
WNID = {name: c.wnid for c in reversed(imagenet.classes()) for name in c.lemmas}


def test_classes_are_the_thousand_in_order():
    classes, timms = imagenet.classes(), ImageNetInfo()
    assert [c.wnid for c in classes] == timms.label_names()
    words = [timms.index_to_description(i) for i in range(1000)]
    assert [", ".join(c.lemmas) for c in classes] == words and words[292].startswith("tiger, ")
    assert len(imagenet.class_names()) == 1000


def test_paths_lead_from_entity_to_the_class():
    known = imagenet.synsets()
    for c in imagenet.classes():
        assert [*imagenet.paths(c.wnid)] == sorted(imagenet.paths(c.wnid), key=len)
        for path in imagenet.paths(c.wnid):
            assert known[path[0]].lemmas == ["entity"] and path[-1] == c.wnid
            assert all(a in known[b].hypernyms for a, b in pairwise(path))
    tiger = [known[w].lemmas[0] for w in imagenet.paths("n02129604")[0]]
    assert tiger[-3:] == ["feline", "big cat", "tiger"]
    with pytest.raises(KeyError, match="got 'n00000000'"):
        imagenet.paths("n00000000")


def test_branches_and_common_hypernyms():
    found = [imagenet.branch(WNID[name]) for name in ("beagle", "banjo", "bullfrog")]
    assert found == ["dog", "musical instrument", "amphibian"]
    assert imagenet.branch("n02704792") == "vehicle"  # "amphibian, amphibious vehicle"
    meet = {("beagle", "tiger"): "carnivore", ("Siberian husky", "malamute"): "sled dog"}
    meet |= {("tank suit", "maillot"): "clothing", ("tiger", "tiger"): "tiger"}
    for (a, b), common in meet.items():
        found = imagenet.lowest_common_hypernyms(WNID[a], WNID[b])
        assert common in [imagenet.synsets()[w].lemmas[0] for w in found], (a, b)


def keras_forward(t: dict, rgb: torch.Tensor) -> torch.Tensor:
    """Keras's ResNet-50 written out: BGR, biases, strides in the first 1 x 1 convolution. An empty
    `t` is filled with random tensors."""

    def conv_bn(x, name, n, size=1, stride=1, padding=0):
        conv, bn = (f"res{name}", f"bn{name}") if name != "conv1" else ("conv1", "bn_conv1")
        kernel = torch.randn(size, size, x.shape[1], n) / (size * x.shape[1] ** 0.5)
        kernel = t.setdefault(f"{conv}/kernel", kernel).permute(3, 2, 0, 1)
        x = F.conv2d(x, kernel, t.setdefault(f"{conv}/bias", torch.randn(n)), stride, padding)
        parts = ("moving_mean", "moving_variance", "gamma", "beta")
        stats = (t.setdefault(f"{bn}/{p}", 0.5 + torch.rand(n)) for p in parts)
        return F.batch_norm(x, *stats, eps=1e-3)

    x = 255 * rgb.flip(1) - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    x = F.max_pool2d(F.pad(conv_bn(x, "conv1", 64, 7, 2, 3).relu(), [1] * 4), 3, 2)
    for s, (blocks, n) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512)), start=2):
        for letter in "abcdef"[:blocks]:
            stride = 2 if letter == "a" and s > 2 else 1
            name = f"{s}{letter}_branch"
            y = conv_bn(x, f"{name}2a", n, stride=stride).relu()
            y = conv_bn(conv_bn(y, f"{name}2b", n, 3, padding=1).relu(), f"{name}2c", 4 * n)
            x = (y + (conv_bn(x, f"{name}1", 4 * n, 1, stride) if letter == "a" else x)).relu()
    x = x.mean((2, 3)) @ t.setdefault("fc1000/kernel", torch.randn(2048, 1000))
    return x + t.setdefault("fc1000/bias", torch.randn(1000))


def test_keras_weights_compute_the_same_and_answers_are_named_and_kept(tmp_path, monkeypatch):
    torch.manual_seed(0)
    keras_forward(tensors := {}, torch.zeros(1, 3, 32, 32))
    data = b"".join(t.numpy().tobytes() for t in tensors.values())
    shapes = [{"name": n, "shape": list(t.shape)} for n, t in tensors.items()]
    manifest = {"weightsManifest": [{"paths": ["one.bin", "two.bin"], "weights": shapes}]}
    (folder := tmp_path / "package/ResNet50").mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "one.bin").write_bytes(data[:1001])
    (folder / "two.bin").write_bytes(data[1001:])
    path = shutil.make_archive(tmp_path / "package", "tar", tmp_path, "package")
    fetched = Mock(side_effect=[assets.AssetError("no torchvision's"), path])
    monkeypatch.setattr(assets, "fetch", fetched)
    classifier = imagenet.load_resnet50(cache=tmp_path / "cache")
    fetched.assert_called_with("resnet50-keras")
    pixels = torch.randint(256, (3, 256, 256)).byte()
    picture = to_pil_image(pixels)
    (ours,) = classifier.logits([picture])
    with torch.inference_mode():
        (theirs,) = keras_forward(tensors, pixels[None, :, 16:240, 16:240] / 255)
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    (((name, probability), *_),) = classifier.topk([picture], k=3)
    assert name == imagenet.class_names()[theirs.argmax()]
    assert probability == pytest.approx(theirs.softmax(0).max().item())
    monkeypatch.setattr(classifier.model.fc, "forward", lambda x: torch.zeros(len(x), 1000))
    assert torch.equal(classifier.logits([picture])[0], ours)  # kept, not computed
    assert len(list((tmp_path / "cache").iterdir())) == 1
