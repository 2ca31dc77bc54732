# LLM-assisted: prompts P1, P15, see report.md
"""The split is fair, fixed and disjoint; pixels keep their order; the constants are CIFAR-10's."""

import numpy as np
import pytest
import torch

from cvassign import assets, data
from cvassign.data import MEAN, STD, normalise, stratified_split


@pytest.fixture
def uncached():
    """Forgets the datasets before and after: each call below reads them again."""
    for load in data.DATASETS.values():
        load.cache_clear()
    yield
    for load in data.DATASETS.values():
        load.cache_clear()


def test_split_is_stratified_disjoint_and_complete():
    labels = torch.tensor([c for c in range(5) for _ in range(20 + 7 * c)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    train, val = stratified_split(labels, 6, seed=0)
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(len(labels)))
    assert labels[val].bincount().tolist() == [6] * 5
    assert labels[train].bincount().tolist() == [14 + 7 * c for c in range(5)]


def test_split_is_random_and_the_same_for_every_call():
    labels = torch.arange(200) % 4
    before = torch.get_rng_state()
    first, again, other = (stratified_split(labels, 10, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first, torch.arange(40))  # not simply the first of each class
    assert torch.equal(before, torch.get_rng_state())  # the training's random numbers stay


def test_split_that_leaves_nothing_to_train_on_is_an_error():
    with pytest.raises(ValueError, match="has 3 images, cannot validate on 3"):
        stratified_split(torch.tensor([0, 0, 0, 1, 1, 1, 1]), 3, seed=0)


def test_normalise_is_the_formula():
    images = torch.randint(256, (2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    got = normalise(images.byte())
    assert got.dtype == torch.float32
    for c in range(3):
        expected = (images[:, c] / 255 - MEAN[c]) / STD[c]
        torch.testing.assert_close(got[:, c], expected)


def fake_cifar10(per_class: int) -> dict[str, np.ndarray]:
    """CIFAR-10's format: the first byte of an image is its class, the next three its number."""
    arrays = {}
    for split, n in (("train", 10 * per_class), ("test", 100)):
        x = np.zeros((n, 32, 32, 3), np.uint8)
        y = np.arange(n) % 10
        x[:, 0, 0, 0] = y
        x[:, 0, 1, 2], x[:, 3, 0, 0] = np.arange(n) // 256, np.arange(n) % 256
        arrays |= {f"x_{split}": x, f"y_{split}": y.astype(np.uint8)}
    return arrays


def test_cifar10_becomes_channels_first_with_its_labels(uncached, tmp_path, monkeypatch):
    arrays = fake_cifar10(per_class=data.VAL_PER_CLASS + 20)
    np.savez(tmp_path / "cifar10.npz", **arrays)
    monkeypatch.setattr(assets, "fetch", lambda name: tmp_path / f"{name}.npz")
    got = data.load_cifar10()
    assert (len(got.train), len(got.val), len(got.test)) == (200, 5000, 100)
    numbers = []
    for split in (got.train, got.val, got.test):
        assert split.images.shape[1:] == (3, 32, 32)
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert torch.equal(split.images[:, 0, 0, 0].long(), split.labels)
        numbers.append(256 * split.images[:, 2, 0, 1].long() + split.images[:, 0, 3, 0].long())
    assert torch.equal(numbers[2], torch.arange(100))  # the test set in its own order
    assert torch.equal(torch.cat(numbers[:2]).sort().values, torch.arange(5200))
    assert torch.equal(got.val.labels.bincount(), torch.full((10,), data.VAL_PER_CLASS))


def have_cifar10() -> bool:
    return bool(assets.named("CVASSIGN_DATA")) or (assets.cache_home() / "cifar10.npz").exists()


@pytest.mark.skipif(not have_cifar10(), reason="CIFAR-10 is not here, and tests fetch nothing")
def test_the_real_cifar10(uncached):
    got = data.load_cifar10()
    assert (len(got.train), len(got.val), len(got.test)) == (45_000, 5_000, 10_000)
    for split, per_class in ((got.train, 4500), (got.val, 500), (got.test, 1000)):
        assert split.labels.bincount().tolist() == [per_class] * 10
    # Mean and deviation over all 50,000 training images, from the 256 counts of each channel.
    levels = torch.arange(256) / 255
    for c in range(3):
        counts = sum(
            torch.from_numpy(np.bincount(s.images[:, c].numpy().ravel(), minlength=256))
            for s in (got.train, got.val)
        )
        mean = (counts * levels).sum() / counts.sum()
        std = ((counts * (levels - mean) ** 2).sum() / counts.sum()).sqrt()
        assert mean.item() == pytest.approx(MEAN[c], abs=6e-5)
        assert std.item() == pytest.approx(STD[c], abs=1.1e-4)


def test_generated_data_have_cifar10s_shape_and_share_no_image(uncached):
    first = data.load_generated()
    assert (len(first.train), len(first.val), len(first.test)) == (400, 100, 200)
    assert data.load_generated() is first  # loaded once
    splits = [(first.train, "train"), (first.val, "val"), (first.test, "test")]
    for split, _ in splits:
        assert split.images.shape == (len(split), 3, 32, 32)
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert len(split.labels.bincount().unique()) == 1  # as many of each class
    assert len(torch.cat([s.images for s, _ in splits]).flatten(1).unique(dim=0)) == 700
    data.load_generated.cache_clear()
    again = data.load_generated()
    for split, name in splits:
        other = getattr(again, name)
        assert split.images is not other.images and torch.equal(split.images, other.images)
        assert torch.equal(split.labels, other.labels)
