# LLM-assisted: prompts P12, P15, see report.md
"""Stored answers are what the models say, of the gallery as it is now."""

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cvassign.clip import gallery, imagenet
from cvassign.study import answers


class Random:
    """A model of 1000 classes that finds its answers in a picture's pixels."""

    name = "random"

    def logits(self, pictures: list) -> torch.Tensor:
        seeds = [zlib.crc32(p.image.tobytes()) for p in pictures]
        makers = [torch.Generator().manual_seed(seed) for seed in seeds]
        return 3 * torch.stack([torch.randn(1000, generator=maker) for maker in makers])


@pytest.fixture(scope="module")
def some():
    photos = [p for p in gallery.read(gallery.BUNDLED) if p.kind == "photo"][:3]
    return photos + gallery.close_ups(photos)


def test_what_is_read_is_what_the_model_says(some, tmp_path):
    for name in ("a.npz", "b.npz"):
        answers.write(dict.fromkeys(answers.MODELS, Random()), some, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    stored = answers.load("twin", tmp_path / "a.npz")
    assert stored.name == "random" and len(stored.keys) == len(some) == 48
    chosen = [some[9], some[2], some[17]]
    logits, found = Random().logits(chosen), stored.of(chosen)
    assert torch.equal(found.indices, logits.topk(10).indices)
    assert torch.allclose(found.probabilities, logits.softmax(-1).topk(10).values, rtol=1e-3)
    own = logits[range(3), [p.index for p in chosen]]
    assert found.ranks.tolist() == [1 + int((row > v).sum()) for row, v in zip(logits, own)]
    top5 = found.probabilities[:, :5], found.indices[:, :5]
    assert stored.topk(chosen) == imagenet.named(*top5)


def test_keys_are_paths_and_windows(some, tmp_path):
    photo = some[0].path.relative_to(gallery.BUNDLED).as_posix()
    keys = [answers.key(p) for p in (some[0], *some[3:5])]
    assert keys == [photo, f"{photo}#10-10-90-90", f"{photo}#0-10-80-90"]
    with pytest.raises(ValueError, match="x.png"):
        answers.key(replace(some[0], path=Path("/other/x.png")))
    answers.write({"imagenet": Random()}, some[:2], tmp_path / "a.npz")
    with pytest.raises(KeyError, match=f"{photo}#10-.* and 44 more: run `python -m"):
        answers.load("imagenet", tmp_path / "a.npz").of(some[:2] + some[3:])
    with pytest.raises(FileNotFoundError, match="python -m cvassign.study.answers"):
        answers.load("twin", tmp_path / "none.npz")


def test_the_stored_file_is_that_of_the_gallery(at_hand):
    pictures = answers.pool()
    with np.load(answers.FILE) as file:
        assert file["keys"].tolist() == [answers.key(p) for p in pictures]
        crc = [zlib.crc32(p.path.read_bytes()) for p in pictures]
        assert file["crc32"].tolist() == crc and answers.FILE.stat().st_size < 500_000
    stored, own = {m: answers.load(m) for m in answers.MODELS}, [p.index for p in pictures]
    for found in stored.values():
        place = (found.indices == torch.tensor(own)[:, None]).float() @ torch.arange(1.0, 11)
        assert torch.equal(place, torch.where(found.ranks <= 10, found.ranks, 0).float())
        assert (found.probabilities.diff(dim=1) <= 0).all() and (found.ranks <= 1000).all()
    at_hand("resnet50-keras")
    few = [pictures[0], pictures[-1], next(p for p in pictures if p.kind == "photo")]
    for name, model in answers.models().items():
        probabilities = model.logits(few).softmax(-1).topk(10).values
        assert stored[name].name == model.name
        assert torch.allclose(stored[name].of(few).probabilities, probabilities, atol=2e-3)
