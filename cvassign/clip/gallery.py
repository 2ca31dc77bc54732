# LLM-assisted: prompts P3, P4, see report.md
"""Labelled pictures in many styles, and the rule that picks 3.1.4's examples.

The project carries a small gallery of openly licensed ones (`gallery/`); a folder
of the same form adds to it where `CVASSIGN_DATA` names one.

    python -m cvassign.clip.gallery FOLDER     # writes gallery/ anew from such a folder
"""

import csv
import os
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cvassign.clip import imagenet
from cvassign.files import replacing

COLUMNS = ("path", "imagenet_class_index", "synset", "style", "kind", "licence", "attribution",
           "source_repo", "may_be_committed", "accept_indices")  # fmt: skip
BUNDLED = Path(__file__).resolve().parents[2] / "gallery"
# The openly licensed sources on which the text-aligned twin is never trained.
SOURCES = ("tuxpaint", "gcompris", "fluent-emoji", "fxemoji", "game-icons")
RENDITIONS, OF_TRAINING, SIDE = 6, 2, 224
CLOSE = 0.4  # of a photo's side, in a close-up
MISLABELLED = ("chestnut",)  # an edible one, labelled as buckeye


@dataclass(frozen=True)
class Picture:
    """One row of the gallery's manifest."""

    path: Path
    index: int  # of its class
    accept: tuple[int, ...]  # classes that count as right: some look alike by their names alone
    style: str
    kind: str  # "photo" or "rendition"
    source: str
    licence: str
    attribution: str
    may_be_shown: bool  # openly licensed: a committed figure may show it

    @property
    def class_name(self) -> str:
        """The curated name of its class."""
        return imagenet.class_names()[self.index]

    @property
    def branch(self) -> str:
        """Its class's branch of the hierarchy."""
        return imagenet.branch(imagenet.classes()[self.index].wnid)


def load() -> list[Picture]:
    """The project's own gallery, and after it `images` in the folder that CVASSIGN_DATA names.

    Raises:
        FileNotFoundError: when there is neither.
    """
    data = Path(os.environ.get("CVASSIGN_DATA", "data")) / "images"
    folders = [f for f in (BUNDLED, data) if (f / "manifest.csv").exists()]
    if not folders:
        raise FileNotFoundError("expected gallery/manifest.csv in the project, or a folder that "
                                "CVASSIGN_DATA names with images/manifest.csv; got neither")  # fmt: skip
    found = {}
    for folder in folders:
        for p in read(folder):  # the same name below the folder is the same picture
            found.setdefault(p.path.relative_to(folder).with_suffix(""), p)
    return list(found.values())


def read(folder: Path) -> list[Picture]:
    """The pictures of one folder with a manifest.csv.

    Raises:
        FileNotFoundError: when there is no manifest.csv.
        ValueError: when it lacks a column or its classes disagree with the synsets.
    """
    folder = Path(folder)
    file = folder / "manifest.csv"
    if not file.exists():
        raise FileNotFoundError(f"expected manifest.csv in {folder.name}/, got none")
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if missing := set(COLUMNS) - set(rows[0] if rows else ()):
        raise ValueError(f"{file}: columns missing: {', '.join(sorted(missing))}")
    pictures = []
    for r in rows:
        index = int(r["imagenet_class_index"])
        if imagenet.classes()[index].wnid != r["synset"]:
            raise ValueError(f"{r['path']}: class {index} is {imagenet.classes()[index].wnid}, "
                             f"the manifest says {r['synset']}")  # fmt: skip
        accept = tuple(int(i) for i in r["accept_indices"].split("|") if i) or (index,)
        pictures.append(Picture(folder / r["path"], index, accept, r["style"], r["kind"],
                                r["source_repo"], r["licence"], r["attribution"],
                                r["may_be_committed"] == "yes"))  # fmt: skip
    return pictures


def close_ups(pictures: list[Picture], folder: Path) -> list[Picture]:
    """The middle of each photo, `CLOSE` of its side, as pictures of the style "close-up": what is
    left is mostly texture. They are written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for i, p in enumerate(pictures):
        if p.kind != "photo":
            continue
        path = folder / f"{i:04d}.png"
        image = imagenet.open_rgb(p.path)
        w, h = image.size
        left, top = (round(s * (1 - CLOSE) / 2) for s in (w, h))
        with replacing(path) as temporary:
            image.crop((left, top, w - left, h - top)).save(temporary, "png")
        found.append(replace(p, path=path, style="close-up", attribution=f"{p.attribution}; cropped"))
    return found


def hits(pictures: list[Picture], logits: Tensor, k: int = 5) -> Tensor:
    """Whether an accepted class is among the k best: (n,) bool for (n, 1000) logits."""
    top = logits.topk(k).indices.tolist()
    return torch.tensor([bool(set(p.accept) & set(t)) for p, t in zip(pictures, top)])


def rates(pictures: list[Picture], hit: Tensor) -> dict[str, tuple[float, int]]:
    """{style: (share of hits, number of pictures)}, the best style first."""
    out = {}
    for style in {p.style for p in pictures}:
        mine = torch.tensor([p.style == style for p in pictures])
        out[style] = (hit[mine].double().mean().item(), int(mine.sum()))
    return dict(sorted(out.items(), key=lambda item: (-item[1][0], item[0])))


def select(
    pictures: list[Picture], first: Tensor, second: Tensor, n_classes: int = 10, per_branch: int = 2
) -> dict[int, tuple[list[Picture], Picture]]:
    """The assignment's pick: classes with two pictures that only the first model gets in its
    top-5 and one that only the second gets.

    Args:
        first, second: (n,) bool, the models' hits.
        per_branch: classes of one branch at most; every branch gives one before any gives two.

    Returns:
        {class index: ([picture, picture], picture)}; fewer than `n_classes` when there are no more.
        Pictures that may be shown are preferred, then two of different styles.
    """
    only_first, only_second = {}, {}
    by_licence = sorted(zip(pictures, first.tolist(), second.tolist()),
                        key=lambda row: not row[0].may_be_shown)  # fmt: skip
    for p, a, b in by_licence:
        if a != b:
            (only_first if a else only_second).setdefault(p.index, []).append(p)

    def rank(index: int, wins: list[Picture]) -> tuple[bool, int]:
        """Classes whose three pictures may all be shown come first."""
        losses = only_second.get(index, [])
        shown = sum(p.may_be_shown for p in wins) > 1 and any(p.may_be_shown for p in losses)
        return not shown, index

    chosen, used = {}, {}
    for turn in range(per_branch):
        for index, wins in sorted(only_first.items(), key=lambda item: rank(*item)):
            losses, branch = only_second.get(index, []), wins[0].branch
            if index in chosen or len(wins) < 2 or not losses or used.get(branch, 0) > turn:
                continue
            if len(chosen) == n_classes:
                return chosen
            others = [p for p in wins[1:] if p.may_be_shown == wins[1].may_be_shown]
            other = next((p for p in others if p.style != wins[0].style), wins[1])
            chosen[index] = ([wins[0], other], losses[0])
            used[branch] = used.get(branch, 0) + 1
    return chosen


def bundle(folder: Path, out: Path = BUNDLED) -> int:
    """Copies the openly licensed pictures of a folder into the project's own gallery, by rule.

    Of each class every photo and up to `RENDITIONS` renditions, one of every style before a second
    of any, of the twin's training sources at most `OF_TRAINING`; as WebP of `SIDE` pixels.

    Returns:
        The number of pictures.
    """
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = [r for r in csv.DictReader(stream) if r["may_be_committed"] == "yes"]
    by_class = defaultdict(list)
    for r in rows:
        if Path(r["path"]).stem not in MISLABELLED:
            by_class[int(r["imagenet_class_index"])].append(r)
    chosen = []
    for mine in by_class.values():
        chosen += [r for r in mine if r["kind"] == "photo"]
        count, left = Counter(), {True: OF_TRAINING, False: RENDITIONS}
        renditions = [r for r in mine if r["kind"] != "photo"]
        for r in renditions:
            r["known"] = not any(s in r["source_repo"] for s in SOURCES)
            count[r["style"], r["known"]] += 1
            r["again"] = count[r["style"], r["known"]]
        taken = []
        for r in sorted(renditions, key=lambda r: (r["known"], r["again"], r["path"])):
            if left[r["known"]] and len(taken) < RENDITIONS:
                left[r["known"]] -= 1
                taken.append(r)
        chosen += taken
    for r in chosen:
        image = imagenet.open_rgb(folder / r["path"])
        image.thumbnail((SIDE, SIDE))
        r["path"] = Path(r["path"]).with_suffix(".webp").as_posix()
        (out / r["path"]).parent.mkdir(parents=True, exist_ok=True)
        image.save(out / r["path"], quality=75, method=6)
    with replacing(out / "manifest.csv") as file, \
            file.open("w", newline="", encoding="utf-8") as stream:  # fmt: skip
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(chosen, key=lambda r: r["path"]))
    return len(chosen)


if __name__ == "__main__":
    print(bundle(Path(sys.argv[1])), "pictures in", BUNDLED.name)
