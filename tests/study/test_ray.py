# LLM-assisted: prompts P6, P15, see report.md
"""Runs on a real local Ray cluster of two workers, one of which is killed in the middle."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cvassign.experiments import all_runs, experiment_runs
from cvassign.results import load, run_or_load
from cvassign.study import ray as ray_engine

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 12  # long enough to be killed in the middle


def two_runs():
    runs = [experiment_runs("reference", model, "smoke")[0] for model in ("vit", "diff")]
    return [replace(run, train=replace(run.train, epochs=EPOCHS)) for run in runs]


def test_a_run_asks_for_its_fraction_and_impossible_demands_are_named():
    nodes = [{"CPU": 16.0, "GPU": 1.0}, {"CPU": 4.0}]
    assert ray_engine.resources(3, None, nodes) == {"num_gpus": 1 / 3, "num_cpus": 1}
    # On CPUs as many as fit the smallest machine: a task never spans two.
    assert ray_engine.resources(2, "cpu", nodes) == {"num_cpus": 2}
    assert ray_engine.resources(9, None, nodes[1:]) == {"num_cpus": 1}
    with pytest.raises(ValueError, match="jobs must be positive, got 0"):
        ray_engine.resources(0, None, nodes)
    with pytest.raises(ValueError, match="'cuda' was asked for, but the cluster has no GPU"):
        ray_engine.resources(1, "cuda", nodes[1:])


def test_the_command_hands_its_runs_to_ray_or_says_what_to_install(monkeypatch, tmp_path, capsys):
    command = f"run --preset smoke --section 1.3 --jobs 2 --device cpu --out {tmp_path}".split()
    monkeypatch.setitem(sys.modules, "ray", None)  # import ray: ImportError
    with pytest.raises(SystemExit, match="1"):
        ray_engine.main(command)
    assert "pip install ray\n" in capsys.readouterr().err
    expected = all_runs("smoke", "1.3"), tmp_path, 2, "cpu"
    monkeypatch.setattr(ray_engine, "run_all", lambda *args: args != expected)
    assert ray_engine.main(command) == 0


def test_a_result_that_came_over_the_network_is_written(tmp_path):
    run = experiment_runs("best", "vit", "smoke")[0]  # keeps weights and logits
    run = replace(run, train=replace(run.train, epochs=1, warmup_epochs=0))
    there, here = tmp_path / "there", tmp_path / "here"
    ray_engine.keep(files := ray_engine.train(run, there, "cpu"), here)
    assert len(files) == 3 and load(run, here)
    assert all((here / f).read_bytes() == (there / f).read_bytes() for f in files)


def test_a_killed_worker_is_replaced_and_goes_on(tmp_path):
    pytest.importorskip("ray", reason="ray is an optional extra")
    out, log = tmp_path / "results", tmp_path / "log"
    changes = dict(PYTHONPATH=str(ROOT), HOME=str(tmp_path), OMP_NUM_THREADS="1")
    changes |= dict(RAY_DEDUP_LOGS="0", RAY_ADDRESS="local", RAY_USAGE_STATS_ENABLED="0")
    changes |= dict(RAY_raylet_start_wait_time_s="200")  # a busy machine takes longer than its 30
    with log.open("wb") as stream:
        options = dict(env=os.environ | changes, cwd=tmp_path, stdout=stream, stderr=stream)
        driver = subprocess.Popen([sys.executable, __file__], **options)

    def starts(run) -> list[int]:
        begin = re.escape(run.file_name) + r": starts in process (\d+)"
        return [int(p) for p in re.findall(begin, log.read_text(encoding="utf-8"))]

    try:
        victim, other = two_runs()
        checkpoint = out / "checkpoints" / victim.file_name.replace(".json", ".pt")
        deadline = time.monotonic() + 500
        while not (checkpoint.exists() and starts(victim)):  # its first epoch is done
            assert driver.poll() is None and time.monotonic() < deadline, log.read_bytes()
            time.sleep(0.02)
        os.kill(starts(victim)[0], signal.SIGKILL)
        assert driver.wait(timeout=500) == 0, log.read_bytes()
    finally:
        driver.kill()
    assert len(set(starts(victim))) == len(starts(victim)) == 2 and len(starts(other)) == 1
    # Killed or not, the weights are those of a run that nobody disturbed.
    undisturbed = run_or_load(victim, tmp_path / "alone", device="cpu", progress=False)
    losses = load(victim, out).history["train_loss"]
    assert undisturbed.history["train_loss"] == pytest.approx(losses, rel=1e-3)


if __name__ == "__main__":  # a process of its own: Ray leaves threads and signal handlers behind
    import ray

    start = ray.init
    ray.init = lambda **options: start(num_cpus=2, object_store_memory=100_000_000, **options)
    sys.exit(ray_engine.run_all(two_runs(), Path("results"), jobs=2, device="cpu"))
