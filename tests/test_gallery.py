# LLM-assisted: prompts P3, see report.md
"""The selection rule picks what the assignment asks for, and bad manifests are refused."""

import csv
from pathlib import Path

import pytest
import torch

from cvassign import gallery, imagenet


def picture(index: int, style: str = "clipart") -> gallery.Picture:
    return gallery.Picture(Path("x.png"), index, (index,), style, "rendition", "s", "CC0", "a", True)


def test_select_follows_the_rule():
    pictures, first, second = [], [], []
    for index in range(0, 1000, 7):  # three that only the first gets, one the other way, one both
        styles = ("clipart", "clipart", "emoji_flat", "photo", "photo")
        pictures += [picture(index, s) for s in styles]
        first += [True, True, True, False, True]
        second += [False, False, False, True, True]
    first, second = torch.tensor(first), torch.tensor(second)
    chosen = gallery.select(pictures, first, second)
    assert len(chosen) == 10
    branches = [imagenet.branch(imagenet.classes()[i].wnid) for i in chosen]
    assert len(set(branches)) == 10  # there are more than ten branches: one class each
    few = gallery.select(pictures[:50], first[:50], second[:50])  # classes 0 to 63: few branches
    several = [imagenet.branch(imagenet.classes()[i].wnid) for i in few]
    assert max(map(several.count, several)) == 2
    for index, (wins, loss) in chosen.items():
        assert [p.index for p in (*wins, loss)] == [index] * 3
        assert [p.style for p in wins] == ["clipart", "emoji_flat"] and loss.style == "photo"
    assert gallery.select(pictures, first, first) == {}
    second[3::5] = False  # no picture that only the second gets
    assert gallery.select(pictures, first, second) == {}


def test_hits_and_rates():
    pictures = [picture(1), picture(2, "photo"), picture(3, "photo")]
    logits = torch.zeros(3, 1000)
    logits[0, 1] = logits[1, 2] = 1
    logits[2, 10:15] = 1
    hit = gallery.hits(pictures, logits)
    assert hit.tolist() == [True, True, False]
    assert gallery.rates(pictures, hit) == {"clipart": (1.0, 1), "photo": (0.5, 2)}


def test_load_checks_the_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected manifest.csv"):
        gallery.read(tmp_path)
    row = dict.fromkeys(gallery.COLUMNS, "") | {
        "path": "t.png", "imagenet_class_index": "292", "synset": "n02129604",
        "accept_indices": "292|293", "may_be_committed": "yes",
    }  # fmt: skip

    def write(r):
        with (tmp_path / "manifest.csv").open("w", newline="") as f:
            writer = csv.DictWriter(f, r)
            writer.writeheader()
            writer.writerow(r)

    write(row)
    (p,) = gallery.read(tmp_path)
    assert p.accept == (292, 293) and p.may_be_shown and p.class_name == "tiger"
    write(row | {"synset": "n01440764"})
    with pytest.raises(ValueError, match="class 292 is n02129604"):
        gallery.read(tmp_path)
    del row["style"]
    write(row)
    with pytest.raises(ValueError, match="columns missing: style"):
        gallery.read(tmp_path)
