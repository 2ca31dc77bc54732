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

from cvassign.clip import imagenet

torch.set_num_threads(1)


def test_classes_are_the_thousand_in_order():
    classes = imagenet.classes()
    assert [c.wnid for c in classes] == ImageNetInfo().label_names()
    assert classes[292].lemmas == ("tiger", "Panthera tigris")
    descriptions = ImageNetInfo()
    for i, c in enumerate(classes):  # timm's own words for the same synsets
        assert ", ".join(c.lemmas) == descriptions.index_to_description(i)
    assert len(imagenet.class_names()) == 1000


def test_paths_lead_from_entity_to_the_class():
    known = imagenet.synsets()
    for c in imagenet.classes():
        for path in imagenet.paths(c.wnid):
            assert known[path[0]].lemmas == ("entity",) and path[-1] == c.wnid
            assert all(a in known[b].hypernyms for a, b in pairwise(path))
    tiger = [known[w].lemmas[0] for w in imagenet.paths("n02129604")[0]]
    assert tiger[-3:] == ["feline", "big cat", "tiger"]
    with pytest.raises(KeyError, match="got 'n00000000'"):
        imagenet.paths("n00000000")


def test_branches_and_common_hypernyms():
    index = {c.lemmas[0]: c.wnid for c in imagenet.classes()}
    known = {"beagle": "dog", "banjo": "musical instrument", "bullfrog": "amphibian"}
    for name, branch in known.items():
        assert imagenet.branch(index[name]) == branch
    assert imagenet.branch("n02704792") == "vehicle"  # "amphibian, amphibious vehicle"
    index = {name: c.wnid for c in reversed(imagenet.classes()) for name in c.lemmas}
    for a, b, common in (
        ("beagle", "tiger", "carnivore"),
        ("Siberian husky", "malamute", "sled dog"),
        ("golden retriever", "Labrador retriever", "retriever"),
        ("tabby", "Persian cat", "domestic cat"),
        ("tank suit", "maillot", "clothing"),
    ):
        found = imagenet.lowest_common_hypernyms(index[a], index[b])
        assert common in [imagenet.synsets()[w].lemmas[0] for w in found], (a, b)
    assert imagenet.lowest_common_hypernyms(index["tiger"], index["tiger"]) == [index["tiger"]]


@pytest.fixture(scope="module")
def keras_package(tmp_path_factory):
    """A package of the right form with random tensors, as .tgz, and its tensors."""
    torch.manual_seed(0)
    tensors = {}

    def layer(conv, bn, size, n_in, n_out):
        tensors[f"{conv}/kernel"] = torch.randn(size, size, n_in, n_out) / (size * n_in**0.5)
        tensors[f"{conv}/bias"] = torch.randn(n_out)
        for part in ("gamma", "moving_variance"):
            tensors[f"{bn}/{part}"] = torch.rand(n_out) + 0.5
        for part in ("beta", "moving_mean"):
            tensors[f"{bn}/{part}"] = torch.randn(n_out)

    layer("conv1", "bn_conv1", 7, 3, 64)
    n_in = 64
    for s, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512)), start=2):
        for letter in "abcdef"[:blocks]:
            stems = [f"{s}{letter}_branch{p}" for p in ("1", "2a", "2b", "2c")]
            names = [(f"res{stem}", f"bn{stem}") for stem in stems]
            if letter == "a":
                layer(*names[0], 1, n_in, 4 * width)
            layer(*names[1], 1, n_in, width)
            layer(*names[2], 3, width, width)
            layer(*names[3], 1, width, 4 * width)
            n_in = 4 * width
    tensors["fc1000/kernel"], tensors["fc1000/bias"] = torch.randn(2048, 1000), torch.randn(1000)
    data = b"".join(t.numpy().tobytes() for t in tensors.values())
    cut = len(data) // 8 * 4 + 4
    shapes = [{"name": n, "shape": list(t.shape)} for n, t in tensors.items()]
    manifest = {"weightsManifest": [{"paths": ["one.bin", "two.bin"], "weights": shapes}]}
    files = {"model.json": json.dumps(manifest).encode()}
    files |= {"one.bin": data[:cut], "two.bin": data[cut:]}
    path = tmp_path_factory.mktemp("keras") / "package.tgz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/ResNet50/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path, tensors


def keras_forward(t: dict, rgb: torch.Tensor) -> torch.Tensor:
    """Keras's ResNet-50 written out: BGR, biases, strides in the first 1 x 1 convolution."""

    def conv_bn(x, conv, bn, stride=1, padding=0):
        x = F.conv2d(x, t[f"{conv}/kernel"].permute(3, 2, 0, 1), t[f"{conv}/bias"], stride, padding)
        stats = (t[f"{bn}/{p}"] for p in ("moving_mean", "moving_variance", "gamma", "beta"))
        return F.batch_norm(x, *stats, eps=1e-3)

    x = 255 * rgb.flip(1) - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    x = F.max_pool2d(F.pad(conv_bn(x, "conv1", "bn_conv1", 2, 3).relu(), [1] * 4), 3, 2)
    for s, blocks in zip((2, 3, 4, 5), (3, 4, 6, 3)):
        for letter in "abcdef"[:blocks]:
            stride = 2 if letter == "a" and s > 2 else 1
            r, b = f"res{s}{letter}_branch", f"bn{s}{letter}_branch"
            y = conv_bn(x, f"{r}2a", f"{b}2a", stride).relu()
            y = conv_bn(conv_bn(y, f"{r}2b", f"{b}2b", padding=1).relu(), f"{r}2c", f"{b}2c")
            x = (y + (conv_bn(x, f"{r}1", f"{b}1", stride) if letter == "a" else x)).relu()
    return x.mean((2, 3)) @ t["fc1000/kernel"] + t["fc1000/bias"]


def test_keras_weights_compute_the_same(keras_package):
    path, tensors = keras_package
    classifier = imagenet.from_keras(path)
    rgb = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    normalise = classifier.preprocess.transforms[-1]
    with torch.inference_mode():
        ours, theirs = classifier.model(normalise(rgb)), keras_forward(tensors, rgb)
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


def test_classifier_names_its_answers(keras_package, tmp_path, monkeypatch):
    def fetch(name):
        if name != "resnet50-keras":
            raise imagenet.assets.AssetError(name)
        return keras_package[0]

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
