# LLM-assisted: prompts P1, P6, P10, P15, see report.md
"""Files that are whole or absent, whatever ends the program that writes them."""

import argparse
import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path

import numpy as np


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to, which takes the place of `path` when the block has ended well.
    Renaming is atomic: a reader sees the old file or the new one. What killed writers left goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f"{path.name}.*.tmp"):
        with suppress(ValueError, OSError):  # not one of ours, or its process is somebody else's
            try:
                os.kill(int(stale.name.split(".")[-2]), 0)  # does nothing where there is a process
            except ProcessLookupError:
                stale.unlink()
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class CheckpointError(ValueError):
    """A file of weights that cannot be read; the message says what it is instead."""


def load_checkpoint(path: Path | str, device="cpu"):
    """What torch.save wrote, read as data: nothing in the file is run. Training scripts keep numpy
    scalars (learning rates) and their command line beside the weights: these few harmless types are
    allowed. CheckpointError says what is anything else."""
    import torch
    from numpy._core import multiarray

    allowed = [argparse.Namespace, np.dtype, np.ndarray, codecs.encode]
    allowed += [type(np.dtype(t)) for t in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")]
    for package, name in product(("numpy.core", "numpy._core"), ("scalar", "_reconstruct")):
        allowed.append((getattr(multiarray, name), f"{package}.multiarray.{name}"))
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: {str(error.strerror).lower()}") from error
    except Exception as error:  # damaged, another format: torch has no common class for them
        head = Path(path).read_bytes()[:200].lstrip().lower()
        if head.startswith((b"<!doctype", b"<html", b"<?xml", b"{")):
            what = "a web page or text: the download gave something else"
        elif head.startswith(b"version https://git-lfs"):
            what = "a Git LFS pointer: run git lfs pull"
        elif unknown := str(error).partition("GLOBAL ")[2].partition(" ")[0]:
            what = f"it holds {unknown}, which is not data"
        else:
            what = "no checkpoint of PyTorch, or a damaged one" if head else "it is empty"
        raise CheckpointError(f"{path}: {what}") from error
