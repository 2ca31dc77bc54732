# LLM-assisted: prompts P1, P3, P15, P16, see report.md
"""Addresses, packages and bars, against a server and programs that behave as badly as real ones."""

import hashlib
import io
import sys
from contextlib import nullcontext
from dataclasses import replace

import nbformat
import pooch
import pytest
from nbclient import NotebookClient

from cvassign import fetching
from cvassign.fetching import AssetError, Source, download

PACKAGE = Source("npm", "w@1.0.0", hashlib.sha256(b"package").hexdigest(), 95_000_000)
NPM = """
assert sys.argv[1:] == ['pack', '--silent', 'w@1.0.0']
pathlib.Path('w-1.0.0.tgz').write_bytes(b'package')"""


@pytest.fixture
def source(server) -> Source:
    return Source("url", f"{server.address}/w.pth", hashlib.sha256(server.content).hexdigest())


FAULTS = [({"cut": 2}, 3, ""), ({"cut": 3}, 3, "(?i)incomplete")]  # broken off twice, for ever
FAULTS += [({"content": b"<html>"}, 3, "known hash: expected"), ({"lost": True}, 1, "404")]


@pytest.mark.parametrize("fault, asked, why", FAULTS)
def test_a_download_is_whole(fault, asked, why, server, source, tmp_path, capsys, monkeypatch):
    """And nothing is printed where nobody looks, not by pooch either."""
    monkeypatch.setattr(pooch.get_logger().handlers[0], "stream", sys.stderr)
    vars(server).update(fault)
    with pytest.raises(AssetError, match=why) if why else nullcontext():
        for _ in range(2):  # what is there is not asked for again
            download(source, tmp_path / "w.pth")
    assert len(server.asked) == asked and capsys.readouterr() == ("", "")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if why else [server.content])


def test_names_are_left_to_a_proxy(server, source, tmp_path, monkeypatch):
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server.address.replace("//", "//user:secret@"))
    source, server.lost = replace(source, ref="http://no-such-host.invalid/w.pth"), True
    with pytest.raises(AssetError, match=r"\A(?!.*secret).*404"):
        download(source, tmp_path / "w.pth")
    server.lost = False
    download(source, tmp_path / "w.pth")
    assert server.asked == [source.ref] * 2


@pytest.mark.parametrize("name", ("npm", "npm.cmd"))  # `which` finds the second on Windows
def test_npm_is_called_as_configured_and_checked(name, programs, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "which", lambda _: str(tmp_path / "bin" / name))
    programs(name, NPM.replace("package", "another"))
    with pytest.raises(AssetError, match="known hash: expected"):
        download(PACKAGE, tmp_path / "w.tgz")
    for code in ("0", "'npm ERR! 404 at https://user:secret@a.example/w'"):
        programs(name, f"sys.exit({code})")
        with pytest.raises(AssetError, match="npm failed: (npm ERR! 404 at <address>|0 files)$"):
            download(PACKAGE, tmp_path / "w.tgz")
    assert {p.name for p in tmp_path.iterdir()} == {"bin"}
    programs(name, NPM)
    download(PACKAGE, tmp_path / "w.tgz")
    assert (tmp_path / "w.tgz").read_bytes() == b"package"


@pytest.mark.parametrize(
    "name, before", (("python", ["-m", "pip"]), ("uv", ["tool", "run", "pip"]), ("pip3", []))
)
def test_pip_is_this_pythons_or_another(name, before, programs, tmp_path, monkeypatch):
    wheel = Source("pip", "w==1.0", PACKAGE.sha256)
    monkeypatch.setattr(fetching, "find_spec", lambda _: name == "python")
    options = "download --no-deps --only-binary=:all: --quiet --dest=. w==1.0".split()
    check = f"assert sys.argv[1:] == {before + options}\n"
    programs(name, f"{check}pathlib.Path('w-1.0-py3-none-any.whl').write_bytes(b'package')")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    download(wheel, tmp_path / "w.whl")
    (tmp_path / "bin" / name).unlink()
    monkeypatch.setattr(fetching, "find_spec", lambda _: None)
    with pytest.raises(AssetError, match="pip is not installed"):
        download(wheel, tmp_path / "other.whl")


def test_a_terminal_shows_a_bar_that_is_gone_afterwards(programs, tmp_path, monkeypatch):
    programs("npm", NPM)
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    terminal.isatty = lambda: True
    download(PACKAGE, tmp_path / "w.tgz")
    lines = [line.strip() for line in terminal.getvalue().split("\r")]
    assert "fetching w@1.0.0 (95 MB) through npm …" in lines and lines[-2:] == ["", ""]


def test_a_notebook_shows_a_bar_that_is_gone_afterwards():
    program = """
from unittest.mock import patch
from IPython.display import DisplayHandle
from cvassign import fetching
options = dict(autospec=True, side_effect=DisplayHandle.update)
with patch.object(DisplayHandle, "update", **options) as update:
    list(fetching.bar("photos", iterable=range(3), total=3, mininterval=0))
assert "'photos:  67%|" in str(update.mock_calls), update.mock_calls"""
    cell = nbformat.v4.new_code_cell(program)
    NotebookClient(nbformat.v4.new_notebook(cells=[cell]), kernel_name="python3").execute()
    (output,) = cell.outputs
    assert output.output_type == "display_data" and output.data == {"text/plain": ""}
