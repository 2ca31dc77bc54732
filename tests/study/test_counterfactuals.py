# LLM-assisted: prompts P14, see report.md
"""The stored comparison keeps the assignment's rule, and its numbers are what they are called."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from cvassign.clip import gallery, imagenet
from cvassign.clip.counterfactual import AS_IS, CHANGES, WHOLE
from cvassign.pictures import open_rgb
from cvassign.study import counterfactuals, twin


def test_moved_compares_the_same_pictures():
    some = [
        {name: (rank, 0.1) for name, rank in zip((AS_IS, *CHANGES), [rank] * 99)}
        for rank in (8, 40)
    ]
    some[0]["surface"], some[1]["surface"] = (4, 0.5), (20, 0.2)
    some[0]["blur"] = (16, 0.1)
    del some[1]["blur"]
    found = counterfactuals.moved(some)
    assert found["surface"]["top5"] == [0, 50] and found["surface"]["points"]["mean"] == 50
    assert found["surface"]["median"] == [24, 12]
    assert found["surface"]["factor"] == pytest.approx([0.5, 0.5, 0.5])
    assert found["blur"]["n"] == 1 and found["blur"]["factor"][0] == pytest.approx(2)
    assert found["grey"]["factor"] == [1, 1, 1]


def test_stored_choice_keeps_the_rule():
    stored = json.loads(counterfactuals.OUT.read_text())
    first, second = stored["models"]
    pictures = gallery.read(gallery.BUNDLED)
    assert len(stored["chosen"]) == 10
    assert len({imagenet.branch(wnid) for wnid in stored["chosen"]}) >= 6
    styles = set()
    for wnid, three in stored["chosen"].items():
        restored, tops, strips = counterfactuals.shown(three, pictures)
        assert twin.held_out(restored) == restored and all(p.may_be_shown for p in restored)
        for p, s, right, wrong in zip(
            restored, three, (second, second, first), (first, first, second)
        ):
            assert imagenet.classes()[p.index].wnid == wnid and p.image.size > (0, 0)
            named = {m: p.class_name in [name for name, _ in s["top"][m]] for m in stored["models"]}
            assert named == {right: True, wrong: False}  # by the class's own name alone
            assert s["ranks"][right][AS_IS][0] <= 5 < s["ranks"][wrong][AS_IS][0]
            assert (WHOLE in s["ranks"][first]) == bool(p.cropped)
        styles |= {p.style for p in restored[:2]}
    assert len(styles) > 2
    assert set(stored["moved"]["drawings"][first]) == set(CHANGES)


def test_study_picks_and_changes(tmp_path, monkeypatch):
    """A model of shape and one of colour, on discs and squares of two colours."""
    monkeypatch.setattr(gallery, "BUNDLED", tmp_path)

    def drawn(name: str, colour: str, size: int, kind: str, style: str) -> gallery.Picture:
        image = Image.new("RGB", (80, 80), "white")
        ImageDraw.Draw(image).rectangle((40 - size, 40 - size, 40 + size, 40 + size), colour)
        image.save(tmp_path / f"{name}.png")
        path, source = tmp_path / f"{name}.png", "debian:tuxpaint-stamps"
        return gallery.Picture(path, 1, (1,), style, kind, source, "CC0", "a", True)

    pictures = [
        drawn("a", "blue", 25, "rendition", "clipart"),
        drawn("b", "blue", 24, "rendition", "cartoon"),
        drawn("photo", "red", 12, "photo", "photo_cutout"),
        drawn("again", "red", 13, "photo", "photo_cutout"),
    ]  # fmt: skip

    class ByColour:  # class 1 is red in the middle
        def logits(self, images):
            x = [np.asarray(open_rgb(i), dtype=float) for i in images]
            mid = [i[i.shape[0] // 2, i.shape[1] // 2] for i in x]
            return torch.tensor([[0, m[0] - m[2] - 1, *[0] * 10] for m in mid]).float()

    class BySize(ByColour):  # class 1 is large
        def logits(self, images):
            dark = [(np.asarray(open_rgb(i).convert("L")) < 200).mean() for i in images]
            return torch.tensor([[0, d - 0.3, *[0] * 10] for d in dark]).float()

    out = counterfactuals.study(pictures, {"colour": ByColour(), "size": BySize()})
    (three,) = out["chosen"].values()
    assert [s["path"] for s in three] == ["a.png", "b.png", "photo.png"]
    ranks = three[0]["ranks"]["colour"]
    assert ranks[AS_IS][0] > 5 and ranks["surface"][0] == 1 and ranks["grey"][0] > 5
    assert out["moved"]["drawings"]["colour"]["surface"]["points"]["mean"] == 100
    assert out["moved"]["drawings"]["size"]["surface"]["points"]["mean"] == 0
    assert out["styles"]["clipart"]["rates"] == [0, 100]
