# LLM-assisted: prompts P12, P15, see report.md
"""Stored answers are what the models say, of the gallery as it is now."""

import zlib

import numpy as np
import pytest
import torch

from cvassign.clip import gallery, imagenet
from cvassign.study import answers


class Random:
    """A model of 1000 classes that finds its answers in a picture's pixels."""

    name = "random"

    def logits(self, pictures: list) -> torch.Tensor:
        makers = [torch.Generator().manual_seed(zlib.crc32(p.image.tobytes())) for p in pictures]
        return 3 * torch.stack([torch.randn(1000, generator=maker) for maker in makers])


def test_what_is_read_is_what_the_model_says_of_files_and_windows(tmp_path):
    photos = [p for p in gallery.read(gallery.BUNDLED) if p.kind == "photo"][:3]
    some = photos + gallery.close_ups(photos)  # 48
    answers.write({"twin": Random()}, some[:20], tmp_path / "a.npz")
    stored = answers.load("twin", tmp_path / "a.npz")
    chosen = [some[9], some[2], some[17]]
    logits, found = Random().logits(chosen), stored.of(chosen)
    best = logits.softmax(-1).topk(10)
    assert stored.name == "random" and torch.equal(found.indices, best.indices)
    assert torch.allclose(found.probabilities, best.values, rtol=1e-3)
    own = logits[range(3), [p.index for p in chosen]]
    assert found.ranks.tolist() == (1 + (logits > own[:, None]).sum(1)).tolist()
    assert torch.equal(stored.logits(chosen).topk(10).indices, best.indices)
    assert stored.topk(chosen) == imagenet.named(found.probabilities[:, :5], found.indices[:, :5])
    photo = some[0].path.relative_to(gallery.BUNDLED).as_posix()
    windows = [f"{photo}#10-10-90-90", f"{photo}#0-10-80-90"]
    assert stored.keys[0] == photo and stored.keys[3:5] == windows
    with pytest.raises(KeyError, match=f"{answers.key(some[20])} and 27 more: run `python -m"):
        stored.of(some)
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
