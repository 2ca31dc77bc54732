# LLM-assisted: prompts P1, P8, P15, see report.md
"""CIFAR-10 as tensors that live on the training device: 184 MB, moved once. A batch is an index
into them, and no data loader has to keep up with the model."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cvassign import assets

CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
# Per-channel mean and standard deviation over all pixels of the training images, in [0, 1]. Often
# (0.2023, 0.1994, 0.2010) is given: that is the mean of each image's own deviation, which is less.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
VAL_PER_CLASS = 500  # 5,000 of the 50,000 training images validate; they are never trained on
SPLIT_SEED = 0  # one split for every run: runs are compared on the same images
CIFAR10 = "45000 + 5000 + 10000 images, SHA-256 267670f248fbe4de"  # its fingerprint, see below


@dataclass(frozen=True)
class Split:
    """Images (n, 3, S, S) uint8 and labels (n,) int64 of one split, on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test split."""

    name: str
    train: Split
    val: Split
    test: Split

    def to(self, device: str | torch.device) -> "Dataset":
        splits = self.train, self.val, self.test
        moved = (Split(s.images.to(device), s.labels.to(device)) for s in splits)
        return Dataset(self.name, *moved)


def normalise(images: Tensor) -> Tensor:
    """uint8 images (..., 3, S, S) -> float32 with zero mean and unit variance per channel."""
    mean, std = _moments(images.device)
    return (images.float() / 255 - mean) / std


@lru_cache
def _moments(device: torch.device) -> tuple[Tensor, Tensor]:
    """MEAN and STD as (3, 1, 1) tensors, copied to a device once and not once a batch."""
    with torch.inference_mode(False):  # else who asks first might keep gradients out for ever
        return tuple(torch.tensor(m, device=device).view(3, 1, 1) for m in (MEAN, STD))


def fingerprint(data: Dataset) -> str:
    """Which images these are: how many, and a checksum of all pixels and labels."""
    digest, sizes = hashlib.sha256(), []
    for split in filter(None, (data.train, data.val, data.test)):
        for tensor in (split.images, split.labels):
            digest.update(tensor.cpu().contiguous().numpy())
        sizes.append(str(len(split)))
    return f"{' + '.join(sizes)} images, SHA-256 {digest.hexdigest()[:16]}"


def expected_fingerprint(name: str) -> str:
    """The fingerprint of a data set of `DATASETS`; CIFAR-10's is known without its pixels."""
    return CIFAR10 if name == "cifar10" else fingerprint(DATASETS[name]())


def stratified_split(labels: Tensor, per_class: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of (training, validation): `per_class` random images of each class validate."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    parts = [shuffled[labels[shuffled] == c] for c in labels.unique()]
    fewest = min(len(p) for p in parts)
    if per_class >= fewest:
        raise ValueError(f"a class has {fewest} images, cannot validate on {per_class} of them")
    val = torch.cat([p[:per_class] for p in parts]).sort().values
    train = torch.cat([p[per_class:] for p in parts]).sort().values
    return train, val


def _make_dataset(name: str, arrays, val_per_class: int) -> Dataset:
    """A Dataset from x_train, y_train, x_test, y_test: NHWC uint8 images and labels."""
    keys = ("x_train", "y_train", "x_test", "y_test")
    images, labels, *test = (torch.from_numpy(np.ascontiguousarray(arrays[k])) for k in keys)
    images, labels = images.permute(0, 3, 1, 2).contiguous(), labels.long()
    parts = [(images[i], labels[i]) for i in stratified_split(labels, val_per_class, SPLIT_SEED)]
    parts.append((test[0].permute(0, 3, 1, 2).contiguous(), test[1].long()))
    return Dataset(name, *(Split(*part) for part in parts))


@lru_cache(maxsize=1)
def load_cifar10() -> Dataset:
    """CIFAR-10 on the CPU; AssetError if no source has it."""
    with np.load(assets.fetch("cifar10")) as arrays:
        return _make_dataset("cifar10", arrays, VAL_PER_CLASS)


@lru_cache(maxsize=1)
def load_generated() -> Dataset:
    """A small dataset of CIFAR-10's shape for the `smoke` preset, no source of results. A class is
    the angle of a grating; frequency, phase, colour and noise vary."""
    rng, arrays = np.random.default_rng(0), {}
    for split, n in (("train", 500), ("test", 200)):
        labels = np.arange(n) % 10
        angle = (labels * np.pi / 10)[:, None, None]
        rows, columns = np.mgrid[:32, :32]
        wave = rng.uniform(0.5, 0.9, (n, 1, 1)) * (columns * np.cos(angle) + rows * np.sin(angle))
        wave += rng.uniform(0, 2 * np.pi, (n, 1, 1))
        colour = rng.uniform(20, 100, (n, 1, 1, 3))
        pixels = 128 + colour * np.sin(wave)[..., None] + rng.normal(0, 20, (n, 32, 32, 3))
        arrays |= {f"x_{split}": pixels.clip(0, 255).astype(np.uint8), f"y_{split}": labels}
    return _make_dataset("generated", arrays, 10)


DATASETS = {"cifar10": load_cifar10, "generated": load_generated}
