# LLM-assisted: prompts P4, see report.md
"""Icons get the class that their name says, are drawn whole, and only once."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvassign.clip import gallery, imagenet
from cvassign.study import icons, twin_data


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
    """The asset with three sets, one of them of logos, and a cache of its own."""
    path = tmp_path / "iconify-json-0.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("mdi", "logos", "lucide"):
            some = content(**{"tiger-face": {"body": SQUARE}})
            some["info"]["category"] = "Logos" if name == "logos" else "Material"
            data = json.dumps(some).encode()
            member = tarfile.TarInfo(f"package/json/{name}.json")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    monkeypatch.setattr(icons.assets, "fetch", lambda name: path)
    monkeypatch.setattr(icons.assets, "cache_dir", lambda: tmp_path / "cache")
    return path


def test_the_sets_of_both_parts_are_loaded(package, monkeypatch):
    monkeypatch.setattr(icons, "VALIDATION", ("lucide",))
    got = icons.load([TIGER])
    assert [(p.source, twin_data.part_of(p.source), p.index) for p in got] == [
        (f"{icons.PACKAGE}/lucide", "validation", TIGER.index),
        (f"{icons.PACKAGE}/mdi", "train", TIGER.index),
    ]  # fmt: skip
    assert all(Image.open(p.path).size == (icons.SIZE, icons.SIZE) for p in got)


def test_missing_sets_are_named(package):
    with pytest.raises(ValueError, match="iconify-json-0.tgz: expected the sets boxicons, .*, whh, got"):
        icons.load([TIGER])


@pytest.mark.parametrize("prefix, category, licence, part", [
    ("mdi", "Material", "Apache-2.0", "train"),
    ("il", None, "MIT", "train"),  # not every set has a category
    ("lucide", "UI 24px", "ISC", "validation"),
    ("lucide-lab", "UI 24px", "ISC", None),  # the same hand as a set that is measured
    ("fluent-emoji-flat", "Emoji", "MIT", None), ("noto-v1", "Emoji", "Apache-2.0", None),
    ("fxemoji", "Emoji", "Apache-2.0", None), ("game-icons", "Thematic", "CC-BY-3.0", None),
    ("twemoji", "Emoji", "CC-BY-4.0", None),  # labelled one by one already
    ("simple-icons", "Logos", "CC0-1.0", None), ("fa-brands", "Archive", "CC-BY-4.0", None),
    ("ps", None, "CC-BY-NC-4.0", None),
])  # fmt: skip
def test_a_set_has_a_part_by_its_hand_its_kind_and_its_licence(prefix, category, licence, part):
    info = {"license": {"spdx": licence}} | ({"category": category} if category else {})
    assert icons.part_of(prefix, info) == part
