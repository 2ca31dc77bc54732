# LLM-assisted: prompts P3, P4, P9, P12, P14, P15, see report.md
"""Labelled pictures in many styles, and the rule that picks 3.1.4's examples.

The project carries openly licensed ones (`gallery/`); CVASSIGN_DATA may name more, and `python -m
cvassign.clip.gallery get` downloads one photo of each of ImageNet's classes into the cache."""

import csv
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from cvassign import assets, fetching, stats
from cvassign.clip import imagenet
from cvassign.command import Parser
from cvassign.pictures import open_rgb
from cvassign.progress import bar

COLUMNS = ("path", "imagenet_class_index", "synset", "style", "kind", "licence", "attribution",
           "source_repo", "may_be_committed", "accept_indices")  # fmt: skip
BUNDLED = Path(__file__).resolve().parents[2] / "gallery"
# The openly licensed sources on which the text-aligned twin is never trained.
SOURCES = ("tuxpaint", "gcompris", "fluent-emoji", "fxemoji", "game-icons")
# The public set imagenet-sample-images at one commit: file names, bytes and SHA-256.
SAMPLES = Path(__file__).with_name("imagenet_samples.csv")
REPOSITORY = "EliSchwartz/imagenet-sample-images"
ADDRESS = f"https://raw.githubusercontent.com/{REPOSITORY}/bc69043e2862758a1906c6a24a792bb28c6bb2ff"
CLOSE_UPS = (0.8, 0.6, 0.4)  # of a photo's side, the one that leaves the most first


@dataclass(frozen=True)
class Picture:
    """One row of the gallery's manifest."""

    path: Path
    index: int  # of its class
    accept: tuple[int, ...]  # labels that are right as well: some differ by their names alone
    style: str
    kind: str  # "photo" or "rendition"
    source: str
    licence: str
    attribution: str
    may_be_shown: bool  # openly licensed: a committed figure may show it
    # of a close-up: the photo's file, and left, top, right, bottom as shares of its sides
    cropped: tuple[Path, tuple[float, float, float, float]] | None = None

    @property
    def image(self) -> Image.Image:
        """In RGB, a window cut out of its photo: the models take a `Picture` as it is."""
        whole = open_rgb(self.path)
        shares = self.cropped[1] if self.cropped else (0, 0, 1, 1)
        return whole.crop(tuple(round(v * n) for v, n in zip(shares, whole.size * 2)))

    @property
    def class_name(self) -> str:
        """The curated name of its class."""
        return imagenet.class_names()[self.index]

    @property
    def source_order(self) -> tuple:
        """Whole photos before renditions before close-ups, the widest of these first."""
        left, _, right, _ = self.cropped[1] if self.cropped else (0, 0, 1, 1)
        return bool(self.cropped), self.kind != "photo", round(left - right, 6)

    @property
    def branch(self) -> str:
        """Its class's branch of the hierarchy."""
        return imagenet.branch(imagenet.classes()[self.index].wnid)


def more() -> list[Picture]:
    """What `images` in the folder that CVASSIGN_DATA names has beside the project's own gallery, by
    file name: counted apart, since no committed figure may depend on it."""
    folder = (assets.named("CVASSIGN_DATA") or BUNDLED) / "images"
    if not (folder / "manifest.csv").exists():
        return []
    own = {p.path.relative_to(BUNDLED).with_suffix("") for p in read(BUNDLED)}
    return [p for p in read(folder) if p.path.relative_to(folder).with_suffix("") not in own]


def read(folder: Path) -> list[Picture]:
    """The pictures of one folder with a manifest.csv; ValueError when it lacks a column or its
    classes disagree with the synsets."""
    rows, pictures = _rows(folder / "manifest.csv"), []
    if missing := set(COLUMNS) - set(rows[0] if rows else ()):
        raise ValueError(f"{folder}/manifest.csv: columns missing: {', '.join(sorted(missing))}")
    for r in rows:
        index, synset, path = int(r["imagenet_class_index"]), r["synset"], r["path"]
        if (wnid := imagenet.classes()[index].wnid) != synset:
            raise ValueError(f"{path}: class {index} is {wnid}, the manifest says {synset}")
        accept = tuple(int(i) for i in r["accept_indices"].split("|") if i) or (index,)
        words = (r[k] for k in ("style", "kind", "source_repo", "licence", "attribution"))
        shown = r["may_be_committed"] == "yes"
        pictures.append(Picture(folder / path, index, accept, *words, shown))
    return pictures


def _rows(file: Path) -> list[dict]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def close_ups(pictures: list[Picture]) -> list[Picture]:
    """Windows of each photo, of each of `CLOSE_UPS`, in the middle and moved to each of the four
    directions, by a fifth of the photo's side or up to its border."""
    found = []
    for p, size in product((p for p in pictures if p.kind == "photo"), CLOSE_UPS):
        a, b, c = (0.5 - size / 2 + m * min(0.2, 0.5 - size / 2) for m in (-1, 0, 1))
        said = dict(style=f"close-up {size:.0%}", attribution=f"{p.attribution}; cropped")
        for x, y in ((b, b), (a, b), (c, b), (b, a), (b, c)):
            box = tuple(round(v, 6) for v in (x, y, x + size, y + size))
            found.append(replace(p, cropped=(p.path, box), **said))
    return found


def hits(pictures: list[Picture], logits: Tensor, k: int = 5, accepted: bool = False) -> Tensor:
    """Whether the own class, or with `accepted` any that counts as right, is among the k best:
    (n,) bool for (n, 1000) logits."""
    top = logits.topk(k).indices.tolist()
    right = [set(p.accept) if accepted else {p.index} for p in pictures]
    return torch.tensor([bool(r & set(t)) for r, t in zip(right, top)])


def rates(groups: dict[str, list[Picture]], models: list) -> dict[str, dict[str, str]]:
    """{group: {"pictures": n, "MODEL, top-k %": rate}} for k = 1 and 5, of models with a `name` and
    `logits(pictures) -> (n, 1000)`; empty groups are left out."""
    table = {group: {"pictures": str(len(some))} for group, some in groups.items() if some}
    for (group, row), m in product(table.items(), models):
        logits = m.logits(groups[group])
        for k in (1, 5):
            rate = 100 * hits(groups[group], logits, k).float().mean()
            row[f"{m.name}, top-{k} %"] = f"{rate:.1f}"
    return table


def by_style(pictures: list[Picture], first: Tensor, second: Tensor) -> dict[str, dict]:
    """Two models' hits (n,) as {style: {"n": pictures, "rates": [%, %], "difference":
    `stats.Difference`}}, the style best for the second first. The difference, second minus first,
    is over photos: five close-ups of one are no five samples."""
    out = {}
    for style in {p.style for p in pictures}:
        mine = [i for i, p in enumerate(pictures) if p.style == style]
        pair, photos = (first[mine], second[mine]), [str(pictures[i].path) for i in mine]
        out[style] = {"n": len(mine), "rates": [100 * hit.double().mean().item() for hit in pair]}
        out[style]["difference"] = stats.clustered_bootstrap(*pair, photos, "photos")
    return dict(sorted(out.items(), key=lambda item: (-item[1]["rates"][1], item[0])))


def select(
    pictures: list[Picture], first: Tensor, second: Tensor, n_classes: int = 10, per_branch: int = 3
) -> dict[int, tuple[list[Picture], Picture]]:
    """The assignment's pick, among the pictures that may be shown: classes with two that only the
    first model gets in its top-5 and one that only the second gets.

    The models' hits are (n,) bool. Whole photos go before renditions, these before close-ups
    (`Picture.source_order`), and classes whose two are whole pictures before others. The two are of
    different photos, and of different styles where the class has such. Every branch gives one class
    before any gives two, and `per_branch` at most; fewer than `n_classes` when there are no more.
    """
    only_first, only_second = defaultdict(list), defaultdict(list)
    scored = zip(pictures, first.tolist(), second.tolist())
    for p, a, b in sorted(scored, key=lambda x: x[0].source_order):
        if a != b and p.may_be_shown:
            (only_first if a else only_second)[p.index].append(p)
    found = {}
    for index in sorted(set(only_first) & set(only_second)):
        one, *others = only_first[index]
        if others := [p for p in others if p.path != one.path]:
            other = min(others, key=lambda p: (bool(p.cropped), p.style == one.style))
            found[index] = [one, other], only_second[index][0]
    chosen, used = {}, Counter()
    for whole in (True, False):
        for turn in range(per_branch):
            for index, (wins, loss) in found.items():
                free = index not in chosen and used[loss.branch] <= turn
                if free and len(chosen) < n_classes and whole != any(p.cropped for p in wins):
                    chosen[index] = wins, loss
                    used[loss.branch] += 1
    return chosen


def contest(pictures: list[Picture], first, second) -> dict[int, tuple[list[Picture], Picture]]:
    """`select` for two models with `logits(pictures) -> (n, 1000)`. Close-ups are only scored where
    they can matter: of photos of classes with two pictures that the first model alone gets."""
    one, other = (hits(pictures, m.logits(pictures)).tolist() for m in (first, second))
    wins = Counter(p.index for p, a, b in zip(pictures, one, other) if a and not b)
    pictures = pictures + close_ups([p for p in pictures if wins[p.index] > 1])
    return select(pictures, *(hits(pictures, m.logits(pictures)) for m in (first, second)))


def get(folder: Path | None = None) -> list[Path]:
    """Downloads one photo of each class (`SAMPLES`) that is not here yet, verified by its SHA-256.
    AssetError when some cannot be had; the others are kept."""
    folder, photos = folder or assets.cache_dir() / SAMPLES.stem, []
    for row in _rows(SAMPLES):
        source = fetching.Source("url", f"{ADDRESS}/{row['file']}", row["sha256"])
        photos.append((source, folder / row["file"]))
    fetching.download(*photos[0])  # without a network all would fail, one after another
    with ThreadPoolExecutor(8) as pool:  # each waits for the network
        tasks = bar("photos", iterable=[pool.submit(fetching.download, *photo) for photo in photos])
        errors = [error for task in tasks if (error := task.exception())]
    if errors:
        what = f"{len(errors)} of {len(photos)} photos cannot be had, the first: {errors[0]}"
        raise assets.AssetError(f"{what}; run the command again to go on")
    return [file for _, file in photos]


def samples(fetch: bool = False) -> list[Picture]:
    """The photos that `get` has downloaded; with `fetch` it is called first, and what cannot be had
    is left out. They are the user's own copies, under ImageNet's terms: shown in the user's
    notebook, never part of this project."""
    if fetch:
        with suppress(assets.AssetError):
            get()
    index = {c.wnid: i for i, c in enumerate(imagenet.classes())}
    folders = {f / SAMPLES.stem for f in (assets.cache_home(), assets.cache_dir())}
    files = sorted(file for f in folders for file in f.glob("n*.JPEG"))
    about = "photo", "photo", f"github:{REPOSITORY}", "ImageNet's terms (research and teaching)"
    return [Picture(f, i := index[f.name[:9]], (i,), *about, "ImageNet", True) for f in files]


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
