# LLM-assisted: prompts P3, see report.md
"""A folder of labelled pictures in many styles, and the rule that picks 3.1.4's examples."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cvassign import imagenet

COLUMNS = ("path", "imagenet_class_index", "synset", "style", "kind", "licence", "attribution",
           "source_repo", "may_be_committed", "accept_indices")  # fmt: skip


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


def load(folder: Path | None = None) -> list[Picture]:
    """The gallery: `folder`, default `images` in the folder that CVASSIGN_DATA names.

    Raises:
        FileNotFoundError: when there is no manifest.csv.
        ValueError: when it lacks a column or its classes disagree with the synsets.
    """
    folder = Path(folder or Path(os.environ.get("CVASSIGN_DATA", "data")) / "images")
    file = folder / "manifest.csv"
    if not file.exists():
        raise FileNotFoundError("expected a folder with manifest.csv, named by CVASSIGN_DATA as "
                                "the folder above images/, got none")  # fmt: skip
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
        Two pictures of different styles are preferred.
    """
    only_first, only_second = {}, {}
    for p, a, b in zip(pictures, first.tolist(), second.tolist()):
        if a != b:
            (only_first if a else only_second).setdefault(p.index, []).append(p)
    chosen, used = {}, {}
    for turn in range(per_branch):
        for index, wins in sorted(only_first.items()):
            losses, branch = only_second.get(index, []), wins[0].branch
            if index in chosen or len(wins) < 2 or not losses or used.get(branch, 0) > turn:
                continue
            if len(chosen) == n_classes:
                return chosen
            other = next((p for p in wins[1:] if p.style != wins[0].style), wins[1])
            chosen[index] = ([wins[0], other], losses[0])
            used[branch] = used.get(branch, 0) + 1
    return chosen
