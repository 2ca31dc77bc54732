# LLM-assisted: prompts P3, P4, P9, P15, see report.md
"""Labelled pictures in many styles, and the rule that picks 3.1.4's examples.

The project carries a small gallery of openly licensed ones (`gallery/`); a folder
of the same form adds to it where `CVASSIGN_DATA` names one, and so does

    python -m cvassign.clip.gallery get

which downloads one photo of each of ImageNet's classes into the cache.
"""

import csv
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cvassign import assets, fetching
from cvassign.clip import imagenet
from cvassign.command import Parser
from cvassign.files import replacing

COLUMNS = ("path", "imagenet_class_index", "synset", "style", "kind", "licence", "attribution",
           "source_repo", "may_be_committed", "accept_indices")  # fmt: skip
BUNDLED = Path(__file__).resolve().parents[2] / "gallery"
# The openly licensed sources on which the text-aligned twin is never trained.
SOURCES = ("tuxpaint", "gcompris", "fluent-emoji", "fxemoji", "game-icons")
# The public set imagenet-sample-images at one commit: file names, bytes and SHA-256.
SAMPLES = Path(__file__).with_name("imagenet_samples.csv")
REPOSITORY = "EliSchwartz/imagenet-sample-images"
COMMIT = "bc69043e2862758a1906c6a24a792bb28c6bb2ff"
ADDRESS = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}"
CLOSE_UP, CLOSE = "close-up", 0.4  # of a photo's side


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
    """The project's own gallery, after it `images` in the folder that CVASSIGN_DATA names, and the
    photos of `get`; FileNotFoundError when there is none of the first two."""
    data = assets.named("CVASSIGN_DATA")
    folders = [BUNDLED, data / "images"] if data else [BUNDLED]
    folders = [f for f in folders if (f / "manifest.csv").exists()]
    if not folders:
        raise FileNotFoundError("expected gallery/manifest.csv in the project, or a folder that "
                                "CVASSIGN_DATA names with images/manifest.csv; got neither")  # fmt: skip
    found = {}
    for folder in folders:
        for p in read(folder):  # the same name below the folder is the same picture
            found.setdefault(p.path.relative_to(folder).with_suffix(""), p)
    return [*found.values(), *samples()]


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
    """Windows of each photo, `CLOSE` of its side, in the middle and a fifth of the side to each of
    the four directions, as pictures of the style `CLOSE_UP`: what is left is mostly texture. They
    are written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for i, p in enumerate(p for p in pictures if p.kind == "photo"):
        image = imagenet.open_rgb(p.path)
        (w, h), half = image.size, CLOSE / 2
        for k, (x, y) in enumerate(((0.5, 0.5), (0.3, 0.5), (0.7, 0.5), (0.5, 0.3), (0.5, 0.7))):
            box = ((x - half) * w, (y - half) * h, (x + half) * w, (y + half) * h)
            path = folder / f"{i:04d}-{k}.png"
            with replacing(path) as temporary:
                image.crop(tuple(map(round, box))).save(temporary, "png")
            found.append(replace(p, path=path, style=CLOSE_UP,
                                 attribution=f"{p.attribution}; cropped"))  # fmt: skip
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
    """The assignment's pick, among the pictures that may be shown: classes with two that only the
    first model gets in its top-5 and one that only the second gets.

    Args:
        first, second: (n,) bool, the models' hits. A close-up counts for the second alone: several
            are of one photo.
        per_branch: classes of one branch at most; every branch gives one before any gives two.

    Returns:
        {class index: ([picture, picture], picture)}; fewer than `n_classes` when there are no more.
        The two are of different styles where the class has such.
    """
    only_first, only_second = defaultdict(list), defaultdict(list)
    for p, a, b in zip(pictures, first.tolist(), second.tolist()):
        if a != b and p.may_be_shown and not (a and p.style == CLOSE_UP):
            (only_first if a else only_second)[p.index].append(p)
    chosen, used = {}, Counter()
    for turn in range(per_branch):
        for index, wins in sorted(only_first.items()):
            branch = wins[0].branch
            if index in chosen or len(wins) < 2 or index not in only_second or used[branch] > turn:
                continue
            if len(chosen) == n_classes:
                return chosen
            other = next((p for p in wins[1:] if p.style != wins[0].style), wins[1])
            chosen[index] = [wins[0], other], only_second[index][0]
            used[branch] += 1
    return chosen


def get(folder: Path | None = None) -> list[Path]:
    """Downloads one photo of each class (imagenet-sample-images, `SAMPLES`) that is not here yet.

    Each file is verified by its SHA-256; the next call takes up what an interrupted one left.

    Args:
        folder: default `imagenet-samples` in the cache.

    Raises:
        assets.AssetError: when some cannot be had; the others are kept.
    """
    folder = folder or assets.cache_dir() / SAMPLES.stem
    with SAMPLES.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))

    def one(row: dict) -> str | None:
        source = fetching.Source("url", f"{ADDRESS}/{row['file']}", row["sha256"])
        try:
            fetching.download(source, folder / row["file"])
        except assets.AssetError as error:
            return f"{source.ref}: {error}"

    with ThreadPoolExecutor(8) as pool:  # each waits for the network
        errors = list(fetching.bar("photos", iterable=pool.map(one, rows), total=len(rows)))
    if failed := [e for e in errors if e]:
        raise assets.AssetError(f"{len(failed)} of {len(rows)} photos cannot be had, the first: "
                                f"{failed[0]}; run the command again to go on")  # fmt: skip
    return [folder / row["file"] for row in rows]


def samples() -> list[Picture]:
    """The photos that `get` has downloaded, none if it was not asked to. They are the user's own
    copies, under ImageNet's terms: shown in the user's notebook, never part of this project."""
    index = {c.wnid: i for i, c in enumerate(imagenet.classes())}
    folders = {f / SAMPLES.stem for f in (assets.cache_home(), assets.cache_dir())}
    files = sorted(file for f in folders for file in f.glob("n*.JPEG"))
    return [
        Picture(f, i := index[f.name[:9]], (i,), "photo", "photo", f"github:{REPOSITORY}",
                "ImageNet's terms (research and teaching)", "ImageNet", True) for f in files
    ]  # fmt: skip


if __name__ == "__main__":
    parser = Parser("cvassign.clip.gallery")
    parser.add_argument("command", choices=("get",), help="download one photo of each class")
    parser.parse_args()
    try:
        if assets.cache_dir() != assets.cache_home():
            raise assets.AssetError(f"{assets.cache_home()} cannot be written: set CVASSIGN_CACHE")
        print(len(get()), "photos, one a class, for notebook 3")
    except (assets.AssetError, ValueError) as error:
        parser.exit(1, f"{error}\n")
