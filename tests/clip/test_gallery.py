# LLM-assisted: prompts P3, P4, P12, P14, P15, see report.md
"""The selection rule picks what the assignment asks for, and bad manifests are refused."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cvassign.assets import AssetError
from cvassign.clip import gallery, imagenet
from cvassign.study import twin
from gallery import make

WNIDS = [c.wnid for c in imagenet.classes()]
WIDE, CLOSE = (0.1, 0.1, 0.9, 0.9), (0.3, 0.3, 0.7, 0.7)


def picture(index: int, style="clipart", kind="rendition", path="x.png", box=None, shown=True):
    rest = (kind, "s", "CC0", "a", shown, box and (Path(path), box))
    return gallery.Picture(Path(path), index, (index, 5), style, *rest)


def window(index: int, box: tuple, path: str = "0.jpg") -> gallery.Picture:
    return picture(index, "close-up", "photo", path, box)


def drawn(index: int, *names: str) -> list[gallery.Picture]:
    return [picture(index, path=f"{index}-{name}.png") for name in names]


def selected(pictures: list, losses: list, **options) -> dict:
    """What is selected where all but the losses are the first model's alone."""
    wins = torch.tensor([p not in losses for p in pictures])
    return gallery.select(pictures, wins, ~wins, **options)


class Model:
    """Gives the own class a logit, the others 0, 0.001, …, 0.999; it knows what it has seen."""

    def __init__(self, own):
        self.name, self.own, self.seen = "model", own, []

    def logits(self, pictures):
        self.seen += pictures
        rows = torch.arange(1000).div(1000).repeat(len(pictures), 1)
        for row, p in zip(rows, pictures):
            row[p.index] = self.own(p)
        return rows


def test_select_follows_the_rule():
    pictures, losses = [], []
    for index in range(0, 1000, 7):
        styles = enumerate(("clipart", "clipart", "emoji_flat", "icon"))
        pictures += (mine := [picture(index, s, path=f"{index}-{i}.png") for i, s in styles])
        losses.append(mine[-1])
    chosen = selected(pictures, losses)
    branches = {loss.branch for _, loss in chosen.values()}
    assert len(chosen) == len(branches) == 10  # there are more branches than ten: one class each
    few = selected(pictures[:40], losses)  # classes 0 to 63: few branches
    assert max(Counter(loss.branch for _, loss in few.values()).values()) == 3
    for index, (wins, loss) in chosen.items():
        assert [p.index for p in (*wins, loss)] == [index] * 3
        assert [p.style for p in wins] == ["clipart", "emoji_flat"] and loss.style == "icon"
    both = torch.ones(len(pictures), dtype=torch.bool)
    assert gallery.select(pictures, both, both) == selected(pictures, []) == {}
    shown = (False, True, False, True, False, True)  # of a class: four wins, two losses
    pictures = [picture(292, shown=s, path=f"{i}") for i, s in enumerate(shown)]
    assert selected(pictures, pictures[4:])[292] == (pictures[1:4:2], pictures[5])
    assert selected(pictures[:5], pictures[4:]) == {}  # no loss that may be shown


def test_select_takes_whole_photos_then_renditions_then_the_widest_close_ups():
    photo = picture(0, "photo", "photo", "0.jpg")
    losses = [photo, *drawn(0, "d"), window(0, WIDE), window(0, CLOSE)]
    wins = [*drawn(0, "a", "b"), window(0, CLOSE, "p.jpg")]
    while losses:  # without a better one the next is taken
        assert selected([*wins, *losses[::-1]], losses)[0] == (wins[:2], losses.pop(0))
    one = [*drawn(0, "a", "l"), window(0, CLOSE)]  # needs a close-up: after all others
    two, losses = drawn(1, "a", "b", "l"), [*drawn(0, "l"), *drawn(1, "l")]
    assert list(selected([*one, *two], losses)) == [1, 0]
    assert list(selected([*one, *two], losses, per_branch=1)) == [1]
    windows = [window(0, WIDE), window(0, CLOSE)]  # of one photo are no two pictures
    assert selected([*windows, photo], [photo]) == {}


def test_a_contest_scores_close_ups_only_where_they_can_matter():
    pictures = [*drawn(1, "a", "b"), *(picture(i, "photo", "photo", f"{i}.jpg") for i in (1, 2))]
    models = [Model(lambda p: -1 if p.cropped else 1), Model(lambda p: 1 if p.cropped else -1)]
    found = gallery.contest(pictures, *models)
    assert list(found) == [1] and found[1][1].cropped and found[1][1].style == "close-up 80%"
    assert {p.index for m in models for p in m.seen if p.cropped} == {1}


def test_close_ups_are_windows_of_photos(tmp_path):
    y, x = np.mgrid[:50, :200]
    Image.fromarray(np.stack([x, y, x], axis=-1).astype(np.uint8)).save(tmp_path / "p.png")
    photo = picture(292, "photo", "photo", tmp_path / "p.png")
    found = gallery.close_ups([picture(1), photo])
    assert len(found) == len({p.cropped for p in found}) == 15
    sizes = [p.image.size for p in (photo, *found[::5])]
    assert sizes == [(200, 50), (160, 40), (120, 30), (80, 20)]
    for p in found:
        left, top, right, bottom = p.cropped[1]
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        assert p.image.getpixel((0, 0)) == (round(200 * left), round(50 * top), round(200 * left))


def test_bundled_gallery_is_open_and_small():
    pictures = gallery.read(gallery.BUNDLED)
    assert {p.may_be_shown for p in pictures} == {True} and all(p.attribution for p in pictures)
    files = list(gallery.BUNDLED.rglob("*.webp"))
    assert sorted(files) == sorted(p.path for p in pictures)
    assert sum(f.stat().st_size for f in files) <= 7_000_000
    assert max(max(Image.open(f).size) for f in files) <= make.SIDE
    # No table scores the twin on what it was trained on: `held_out` leaves that out.
    trained = [p for p in pictures if twin.parts(p.source) == ["train"] and p.kind == "rendition"]
    assert max(Counter(p.index for p in trained).values()) <= make.OF_TRAINING
    assert {*map(tuple, (twin.parts(p.source) for p in twin.held_out(pictures)))} == {("test",)}
    names = {n for p in pictures for n in (p.path.stem, f"{p.path.parts[-3]}/{p.path.stem}")}
    assert not names & set(make.MISLABELLED)
    kinds = Counter((p.index, p.kind) for p in pictures)
    both = {p.branch for p in pictures if p.kind == "photo" and kinds[p.index, "rendition"] > 1}
    assert len(both) >= 6


def test_bundle_goes_by_the_rule(tmp_path, monkeypatch):
    def row(name: str, index: int = 292, source="tuxpaint", shown="yes", **changes: str) -> dict:
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
        known = dict.fromkeys(gallery.COLUMNS, str(index)) | {"path": f"{name}.png"}
        known |= {"source_repo": f"debian:{source} 1", "may_be_committed": shown}
        known |= {"style": "clipart", "kind": "rendition", "synset": WNIDS[index]}
        return known | changes

    rows = [row("tiger0"), row("tiger1"), row("tiger2", style="emoji_3d"), row("fish", 0)]
    rows += [row("tiger3", style="photo", kind="photo"), row("trained", source="openclipart")]
    rows += [row("secret", shown="no"), row("seal")]  # listed as not of its class
    pd.DataFrame(rows).to_csv(tmp_path / "manifest.csv")
    assert make.bundle(tmp_path, tmp_path / "out") == 6
    names = {p.path.stem for p in gallery.read(tmp_path / "out")}
    assert names == {"tiger0", "tiger1", "tiger2", "tiger3", "fish", "trained"}
    monkeypatch.setattr(make, "RENDITIONS", 2)  # one of each style, the twin's sources last
    make.bundle(tmp_path, tmp_path / "two")
    names = {p.path.stem for p in gallery.read(tmp_path / "two")}
    assert {"tiger3", "fish"} < names and len(names) == 4 and "trained" not in names


def test_more_pictures_are_counted_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("CVASSIGN_DATA", str(tmp_path))
    assert gallery.more() == []
    (tmp_path / "images").mkdir()
    lines = (gallery.BUNDLED / "manifest.csv").read_text(encoding="utf-8").splitlines()
    other = lines[1].replace(lines[1].split(",")[0], "other.png")
    (tmp_path / "images/manifest.csv").write_bytes("\n".join([*lines[:2], other]).encode())
    (new,) = gallery.more()  # the one that both have is the gallery's
    assert new.path == tmp_path / "images/other.png"


def test_own_label_decides_and_close_ups_of_a_photo_are_one_sample():
    pictures = [picture(1), picture(2), *(window(3, CLOSE, f"{i // 5}") for i in range(10))]
    logits = torch.zeros(12, 1000)
    logits[0, 1] = logits[1, 5] = logits[2:7, 3] = 1  # 5 is accepted for all, nobody's own class
    logits[7:, 10:15] = 1
    logits[:, 20:24] = 2
    hit = gallery.hits(pictures, logits)
    assert hit.tolist() == [True, False] + [True] * 5 + [False] * 5
    assert gallery.hits(pictures, logits, accepted=True)[:2].tolist() == [True, True]
    found = gallery.by_style(pictures[1:], torch.zeros_like(hit[1:]), hit[1:])
    assert list(found) == ["close-up", "clipart"]  # the best of the second first
    assert found["close-up"]["rates"] == [0, 50] and found["close-up"]["n"] == 10
    d = found["close-up"]["difference"]
    assert (d.n, d.low, d.high) == (2, 0, 100)  # two photos


def test_rates_are_of_the_own_class_and_empty_groups_are_left_out():
    groups = {"some": [picture(1), picture(0)], "none": []}
    said = {"pictures": "2", "model, top-1 %": "50.0", "model, top-5 %": "100.0"}
    assert gallery.rates(groups, [Model(lambda p: 1 if p.index else 0.9975)]) == {"some": said}


def test_the_manifest_is_checked(tmp_path):
    row = dict.fromkeys(gallery.COLUMNS, "") | {"path": "t.png", "may_be_committed": "yes"}
    row |= {"imagenet_class_index": "292", "accept_indices": "292|293", "synset": "n02129604"}
    rows = pd.DataFrame([row])
    rows.to_csv(tmp_path / "manifest.csv")
    (p,) = gallery.read(tmp_path)
    assert p.accept == (292, 293) and p.may_be_shown and p.class_name == "tiger"
    wrong, short = rows.assign(synset="n01440764"), rows.drop(columns="style")
    for bad, words in ((wrong, "class 292 is n02129604"), (short, "columns missing: style")):
        bad.to_csv(tmp_path / "manifest.csv")
        with pytest.raises(ValueError, match=words):
            gallery.read(tmp_path)


def test_get_downloads_verifies_and_goes_on(server, cache, tmp_path, monkeypatch, capsys):
    rows = []
    for index in (0, 1, 292):
        name = f"{WNIDS[index]}_x.JPEG"
        server.files[f"/{name}"] = right = bytes(1000 + index)
        rows.append({"file": name, "sha256": hashlib.sha256(right).hexdigest()})
    pd.DataFrame(rows).to_csv(tmp_path / "imagenet_samples.csv")
    monkeypatch.setattr(gallery, "SAMPLES", tmp_path / "imagenet_samples.csv")
    monkeypatch.setattr(gallery, "ADDRESS", server.address)
    assert gallery.samples() == []
    server.files[f"/{name}"] = right[:-1] + b"x"  # another file under the tiger's name
    assert len(gallery.samples(fetch=True)) == 2
    with pytest.raises(AssetError, match="(?s)1 of 3 photos cannot be had.*known hash: expected"):
        gallery.get()
    assert [p.index for p in gallery.samples()] == [0, 1]
    server.files[f"/{name}"] = right
    server.asked.clear()
    assert [f.name for f in gallery.get() if f.read_bytes() == right] == [name]
    assert server.asked == [f"/{name}"]  # the other two are not asked for again
    (*_, p) = gallery.samples()
    assert (p.index, p.kind, p.class_name) == (292, "photo", "tiger") and "ImageNet" in p.licence
    assert {s.path for s in gallery.samples()} == set(gallery.get())
    server.lost = True
    server.asked.clear()
    with pytest.raises(AssetError):
        gallery.get(cache / "elsewhere")
    assert len(server.asked) == 1  # nobody waits for a thousand refusals
    assert capsys.readouterr().err == ""  # no bar where nobody looks


def test_the_list_of_photos_is_one_a_class_and_none_is_in_the_project():
    assert sorted(pd.read_csv(gallery.SAMPLES)["synset"]) == sorted(WNIDS)
    source = f"github:{gallery.REPOSITORY}"
    assert twin.parts(source) == ["train"]  # never scored by the twin
    for notebook in gallery.BUNDLED.parent.glob("notebooks/*.ipynb"):
        assert source not in notebook.read_text(encoding="utf-8")
