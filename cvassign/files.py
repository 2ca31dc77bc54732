# LLM-assisted: prompts P1, P6, P10, P15, see report.md
"""Files that are whole or absent, whatever ends the program that writes them."""

import argparse
import codecs
import os
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to, which takes the place of `path` when the block has ended well.

    Renaming is atomic: a reader sees the old file or the new one, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Removes what writers of `path` left that were killed: temporaries of processes that are no
    more, once they are an hour old (a process on another machine may share the folder)."""
    for stale in path.parent.glob(f"{path.name}.*.tmp"):
        try:
            number = int(stale.name.split(".")[-2])
            if time.time() - stale.stat().st_mtime > 3600 or not _runs(number):
                stale.unlink(missing_ok=True)
        except (ValueError, OSError):
            continue  # not one of ours, or gone already


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it runs, as somebody else
    return True


class CheckpointError(ValueError):
    """A file of weights that cannot be read; the message says what it is instead."""


def load_checkpoint(path: Path | str, device="cpu"):
    """What torch.save wrote, read as data: nothing in the file is run.

    Training scripts keep numpy scalars (learning rates) and their command line beside the weights;
    these few harmless types are allowed. CheckpointError says what is anything else.
    """
    import numpy as np
    import torch

    path, core = Path(path), getattr(np, "_core", None) or np.core  # new and old numpy
    allowed = [argparse.Namespace, np.dtype, np.ndarray, codecs.encode]
    allowed += [type(np.dtype(t)) for t in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")]
    for package, name in product(("numpy.core", "numpy._core"), ("scalar", "_reconstruct")):
        allowed.append((getattr(core.multiarray, name), f"{package}.multiarray.{name}"))
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: a folder, expected a file of weights") from None
    except pickle.UnpicklingError as error:
        unknown = str(error).partition("GLOBAL ")[2].partition(" ")[0]
        what = f"it holds {unknown}, which is not data" if unknown else "no checkpoint of PyTorch"
        raise CheckpointError(f"{path}: {what}{_kind(path)}") from error
    except Exception as error:  # truncated, another format: torch has no common class for them
        what = "not a readable checkpoint, damaged or of another format"
        raise CheckpointError(f"{path}: {what}{_kind(path)}") from error


def _kind(path: Path) -> str:
    """What a file looks like that should be weights and is not."""
    head = path.read_bytes()[:200].lstrip().lower()
    if not head:
        return "; it is empty"
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"{")):
        return "; it is a web page or text: the download gave something else"
    if head.startswith(b"version https://git-lfs"):
        return "; it is a Git LFS pointer: run git lfs pull"
    return ""
