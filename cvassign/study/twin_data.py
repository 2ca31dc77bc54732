# LLM-assisted: prompts P4, see report.md
"""What the text-aligned twin is trained, validated and tested on: pictures, words and features.

A *source* is the collection that a picture comes from. Each belongs to one of three parts, wholly:
pictures of one source share a hand and often a template, so a random split would test memory.
"""

import hashlib
import io
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cvassign import assets
from cvassign.clip import gallery, imagenet
from cvassign.study import icons
from cvassign.files import replacing

# Part by the words that name a source. The test sources are the project's gallery (openly licensed,
# shown in notebook 3) and photos and renditions to measure on; training never sees them. Sets of icons
# are parted in icons.py.
PARTS = {
    "train": ("openclipart", "openmoji", "twemoji", "PACS", "ImageNet-Sketch",
              "imagenet-sample-images", "foolbox"),
    "validation": ("Caltech101", "noto-emoji"),  # photos and drawings; emoji
    "test": ("tuxpaint", "gcompris", "fluent-emoji", "fxemoji", "game-icons", "ajschumacher/imagen",
             "Translation-Invariant", "texture-vs-shape", "hendrycks"),
}  # fmt: skip
MAX_TITLE = 5  # a title on more pictures names a series ("card"), not what one of them shows
MAX_PIXELS = 4_000_000  # a few pictures of the package are posters of 200 million
SERIES = ("signs_and_symbols/flags", "computer/icons", "special/")  # no things to recognise


def part_of(source: str) -> str:
    """The part ("train", "validation" or "test") of a source by its name.

    Raises:
        ValueError: for a source that no part names: it must be decided, not guessed.
    """
    found = _parts(source)
    if len(found) != 1:
        raise ValueError(f"expected one part for the source {source!r}, got {found or 'none'}")
    return found[0]


def _parts(source: str) -> list[str]:
    """The parts that name the source."""
    package, _, prefix = source.rpartition("/")
    if package == icons.PACKAGE:
        return ["validation" if prefix in icons.VALIDATION else "train"]
    return [part for part, words in PARTS.items() if any(w in source for w in words)]


def split(pictures: list[gallery.Picture]) -> dict[str, list[gallery.Picture]]:
    """The pictures by part, each source wholly in one."""
    out = {part: [] for part in PARTS}
    for p in pictures:
        out[part_of(p.source)].append(p)
    return out


def held_out(pictures: list[gallery.Picture], known: tuple[str, ...] = ("train", "validation")
             ) -> list[gallery.Picture]:  # fmt: skip
    """The pictures of sources that the twin does not know.

    A source that no part names was not at hand when the twin was trained, so it counts.

    Args:
        known: the parts that are left out; the validation's pictures chose the epoch alone.
    """
    return [p for p in pictures if not set(_parts(p.source)) & set(known)]


@dataclass(frozen=True)
class Captioned:
    """A picture with its author's words instead of a class."""

    image: Image.Image  # RGB, shorter side 256: what the preprocessing makes of it anyway
    title: str
    caption: str  # the title, and the description where it says more
    path: str  # in the package


def openclipart() -> list[Captioned]:
    """The pictures of the Debian package openclipart-png whose title says what they show.

    Left out: titles that more than `MAX_TITLE` pictures share, flags, icon themes, patterns,
    posters, and files that are links to others.

    Raises:
        assets.AssetError: when the package cannot be had.
    """
    found = []
    with debian_files(assets.fetch("openclipart-png")) as tar:
        for member in tar:
            name = member.name.partition("openclipart/png/")[2]
            if not member.isfile() or not name.endswith(".png") or name.startswith(SERIES):
                continue
            data = tar.extractfile(member).read()
            width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
            if width * height > MAX_PIXELS:
                continue
            image = Image.open(io.BytesIO(data))
            title, more = (str(image.info.get(k, "")).strip() for k in ("Title", "Description"))
            if title:
                image = imagenet.open_rgb(image)
                scale = 256 / min(image.size)
                image = image.resize([max(256, round(scale * s)) for s in image.size],
                                     Image.Resampling.BICUBIC, reducing_gap=2)  # fmt: skip
                differs = more and more.lower() != title.lower()
                found.append(Captioned(image, title, f"{title}, {more}"[:120] if differs else title,
                                       name))  # fmt: skip
    often = Counter(c.title.lower() for c in found)
    return sorted((c for c in found if often[c.title.lower()] <= MAX_TITLE), key=lambda c: c.path)


def debian_files(package: Path) -> tarfile.TarFile:
    """The files of a .deb as an open tar: the archive (ar) holds three members, data.tar last."""
    data = package.read_bytes()
    if not data.startswith(b"!<arch>\n"):
        raise ValueError(f"{package.name}: expected a Debian package, got {data[:8]!r}")
    at = 8
    while at < len(data):
        name, size = data[at : at + 16].strip(), int(data[at + 48 : at + 58])
        if name.startswith(b"data.tar"):
            return tarfile.open(fileobj=io.BytesIO(data[at + 60 : at + 60 + size]))
        at += 60 + size + size % 2  # members start at even places
    raise ValueError(f"{package.name}: expected a member data.tar, got none")


class Features:
    """ResNet-50's 2048 numbers of a picture before its last layer, computed once.

    Kept in a file by the picture's content and the network's weights, so another picture under an
    old name, or another network, is no hit.

    Args:
        classifier: its last layer is left out here and stays as `fc` for the logits.
        file: default `twin-features.safetensors` in the cache folder; False for none.
    """

    def __init__(self, classifier: imagenet.Classifier, file: Path | bool | None = None):
        self.name, self.preprocess = classifier.name, classifier.preprocess
        self._model, self.fc = classifier.model, classifier.model.fc
        self.trunk = nn.Sequential(*list(classifier.model.children())[:-1], nn.Flatten())
        self.trunk.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
        if file is None:
            file = assets.cache_dir() / "twin-features.safetensors"
        self.file = file or None
        mark = self.fc.weight.detach().float().cpu().numpy().tobytes()
        self._mark = hashlib.sha256(mark + repr(self.preprocess).encode()).digest()
        self._known: dict[str, Tensor] = {}
        if self.file and self.file.exists():
            self._known = load_file(self.file)

    def _key(self, image, fast: bool) -> str:
        content = (image.tobytes() + str(image.size).encode() if isinstance(image, Image.Image)
                   else Path(image).read_bytes())  # fmt: skip
        return hashlib.sha256(self._mark + b"bf16" * fast + content).hexdigest()[:24]

    @torch.inference_mode()
    def __call__(
        self, images: list, batch_size: int = 16, progress: bool = False, fast: bool = False
    ) -> Tensor:
        """Pictures or their files to features (n, 2048), fp32, on the CPU.

        Args:
            fast: convolutions in bf16, two to three times as fast on a CPU that has it. For
                training alone: the rounding is small beside what pictures of one thing differ by.
        """
        keys = [self._key(i, fast) for i in images]
        todo = list({k: i for k, i in zip(keys, images) if k not in self._known}.items())
        for start in range(0, len(todo), batch_size):
            some = todo[start : start + batch_size]
            batch = imagenet.stack([i for _, i in some], self.preprocess, self.trunk)
            batch = batch.to(memory_format=torch.channels_last)
            with torch.autocast(batch.device.type, torch.bfloat16, enabled=fast):
                features = self.trunk(batch).float().cpu()
            for (key, _), feature in zip(some, features):
                self._known[key] = feature.clone()
            if progress and start // batch_size % 10 == 0:
                print(f"features: {start + len(some)} of {len(todo)}", flush=True)
            if start // batch_size % 50 == 49:
                self._save()
        if todo:
            self._save()
        return torch.stack([self._known[k] for k in keys])

    def _save(self) -> None:
        if self.file:
            with replacing(self.file) as temporary:
                save_file(self._known, temporary)

    @torch.inference_mode()
    def logits(self, features: Tensor) -> Tensor:
        """The classifier's own logits (n, 1000) of features (n, 2048)."""
        return self.fc(features.to(self.fc.weight)).float().cpu()

    @property
    def classifier(self) -> "KnownClassifier":
        """The classifier of these features."""
        return KnownClassifier(self.name, self._model, self.preprocess, self)


@dataclass(frozen=True)
class KnownClassifier(imagenet.Classifier):
    """A classifier that takes its trunk's features from where they are kept."""

    features: Features

    def logits(self, images: list, batch_size: int = 16) -> Tensor:
        """See `imagenet.Classifier`."""
        return self.features.logits(self.features(images, batch_size))
