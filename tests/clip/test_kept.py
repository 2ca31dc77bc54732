# LLM-assisted: prompts P12, P15, see report.md
"""What was encoded once is found again, for as long as picture and weights are the same."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from cvassign.clip import kept


class Mean:
    """The mean colour, times a factor for its weights; counts what it encodes."""

    def __init__(self, factor: float = 1.0):
        self.factor, self.n = factor, 0

    def __call__(self, pictures: list) -> torch.Tensor:
        self.n += len(pictures)
        images = [p if isinstance(p, Image.Image) else Image.open(p) for p in pictures]
        return self.factor * torch.tensor(np.array([np.asarray(i).mean((0, 1)) for i in images]))


def encoded(pictures: list, folder, factor: float = 1.0, progress: bool = False) -> int:
    """How many pictures a new kernel encodes, the probe left out; the vectors are checked."""
    encode = Mean(factor)
    keep = kept.Kept(encode, kept.pixels, kept.PROBE, folder, "some encoder (fp32)", progress)
    assert torch.allclose(keep(pictures, "pictures", 2), Mean(factor)(pictures), rtol=1e-5)
    n = encode.n
    assert torch.allclose(keep(pictures, "pictures", 2), Mean(factor)(pictures), rtol=1e-5)
    assert encode.n == (n if folder else 2 * n)
    return n - (folder is not None)


@pytest.fixture
def files(tmp_path):
    found = [tmp_path / f"{i}.png" for i in range(5)]
    for i, file in enumerate(found):
        Image.new("RGB", (8, 8), (i, 0, 40 * i)).save(file)
    return found


def test_only_new_pictures_and_new_weights_are_encoded(files, tmp_path):
    cache = tmp_path / "new" / "cache"
    in_memory = Image.new("RGB", (8, 8), "red")
    assert encoded([*files, in_memory, files[0], in_memory.copy()], cache) == 6
    assert [f.name for f in cache.iterdir()] == ["some-encoder-fp32.safetensors"]
    assert encoded([in_memory, *files[::-1]], cache) == 0
    Image.new("RGB", (8, 8), (99, 1, 1)).save(files[2])  # another picture under its name
    assert encoded(files, cache) == 1
    assert encoded([in_memory.resize((4, 16))], cache) == 1  # the same bytes, another shape
    assert encoded(files, cache, 1 + 1e-6) == 0  # the same weights, rounded otherwise
    assert encoded(files, cache, 1.001) == 5  # other weights
    assert encoded(files, None) == 5  # nothing is kept


def test_a_folder_that_cannot_be_used_is_no_error(files, tmp_path):
    assert encoded(files, files[0] / "cache") == 5  # below a file
    assert encoded(files, tmp_path / "cache") == 5
    (file,) = (tmp_path / "cache").iterdir()
    for content in (b"", b"damaged", file.read_bytes()[:-9]):
        file.write_bytes(content)
        assert encoded(files, tmp_path / "cache") == 5
    assert encoded(files, tmp_path / "cache") == 0  # mended


def test_what_an_interrupted_call_has_encoded_is_kept(files, tmp_path):
    keep = kept.Kept(Mean(), kept.pixels, kept.PROBE, tmp_path, "some encoder (fp32)")
    with pytest.raises(OSError):
        keep([*files[:4], files[0].parent], "pictures", 2)
    broken = files[0].parent / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(OSError):
        keep([*files[:4], broken], "pictures", 2)
    assert encoded(files, tmp_path) == 1


def test_the_bar_estimates_and_leaves_nothing(files, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    encoded(files, None, progress=True)
    lines = capsys.readouterr().err.split("\r")
    assert re.search(r"pictures: +0%.*0/5 \[00:00<\?", lines[1]) and not "".join(lines[-2:]).strip()
    encoded(files, None, progress=False)
    assert not capsys.readouterr().err
