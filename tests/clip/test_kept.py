# LLM-assisted: prompts P12, P15, see report.md
"""What was encoded once is found again, for as long as picture and weights are the same."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from cvassign.clip import kept
from cvassign.pictures import open_rgb


def mean(pictures: list) -> torch.Tensor:
    return torch.tensor(np.array([np.asarray(open_rgb(p)).mean((0, 1)) for p in pictures]))


def encoded(pictures: list, folder, factor: float = 1.0, progress: bool = False) -> int:
    """How many pictures a new kernel encodes by their mean colour, times a factor for its weights,
    the probe left out; the vectors are checked."""
    seen = []

    def encode(some: list) -> torch.Tensor:
        seen.extend(some)
        return factor * mean(some)

    keep = kept.Kept(encode, kept.pixels, kept.PROBE, folder, "some encoder (fp32)", progress)
    for _ in range(2):
        assert torch.allclose(keep(pictures, "pictures", 2), factor * mean(pictures), rtol=1e-5)
    return len(seen) - 1 if folder else len(seen) // 2


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
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(OSError):
        encoded([*files[:4], tmp_path / "broken.png"], tmp_path)
    assert encoded(files, tmp_path) == 1


def test_of_two_kernels_at_once_each_keeps_the_others_vectors(files, tmp_path):
    how = mean, kept.pixels, kept.PROBE, tmp_path, "some encoder (fp32)"
    one, other = kept.Kept(*how), kept.Kept(*how)
    for keep, some in ((one, files[:1]), (other, files[:1]), (one, files[:3]), (other, files[3:])):
        keep(some, "pictures", 2)
    assert encoded(files, tmp_path) == 0


def test_the_bar_estimates_and_leaves_nothing(files, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    encoded(files, None, progress=True)
    _, first, *_, last, end = capsys.readouterr().err.split("\r")
    assert re.search(r"pictures: +0%.*0/5 \[00:00<\?", first) and not (last + end).strip()
    assert encoded(files, None) and not capsys.readouterr().err
