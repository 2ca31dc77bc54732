# LLM-assisted: prompts P3, P4, see report.md
"""Labelled pictures in many styles, and the rule that picks 3.1.4's examples.

The project carries a small gallery of openly licensed ones (`gallery/`, at most 300 files); a folder
of the same form adds to it where `CVASSIGN_DATA` names one.

    python -m cvassign.clip.gallery FOLDER     # writes gallery/ anew from such a folder
"""

import csv
import os
import shutil
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cvassign.clip import imagenet
from cvassign.files import replacing

COLUMNS = ("path", "imagenet_class_index", "synset", "style", "kind", "licence", "attribution",
           "source_repo", "may_be_committed", "accept_indices")  # fmt: skip
BUNDLED = Path(__file__).resolve().parents[2] / "gallery"
# Of these openly licensed sources; the text-aligned twin is never trained on them.
SOURCES = ("tuxpaint", "gcompris", "fluent-emoji", "fxemoji", "game-icons")
MAX_FILES, MAX_SIDE, MAX_BYTES = 300, 320, 1_500_000


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
            found.setdefault(p.path.relative_to(folder).as_posix(), p)
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


# What a style shows of a thing, and what it leaves out.
STYLES = {
    "emoji_flat": "flat areas of one colour each and no texture",
    "emoji_3d": "smooth shading without fur, grain or background",
    "icon_mono": "one colour on white: a shape and nothing else",
    "clipart": "outlines and even fillings, no surface of the real thing",
    "cartoon": "outlines and even fillings, proportions exaggerated",
    "lineart": "lines alone: neither colour nor surface",
    "sketch": "lines alone: neither colour nor surface",
    "edge": "edges alone: neither colour nor surface",
    "silhouette": "an outline filled with black",
    "painting": "brush strokes in the place of the real surface",
    "stylized": "the shape of one thing under the texture of another",
    "sculpture": "the shape in stone, wood or metal",
    "photo_cutout": "the real surface, cut out on white without its surroundings",
    "photo": "the real surface in real surroundings",
    "photo_adversarial": "a photo chosen because classifiers fail on it",
}  # fmt: skip
# Two classes that meet at a synset with so many classes below it are one sort of thing (27 are
# insects), or alike in the rough (212 are placental mammals).
NEAR, ROUGH = 30, 250


def reason(picture: Picture, wrong: int, vectors: Tensor | None = None) -> str:
    """Why a model may have missed a picture: from its style, and from what it answered first.

    Args:
        wrong: class index of that first answer.
        vectors: (1000, E) the class vectors of a model that knows classes by their words.
    """
    names, classes = imagenet.class_names(), imagenet.classes()
    common = imagenet.lowest_common_hypernym(classes[picture.index].wnid, classes[wrong].wnid)
    lemma = imagenet.synsets()[common].lemmas[0]
    below = sum(any(common in path for path in imagenet.paths(c.wnid)) for c in classes)
    style = STYLES.get(picture.style, f"what *{picture.style}* makes of the thing")
    text = (f"The picture has {style}. The answer *{names[wrong]}* meets the right one in WordNet at "
            f"*{lemma}*, above {below} of the 1000 classes: ")  # fmt: skip
    if below <= NEAR:
        text += "the sort of thing is right, the kind is not"
    elif below <= ROUGH:
        text += "right in the rough alone"
    else:
        text += "no kinship, so likely shape or surface led there"
    if vectors is not None:
        cosine = float(vectors[wrong] @ vectors[picture.index])
        nearer = int((vectors @ vectors[picture.index] > cosine).sum())  # itself is one of them
        text += (f". By their sentences it is number {max(nearer, 1)} of the right name's 999 "
                 f"neighbours (cosine {cosine:.2f})")  # fmt: skip
    return text + "."


def retrieval(pictures: list[Picture], images: Tensor, texts: Tensor) -> dict[str, float]:
    """How often the first thing found is right, both ways, among the classes of the pictures.

    Args:
        images: (n, E) the pictures' embeddings, of length 1.
        texts: (1000, E) the class vectors.

    Returns:
        `classes`; `image to text`: share of pictures whose nearest class is accepted; `text to
        image`: share of classes whose nearest picture accepts them.
    """
    indices = sorted({p.index for p in pictures})
    cosine = images @ texts[indices].T  # (n, classes)
    there = [indices[i] in p.accept for p, i in zip(pictures, cosine.argmax(1).tolist())]
    back = [c in pictures[i].accept for c, i in zip(indices, cosine.argmax(0).tolist())]
    return {"classes": len(indices), "image to text": sum(there) / len(there),
            "text to image": sum(back) / len(back)}  # fmt: skip


def bundle(folder: Path, out: Path = BUNDLED) -> int:
    """Copies openly licensed pictures of `SOURCES` into the project's own gallery, by rule.

    Classes with a photo and two renditions come first, since 3.1.4 compares these; of each class a
    photo, then one picture of every style, three in all before a fourth of any class; the branches
    take turns; until `MAX_FILES` or `MAX_BYTES`.

    Returns:
        The number of pictures.
    """
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    by_class, turns, queue = defaultdict(list), Counter(), []
    for r in rows:
        if r["may_be_committed"] == "yes" and any(s in r["source_repo"] for s in SOURCES) \
                and max(int(r["width"]), int(r["height"])) <= MAX_SIDE:  # fmt: skip
            by_class[int(r["imagenet_class_index"])].append(r)
    for index, mine in sorted(by_class.items()):
        photos = [r for r in mine if r["kind"] == "photo"]
        whole = bool(photos) and len(mine) - len(photos) > 1
        key = whole, imagenet.branch(imagenet.classes()[index].wnid)
        turns[key] += 1
        count = Counter()
        for r in mine:
            count[r["style"]] += 1
            r["again"] = count[r["style"]]  # one picture of each style before a second of any
        mine.sort(key=lambda r: (r["again"], r["kind"] != "photo", r["path"]))
        queue += [(not whole, i // 3, turns[key], index, i, r) for i, r in enumerate(mine)]
    chosen, size = [], 0
    for *_, r in sorted(queue, key=lambda entry: entry[:-1]):
        size += (folder / r["path"]).stat().st_size
        if len(chosen) == MAX_FILES or size > MAX_BYTES:
            break
        chosen.append(r)
    for r in chosen:
        (out / r["path"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / r["path"], out / r["path"])
    with replacing(out / "manifest.csv") as file, \
            file.open("w", newline="", encoding="utf-8") as stream:  # fmt: skip
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(chosen, key=lambda r: r["path"]))
    return len(chosen)


if __name__ == "__main__":
    print(bundle(Path(sys.argv[1])), "pictures in", BUNDLED.name)
