# LLM-assisted: prompts P10, see report.md
"""Files are whole or absent, leftovers are cleared, and checkpoints are read as data."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from cvassign.files import CheckpointError, load_checkpoint, replacing
from cvassign.results import ROOT


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    path, dead = tmp_path / "result.json", 2**22 - 7  # no such process
    (tmp_path / f"result.json.{dead}.tmp").write_text("half")
    mine = tmp_path / f"result.json.{os.getppid()}.tmp"  # a process that runs and may still write
    mine.write_text("half")
    other = tmp_path / "result.json.notes.tmp"
    other.write_text("not ours")
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert {p.name for p in tmp_path.iterdir()} == {path.name, mine.name, other.name}


def test_numpy_scalars_of_a_training_script_are_read(tmp_path):
    rates = np.linspace(0, 1, 5)
    state = {"lr": rates[2], "small": np.float32(0.5), "n": np.int64(3), "all": rates}
    torch.save(state, tmp_path / "a.pth")
    found = load_checkpoint(tmp_path / "a.pth")
    assert (found["lr"], found["small"], found["n"]) == (0.5, 0.5, 3)
    np.testing.assert_array_equal(found["all"], rates)


@pytest.mark.parametrize("content, words", (
    (b"", "it is empty"), (b"<!DOCTYPE html><html>", "web page"), (b"{}", "web page or text"),
    (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"), (b"\x80\x02", "checkpoint"),
))  # fmt: skip
def test_what_is_no_checkpoint_is_said_in_own_words(content, words, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"weights.pth: .*{words}") as error:
        load_checkpoint(path)
    assert "weights_only" not in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="a folder"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("command", (
    ["experiments", "run", "--device", "gpu"], ["study.bench", "--device", "tpu"],
    ["study.robustness", "--device", "tpu"], ["assets", "get", "nothing"], ["clip.gallery"],
    ["clip.precision", "--out", "x", "--batch-sizes", "a,b"],
    ["clip.precision", "--out", "x", "--device", "tpu"],
    ["clip.precision", "--out", "x", "--clip-weights", "none.pt"],
), ids=" ".join)  # fmt: skip
def test_what_the_user_got_wrong_is_one_line_and_exit_code_two(command, tmp_path):
    module, *arguments = command
    done = subprocess.run([sys.executable, "-m", f"cvassign.{module}", *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "error: " in done.stderr
