# LLM-assisted: prompts P12, P15, see report.md
"""What an encoder said, kept by content: no picture and no class name is encoded twice.

On two CPU cores a thousand pictures take minutes. The next kernel finds them in the cache.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cvassign.files import replacing
from cvassign.pictures import open_rgb
from cvassign.progress import bar

SAME = 1e-4  # relative distance of two vectors of one thing: the order of sums gives about 1e-6
_y, _x = np.mgrid[:260, :300]
# Not square and full of detail, so that its vector also depends on how a picture is prepared.
PROBE = Image.fromarray(np.stack([_x * 7, _y * 5, _x * _y], axis=-1).astype(np.uint8))


class Kept:
    """Vectors of things of one kind by one encoder, each computed once.

    Args:
        encode: things -> their vectors (n, E), fp32, on the CPU.
        content: thing -> the bytes that tell it from others.
        probe: a thing whose vector stands for the weights: a file with another one is another
            encoder's, and is begun anew.
        folder: where the file lies; None to keep nothing. One that cannot be read or written is no
            error: then everything is encoded each time.
        name: of the file, by the encoder's name.
        progress: show a bar, with an estimate.
    """

    def __init__(
        self,
        encode: Callable[[list], Tensor],
        content: Callable[[object], bytes],
        probe,
        folder: Path | None,
        name: str,
        progress: bool = False,
    ):
        self._encode, self._content, self._thing = encode, content, probe
        slug = re.sub(r"[^\w.]+", "-", name).strip("-")
        self._file = None if folder is None else Path(folder) / f"{slug}.safetensors"
        self._progress, self._known = progress, None  # read when first asked for

    def __call__(self, things: Sequence, text: str, at_once: int) -> Tensor:
        """The things' vectors (n, E).

        Args:
            text: what the bar calls them.
            at_once: how many `encode` gets.
        """
        if self._file is None:
            keys, self._known = range(len(things)), {}
        else:
            keys = [hashlib.sha256(self._content(t)).digest() for t in things]
            self._known = self._read() if self._known is None else self._known
        new = list({k: t for k, t in zip(keys, things) if k not in self._known}.items())
        try:
            with bar(text, self._progress and len(new) > at_once, total=len(new)) as done:
                for i in range(0, len(new), at_once):
                    some = dict(new[i : i + at_once])
                    self._known.update(zip(some, self._encode(list(some.values()))))
                    done.update(len(some))
        finally:  # also after an interrupt: what was encoded is kept
            if new and self._file is not None:
                self._write()
        return torch.stack([self._known[k] for k in keys])

    @cached_property
    def _probe(self) -> Tensor:
        return self._encode([self._thing])[0]

    def _read(self) -> dict[bytes, Tensor]:
        probe = self._probe
        try:
            held = load_file(self._file)
            if not (held["probe"] - probe).norm() <= SAME * probe.norm():
                return {}
            return dict(zip(map(bytes, held["keys"].numpy()), held["vectors"]))
        except (OSError, SafetensorError, KeyError, RuntimeError):  # none, damaged, another's
            return {}

    def _write(self) -> None:
        known = self._read() | self._known  # another process may have written since
        keys = torch.tensor([list(k) for k in known], dtype=torch.uint8)
        held = {"probe": self._probe, "keys": keys, "vectors": torch.stack(list(known.values()))}
        try:
            with replacing(self._file) as temporary:
                save_file(held, temporary)
        except (OSError, SafetensorError):
            pass


def pixels(image) -> bytes:
    """A picture's content: its file's bytes, or the pixels of what `open_rgb` takes else."""
    if isinstance(image, Path | str):
        return Path(image).read_bytes()
    image = open_rgb(image)
    return f"{image.size}".encode() + image.tobytes()
