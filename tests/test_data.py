# LLM-assisted: prompts P1, P15, see report.md
"""The split is fair, fixed and disjoint; pixels keep their order; the constants are CIFAR-10's."""

import numpy as np
import pytest
import torch

from cvassign import assets, data
from cvassign.data import MEAN, STD, normalise, stratified_split


def test_split_is_stratified_random_disjoint_complete_and_the_same_for_every_call():
    labels, before = torch.arange(170) % 17 % 5, torch.get_rng_state()  # 40 of some, 30 of others
    (train, val), (_, again), (_, other) = (stratified_split(labels, 6, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(len(labels)))
    assert labels[val].bincount().tolist() == [6] * 5
    assert torch.equal(val, again) and not torch.equal(val, other)
    assert torch.equal(before, torch.get_rng_state())  # the training's random numbers stay
    with pytest.raises(ValueError, match="has 30 images, cannot validate on 30"):
        stratified_split(labels, 30, seed=0)


def test_normalise_is_the_formula():
    images = torch.arange(192, dtype=torch.uint8).view(2, 3, 4, 8)
    mean, std = (torch.tensor(m).view(3, 1, 1) for m in (MEAN, STD))
    torch.testing.assert_close(normalise(images), (images / 255 - mean) / std)


def test_cifar10_becomes_channels_first_with_its_labels(tmp_path, monkeypatch):
    arrays = {}
    for split, n in (("train", 200), ("test", 100)):
        x, y = np.zeros((n, 32, 32, 3), np.uint8), (np.arange(n) % 10).astype(np.uint8)
        x[:, 0, 0, 0], x[:, 3, 1, 2] = y, np.arange(n)  # an image's class, and its number
        arrays |= {f"x_{split}": x, f"y_{split}": y}
    np.savez(tmp_path / "cifar10.npz", **arrays)
    monkeypatch.setattr(assets, "fetch", lambda name: tmp_path / f"{name}.npz")
    monkeypatch.setattr(data, "VAL_PER_CLASS", 6)
    got = data.load_cifar10.__wrapped__()  # past its cache
    for split in (got.train, got.val, got.test):
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert torch.equal(split.images[:, 0, 0, 0].long(), split.labels)
    train, val, test = (s.images[:, 2, 3, 1].tolist() for s in (got.train, got.val, got.test))
    assert test == list(range(100)) and sorted(train + val) == list(range(200))
    assert got.val.labels.bincount().tolist() == [6] * 10


HERE = assets.named("CVASSIGN_DATA") or (assets.cache_home() / "cifar10.npz").exists()


@pytest.mark.skipif(not HERE, reason="CIFAR-10 is not here, and tests fetch nothing")
def test_the_real_cifar10():
    got = data.load_cifar10.__wrapped__()  # past its cache
    assert data.fingerprint(got) == data.CIFAR10
    images = torch.cat([got.train.images, got.val.images])
    found = [torch.std_mean(images[:, c].float() / 255) for c in range(3)]
    torch.testing.assert_close(torch.tensor(found).T, torch.tensor([STD, MEAN]), atol=6e-5, rtol=0)


def test_generated_data_have_cifar10s_shape_and_share_no_image():
    got = data.load_generated()
    assert data.load_generated() is got  # loaded once
    splits = got.train, got.val, got.test
    assert [s.labels.bincount().tolist() for s in splits] == [[40] * 10, [10] * 10, [20] * 10]
    images = torch.cat([s.images for s in splits])
    assert images.shape == (700, 3, 32, 32) and len(images.flatten(1).unique(dim=0)) == 700
    assert data.fingerprint(data.load_generated.__wrapped__()) == data.fingerprint(got)
