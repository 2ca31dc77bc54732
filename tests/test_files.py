# LLM-assisted: prompts P10, P15, see report.md
"""Files are whole or absent, leftovers are cleared, and checkpoints are read as data."""

import importlib
import os
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from cvassign import results
from cvassign.files import CheckpointError, load_checkpoint, replacing
from cvassign.train import Trainer


def save_state(value: float, path: Path) -> None:
    model, rest = torch.nn.PReLU(init=value), dict(identity="", optimizers=[], history={})
    Trainer._save(SimpleNamespace(checkpoint=path, model=model, **rest))


WRITERS = {
    "result": lambda value, path: results.write_json({"a": value}, path),
    "checkpoint": save_state,
    "weights": lambda value, path: results.save_weights(torch.nn.PReLU(init=value), path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_is_the_old_one_or_the_new_one(write, tmp_path, monkeypatch):
    """After a full disk, and for who reads the old one while the new one is written."""
    write(1.0, path := tmp_path / "file")
    before = path.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "replace", Mock(side_effect=OSError(28, "No space left on device")))
        write(2.0, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["file"]
    with path.open("rb") as old:
        write(2.0, path)
        assert old.read() == before != path.read_bytes()


def test_what_a_writer_leaves_that_fails_or_was_killed_is_cleared(tmp_path):
    dead, running = 2**22 - 7, os.getppid()  # the second may still write
    for owner in (dead, running, "notes"):
        (tmp_path / f"result.json.{owner}.tmp").write_bytes(b"half")
    with pytest.raises(OSError), replacing(tmp_path / "result.json") as temporary:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")
    kept = {f"result.json.{running}.tmp", "result.json.notes.tmp"}
    assert {p.name for p in tmp_path.iterdir()} == kept


def test_numpy_scalars_of_a_training_script_are_read(tmp_path):
    rates = np.linspace(0, 1, 5)
    state = {"lr": rates[2], "small": np.float32(0.5), "n": np.int64(3), "all": rates}
    torch.save(state, tmp_path / "a.pth")
    found = load_checkpoint(tmp_path / "a.pth")
    assert (found["lr"], found["small"], found["n"]) == (0.5, 0.5, 3)
    np.testing.assert_array_equal(found["all"], rates)


NO_CHECKPOINT = {
    b"": "it is empty",
    b"<!DOCTYPE html><html>": "a web page",
    b"{}": "a web page or text",
    b"version https://git-lfs.github.com/spec/v1": "a Git LFS pointer: run git lfs pull",
    b"\x80\x02": "no checkpoint",
}


@pytest.mark.parametrize("content, words", NO_CHECKPOINT.items())
def test_what_is_no_checkpoint_is_said_in_own_words(content, words, tmp_path):
    (path := tmp_path / "weights.pth").write_bytes(content)
    wrong = {path: words, tmp_path: "is a directory", tmp_path / "none": "no such file"}
    for path, why in wrong.items():
        with pytest.raises(CheckpointError, match=rf"{path}: {why}(?!.*weights_only).*\Z"):
            load_checkpoint(path)


WRONG = """experiments run --device gpu
study.bench --device tpu
study.robustness --device tpu
assets get nothing
clip.precision --out x --batch-sizes a,b
clip.precision --out x --device tpu
clip.precision --out x --clip-weights none.pt"""


@pytest.mark.parametrize("command", WRONG.splitlines())
def test_what_the_user_got_wrong_is_one_line_and_exit_code_two(command, capsys):
    module, *arguments = command.split()
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"cvassign.{module}").main(arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err.count("\n") == 1 and "error: " in err
