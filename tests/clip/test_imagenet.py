# LLM-assisted: prompts P3, P12, P15, see report.md
"""The classes are WordNet's, and Keras's ResNet-50 computes in torchvision's module what it was."""

import io
import json
import tarfile
from itertools import pairwise

import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo
from torch.nn import functional as F
from torchvision.transforms.functional import to_pil_image

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
        for path in imagenet.paths(c.wnid):
            assert known[path[0]].lemmas == ["entity"] and path[-1] == c.wnid
            assert all(a in known[b].hypernyms for a, b in pairwise(path))
    tiger = [known[w].lemmas[0] for w in imagenet.paths("n02129604")[0]]
    assert tiger[-3:] == ["feline", "big cat", "tiger"]
    with pytest.raises(KeyError, match="got 'n00000000'"):
        imagenet.paths("n00000000")


def test_branches_and_common_hypernyms():
    known = {"beagle": "dog", "banjo": "musical instrument", "bullfrog": "amphibian"}
    for name, branch in known.items():
        assert imagenet.branch(WNID[name]) == branch
    assert imagenet.branch("n02704792") == "vehicle"  # "amphibian, amphibious vehicle"
    for a, b, common in (
        ("beagle", "tiger", "carnivore"),
        ("Siberian husky", "malamute", "sled dog"),
        ("tank suit", "maillot", "clothing"),
        ("tiger", "tiger", "tiger"),
    ):
        found = imagenet.lowest_common_hypernyms(WNID[a], WNID[b])
        assert common in [imagenet.synsets()[w].lemmas[0] for w in found], (a, b)


def keras_forward(t: dict, rgb: torch.Tensor) -> torch.Tensor:
    """Keras's ResNet-50 written out: BGR, biases, strides in the first 1 x 1 convolution. An empty
    `t` is filled with random tensors."""

    def conv_bn(x, name, n, size=1, stride=1, padding=0):
        conv, bn = (f"res{name}", f"bn{name}") if name != "conv1" else ("conv1", "bn_conv1")
        if f"{conv}/kernel" not in t:
            n_in = x.shape[1]
            t[f"{conv}/kernel"] = torch.randn(size, size, n_in, n) / (size * n_in**0.5)
            t.update(
                {k: torch.randn(n) for k in (f"{conv}/bias", f"{bn}/beta", f"{bn}/moving_mean")}
            )
            t.update({f"{bn}/{k}": torch.rand(n) + 0.5 for k in ("gamma", "moving_variance")})
        x = F.conv2d(x, t[f"{conv}/kernel"].permute(3, 2, 0, 1), t[f"{conv}/bias"], stride, padding)
        stats = (t[f"{bn}/{p}"] for p in ("moving_mean", "moving_variance", "gamma", "beta"))
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
    if "fc1000/kernel" not in t:
        t.update({"fc1000/kernel": torch.randn(2048, 1000), "fc1000/bias": torch.randn(1000)})
    return x.mean((2, 3)) @ t["fc1000/kernel"] + t["fc1000/bias"]


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    """A package of the right form with random tensors, and these."""
    torch.manual_seed(0)
    keras_forward(tensors := {}, torch.zeros(1, 3, 32, 32))
    data = b"".join(t.numpy().tobytes() for t in tensors.values())
    shapes = [{"name": n, "shape": list(t.shape)} for n, t in tensors.items()]
    manifest = {"weightsManifest": [{"paths": ["one.bin", "two.bin"], "weights": shapes}]}
    files = {"model.json": json.dumps(manifest).encode()}
    files |= {"one.bin": data[: len(data) // 2 + 1], "two.bin": data[len(data) // 2 + 1 :]}
    path = tmp_path_factory.mktemp("keras") / "package.tgz"
    with tarfile.open(path, "w") as tar:  # not compressed: random numbers hardly can be
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/ResNet50/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path, tensors


def test_keras_weights_compute_the_same(keras):
    path, tensors = keras
    classifier = imagenet.from_keras(path)
    pixels = torch.randint(256, (3, 256, 256), generator=torch.Generator().manual_seed(1)).byte()
    ours = classifier.logits([to_pil_image(pixels)])
    with torch.inference_mode():
        theirs = keras_forward(tensors, pixels[None, :, 16:240, 16:240] / 255)
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


def test_classifier_names_its_answers(keras, tmp_path, monkeypatch):
    def fetch(name):
        if name != "resnet50-keras":
            raise imagenet.assets.AssetError(name)
        return keras[0]

    monkeypatch.setattr(imagenet.assets, "fetch", fetch)
    classifier = imagenet.load_resnet50(cache=tmp_path)
    picture = Image.new("RGB", (300, 260), "red")
    (top,) = classifier.topk([picture], k=3)
    logits = classifier.logits([picture])[0]
    assert top[0][0] == imagenet.class_names()[logits.argmax()]
    assert top[0][1] == pytest.approx(logits.softmax(0).max().item())
    monkeypatch.setattr(classifier.model.fc, "forward", lambda x: torch.zeros(len(x), 1000))
    assert torch.equal(classifier.logits([picture])[0], logits)  # kept, not computed
    assert len(list(tmp_path.iterdir())) == 1
