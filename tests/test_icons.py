# LLM-assisted: prompts P4, see report.md
"""Icons get the class that their name says, are drawn whole, and only once."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvassign import gallery, icons, imagenet, twin_data


def labelled(name: str, source: str = "openclipart", stem: str = "x") -> gallery.Picture:
    index = imagenet.class_names().index(name)
    return gallery.Picture(Path(f"{stem}.png"), index, (index, 1), "clipart", "rendition", source,
                           "CC0", "a", False)  # fmt: skip


TIGER = labelled("tiger", "npm:openmoji", "tiger-face")
PIANO = labelled("grand piano")
BOX = labelled("cardboard box / carton")
SQUARE = '<path fill="currentColor" d="M0 0h24v24H0z"/>'


def content(**icons_by_name) -> dict:
    return {
        "info": {"name": "A set", "license": {"spdx": "MIT"}, "author": {"name": "someone"}},
        "icons": icons_by_name, "width": 24, "height": 24,
    }  # fmt: skip


def test_names_are_the_classes_and_their_emojis():
    found = icons.names([TIGER, PIANO, BOX, labelled("crane bird")])
    assert {n: p.index for n, p in found.items()} == {
        "tiger-face": TIGER.index, "grand-piano": PIANO.index, "cardboard-box": BOX.index,
        "carton": BOX.index, "crane-bird": 134,
    }  # fmt: skip


def test_a_name_of_two_classes_is_left_out():
    other = labelled("leopard", "npm:twemoji", "tiger-face")
    assert list(icons.names([TIGER, PIANO, other])) == ["grand-piano"]


def test_parentheses_are_no_part_of_a_name():
    assert list(icons.names([labelled("ram (adult male sheep)")])) == ["ram"]


def test_wanted_icons_are_read_with_class_licence_and_style(tmp_path):
    got = icons.read(content(**{"tiger-face": {"body": SQUARE}, "other": {"body": SQUARE}}), "mdi",
                     icons.names([TIGER, PIANO]), tmp_path)  # fmt: skip
    (p,) = got
    assert (p.index, p.accept, p.kind, p.style) == (TIGER.index, TIGER.accept, "rendition", "icon_mono")
    assert (p.source, p.licence, p.attribution) == ("npm:@iconify/json/mdi", "MIT", "someone")
    assert p.path == tmp_path / "mdi" / "tiger-face.png" and p.path.exists() and p.may_be_shown


def test_aliases_are_followed_and_one_drawing_counts_once(tmp_path):
    wanted = icons.names([BOX, PIANO, TIGER])
    some = content(box={"body": SQUARE}, **{"grand-piano": {"body": "<g/>"}})
    some["aliases"] = {"carton": {"parent": "box"}, "cardboard-box": {"parent": "box"},
                       "tiger-face": {"parent": "box", "hFlip": True}}  # fmt: skip
    got = icons.read(some, "mdi", wanted, tmp_path)
    assert [p.path.stem for p in got] == ["cardboard-box", "grand-piano"]


def test_what_is_drawn_is_kept(tmp_path, monkeypatch):
    some, wanted = content(**{"tiger-face": {"body": SQUARE}}), icons.names([TIGER])
    first = icons.read(some, "mdi", wanted, tmp_path)
    monkeypatch.setattr(icons, "draw", None)  # nothing may be drawn anew
    assert icons.read(some, "mdi", wanted, tmp_path) == first


@pytest.mark.parametrize("box", [{}, {"left": 100, "top": -7}])
def test_an_icon_is_drawn_black_on_white_within_its_margin(box):
    x, y = box.get("left", 0), box.get("top", 0)
    body = f'<path fill="currentColor" d="M{x} {y}h24v12H{x}z"/>'  # twice as wide as high
    image = icons.draw({"body": body, "width": 24, "height": 12, **box})
    assert image.size == (icons.SIZE, icons.SIZE) and image.mode == "RGB"
    dark = np.asarray(image)[..., 0] < 128
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    whole = icons.SIZE / (1 + 2 * icons.MARGIN)  # pixels of the longer side
    assert len(columns) == pytest.approx(whole, abs=2) and len(rows) == pytest.approx(whole / 2, abs=2)
    # in the middle, so nothing is cut off
    assert rows.mean() == pytest.approx(icons.SIZE / 2, abs=1.5)
    assert columns.mean() == pytest.approx(icons.SIZE / 2, abs=1.5)
    assert np.asarray(image)[0].min() == 255


def test_colours_are_the_icons_own():
    image = icons.draw({"body": '<circle cx="8" cy="8" r="8" fill="#f00"/>'})
    assert image.getpixel((icons.SIZE // 2, icons.SIZE // 2)) == (255, 0, 0)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The asset with two of three sets, a third not asked for, and a cache of its own."""
    path = tmp_path / "iconify-json-0.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("mdi", "unwanted", "lucide"):
            data = json.dumps(content(**{"tiger-face": {"body": SQUARE}})).encode()
            member = tarfile.TarInfo(f"package/json/{name}.json")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    monkeypatch.setattr(icons.assets, "fetch", lambda name: path)
    monkeypatch.setattr(icons.assets, "cache_dir", lambda: tmp_path / "cache")
    return path


def test_the_sets_of_both_parts_are_loaded(package, monkeypatch):
    monkeypatch.setattr(icons, "SETS", {"train": ("mdi",), "validation": ("lucide",)})
    got = icons.load([TIGER])
    assert [(twin_data.part_of(p.source), p.index) for p in got] == [
        ("validation", TIGER.index), ("train", TIGER.index)
    ]  # fmt: skip
    assert all(Image.open(p.path).size == (icons.SIZE, icons.SIZE) for p in got)


def test_a_missing_set_is_named(package):
    with pytest.raises(ValueError, match=r"iconify-json-0.tgz: expected the sets emojione, .*, got none"):
        icons.load([TIGER])


def test_no_set_is_of_a_hand_that_is_measured():
    every = [name for part in icons.SETS.values() for name in part]
    assert len(set(every)) == len(every)
    hands = ("fluent", "fxemoji", "game-icons", "noto", "openmoji", "twemoji")
    assert not [name for name in every if name.startswith(hands)]
    for part, some in icons.SETS.items():
        assert {twin_data.part_of(f"{icons.PACKAGE}/{name}") for name in some} == {part}
