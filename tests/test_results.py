# LLM-assisted: prompts P1, P5, P15, see report.md
"""Result files: whole or absent, never of another run, and trained by one process at a time."""

import json
import math
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from cvassign import results
from cvassign.data import load_generated
from cvassign.results import Busy, Result, ResultError, Run
from cvassign.train import TrainConfig, Trainer, evaluate, predict
from cvassign.vit import ViTConfig, count_parameters, gflop_per_image

TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, mlp_ratio=2.0, patch_size=8)
RECIPE = TrainConfig(2, 200, learning_rate=0.002 / 3, augment="flip", warmup_epochs=0.5)
RUN = Run("vit-tiny", "tiny", "1.1", "smoke", 3, TINY, RECIPE, "generated", True, True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Result]:
    """A folder with the result and the weights of RUN, and that result; tests only read it."""
    folder = tmp_path_factory.mktemp("trained")
    result = results.run_or_load(RUN, folder, device="cpu", progress=False)
    assert not list(folder.rglob("*.pt"))  # nothing to resume: the checkpoint is gone
    return folder, result


@pytest.fixture(scope="module")
def by_hand() -> Trainer:
    trainer = Trainer(RUN.model, RUN.train, RUN.seed, load_generated())
    trainer.fit(progress=False)
    return trainer


@pytest.fixture
def store(trained, tmp_path):
    """A folder of its own with the result of RUN, changed ("none": left out) or as bytes."""
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    path = tmp_path / RUN.file_name
    held = json.loads(path.read_bytes())

    def write(changes: dict | bytes) -> Path:
        if isinstance(changes, dict):
            changes = {k: v for k, v in (held | changes).items() if v != "none"}
            changes = json.dumps(changes).encode()
        path.write_bytes(changes)
        return tmp_path

    return write


def test_a_result_says_what_was_run_and_what_came(trained, by_hand):
    folder, result = trained
    assert (result.run, result.model, result.train) == (RUN, RUN.model, RUN.train)
    assert (result.label, result.kind, result.gflop) == ("tiny", "ViT", gflop_per_image(RUN.model))
    assert result.n_params == count_parameters(by_hand.model)
    assert result.test == evaluate(by_hand.model, load_generated().test)[1]
    assert result.history["val_loss"] == by_hand.history["val_loss"]
    assert result.val == by_hand.history["val_accuracy"][-1]
    assert result.seconds == pytest.approx(sum(result.history["seconds"]))
    assert result.on_cpu and result.data.startswith("400 + 100 + 200 images, SHA-256 ")


def test_the_last_epoch_is_reported_and_weights_are_kept_on_demand(by_hand, tmp_path, monkeypatch):
    last = by_hand.history["val_accuracy"][-1]
    monkeypatch.setitem(by_hand.history, "val_accuracy", [99.0, last])  # as if it had been better
    run = replace(RUN, keep_weights=False, keep_logits=False)
    assert results.finish(run, by_hand, tmp_path).val == last < 99
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_stored_result_is_loaded_and_not_trained(trained, monkeypatch):
    monkeypatch.setattr(results, "FileLock", None)  # many notebooks may read at once
    stored = results.run_or_load(RUN, trained[0])  # also a rate of many digits, rounded
    assert stored == results.load(RUN, trained[0])
    assert stored.test == pytest.approx(trained[1].test, rel=1e-5)


@pytest.mark.parametrize(
    "content, words",
    (
        (b'{"format": 2, "name": "vit', "no usable result"),
        (b"\xff\xfe\x00\x01", "no usable result"),
        (b"null", "not a result file"),
        *(({"format": n}, f"expected format 2, got {n!r}") for n in ("one", 1, 3)),
        ({"history": 3}, "'history' to be dict, got 3"),
        ({"test_accuracy": None}, "'test_accuracy' to be float, got None"),
        ({"seed": 4}, "expected seed 3, got 4; restore it"),  # a copy of another run's file
        ({"test_accuracy": 101.0}, "101.0 is no percentage"),
        ({"test_accuracy": 99.5}, "99.5 contradicts its logits, which give"),
        ({"val_accuracy": 99.5}, "val_accuracy is not that of the last epoch"),
        ({"history": {"train_loss": [1.0]}}, "1 of 2 epochs of 'train_loss'"),
        ({"history": dict.fromkeys(results.PER_EPOCH, [1.0, None])}, "'train_loss' is not finite"),
        ({"model": {"depth": 2.0}}, "depth must be a positive whole number"),
        ({"train": {"epochs": 2, "momentum": 1}}, "unexpected keyword argument 'momentum'"),
        ({"data": "300 images"}, "expected data '400 .*, got '300 images'"),
        ({"preset": "full"}, "expected preset 'smoke', got 'full'; restore it .git"),
        ({"model": {"depth": 3}}, r"another configuration .*'depth': \(3, 2\)"),
        ({"train": {"epochs": 2, "warmup_epochs": 1}}, r"another .*'batch_size': \(256, 200\)"),
        *(({k: "none"}, f"{k}'? .*, got None") for k in ("name", "model", "train", *results.KEYS)),
    ),
)
def test_an_unusable_file_is_named(store, content, words):
    folder = store(content)
    for read in (results.load, results.run_or_load):
        with pytest.raises(ResultError, match=f"vit-tiny-s3.json: .*{words}"):
            read(RUN, folder)


def test_numbers_that_are_not_finite_become_null(tmp_path):
    path = tmp_path / "new folder" / "a.json"
    results.write_json({"a": [math.nan, (math.inf, 1 / 3)], "λ": 2**60}, path)
    assert json.loads(path.read_bytes()) == {"a": [None, [None, 0.333333]], "λ": 2**60}


def test_a_full_disk_at_the_end_of_a_run_loses_nothing(tmp_path, monkeypatch):
    """The result cannot be written: the checkpoint stays, and the next call has only to write."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", Mock(side_effect=OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left") as kept:
            results.run_or_load(RUN, tmp_path, "cpu")
    assert results.load(RUN, tmp_path) is None
    monkeypatch.setattr(Trainer, "train_epoch", None)
    assert len(results.run_or_load(RUN, tmp_path, "cpu").history["seconds"]) == 2
    del kept  # until here, as notebooks keep an exception: it does not hold the lock


def test_weights_come_back_in_half_precision(trained, by_hand):
    stored = results.load_model(RUN, trained[0])
    assert not stored.training
    for (name, a), b in zip(by_hand.model.state_dict().items(), stored.state_dict().values()):
        assert b.dtype == torch.float32 and torch.equal(a.half().float(), b), name
    said = predict(by_hand.model, load_generated().test.images)
    assert torch.equal(results.load_logits(RUN, trained[0])[0], said.half().float())


def test_unusable_weights_are_named(trained, tmp_path):
    path, message = results.weights_path(RUN, tmp_path), "s3.safetensors: no usable weights"
    whole = results.weights_path(RUN, trained[0]).read_bytes()
    with pytest.raises(ResultError, match=f"{message}: No such file"):
        results.load_model(RUN, tmp_path)
    path.parent.mkdir(parents=True)
    for content in (whole[: len(whole) // 2], whole[:4], b"", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(ResultError, match=message):
            results.load_model(RUN, tmp_path)
    wider = replace(RUN, model=replace(RUN.model, embed_dim=32))
    with pytest.raises(ResultError, match=f"(?s){message}.*size mismatch"):
        results.load_model(wider, trained[0])


def test_load_all_relabels_leaves_out_and_warns(store):
    damaged, missing = replace(RUN, seed=4), replace(RUN, seed=5)
    again = replace(RUN, label="patch 8", section="1.2.1")  # one result in two tables
    folder = store({})
    (folder / damaged.file_name).write_bytes(b"{")
    with pytest.warns(UserWarning, match="vit-tiny-s4.json: no usable") as caught:
        found = results.load_all([RUN, damaged, missing, again], folder)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert [(r.label, r.run.section) for r in found] == [("tiny", "1.1"), ("patch 8", "1.2.1")]
    assert found[0].history == found[1].history


# A process that trains RUN and stops in its second epoch.
CHILD = """
import signal, sys, time
from pathlib import Path
from tests import test_results as t
signal.alarm(120)  # a child that hangs fails the test, not the hour

def pause(trainer, *told):
    if trainer.epoch == 1:
        print("training", flush=True)
        time.sleep(600)
    return epoch(trainer, *told)

epoch, t.Trainer.train_epoch = t.Trainer.train_epoch, pause
t.results.run_or_load(t.RUN, Path(sys.argv[1]), "cpu")
"""


def test_a_killed_process_frees_its_run_and_leaves_its_epochs(tmp_path, monkeypatch):
    command = [sys.executable, "-c", CHILD, tmp_path]
    with subprocess.Popen(command, cwd=results.ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"training\n"
        with pytest.raises(Busy, match=r"vit-tiny \(seed 3\) is being trained by another process"):
            results.run_or_load(RUN, tmp_path)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    train = Mock(side_effect=Trainer.train_epoch)
    monkeypatch.setattr(Trainer, "train_epoch", lambda *args: train(*args))
    results.run_or_load(RUN, tmp_path, "cpu")
    train.assert_called_once()  # the first epoch was not trained again


def test_a_run_finished_while_waiting_for_its_lock_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "load", Mock(side_effect=(None, "its result")))
    assert results.run_or_load(RUN, tmp_path) == "its result"
