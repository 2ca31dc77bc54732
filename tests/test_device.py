# LLM-assisted: prompts P1, P10, P12, P15, see report.md
"""Which device is taken and what it is trusted with. Where hardware would be needed, the library's
answer is replaced: no GPU was there when these ran."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cvassign import device
from cvassign.device import pick_device, should_compile, use_bf16

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))


@pytest.mark.parametrize(
    "gpus, taken", (("", "cpu"), ("P100", "cpu"), ("A100 A100", "cuda:0"), ("P100 T4", "cuda:1"))
)
def test_the_first_gpu_that_works_is_taken(gpus, taken, monkeypatch, capsys):
    """An Apple GPU only when named. One that fails is named once, in a line with the reason."""
    gpus = gpus.split()

    def try_out(where):
        if where.type == "cuda" and gpus[where.index] == "P100":
            raise RuntimeError("no kernel image is available\nmore of it")

    monkeypatch.setattr(device, "try_out", try_out)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpus))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: gpus[i])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device._first_that_works.cache_clear()
    assert pick_device() == torch.device(taken) == pick_device() and pick_device("mps") == MPS
    device._first_that_works.cache_clear()
    line = "GPU 0 (P100) is not used: no kernel image is available\n"
    assert capsys.readouterr().err == line * ("P100" in gpus)


@pytest.mark.parametrize("name", ("gpu", "tpu", "cuda:99", "nonsense", "meta"))
def test_a_device_that_is_not_here_is_named(name):
    """Or that computes nothing: "meta" has no data to read."""
    assert pick_device("cpu") == CPU
    with pytest.raises(ValueError, match=f"device '{name}' cannot be used here"):
        pick_device(name)


@pytest.mark.parametrize(
    "capability, bf16, compiled",
    (((6, 0), 0, 0), ((7, 0), 0, 1), ((7, 5), 0, 1), ((8, 0), 1, 1), ((12, 0), 1, 1)),
)
def test_bf16_from_ampere_on_and_compiled_kernels_from_volta_on(
    monkeypatch, capability, bf16, compiled
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)  # it says so of a T4
    monkeypatch.setattr(shutil, "which", lambda name: f"bin/{name}")
    assert use_bf16(CUDA) == bf16
    assert should_compile(CUDA, 10**6) == compiled


@pytest.mark.parametrize("able", (True, False))
def test_bf16_on_a_cpu_that_multiplies_it(monkeypatch, able):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: able)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert use_bf16(CPU) is able and not use_bf16(MPS)


def test_should_compile_for_long_runs_with_a_compiler(monkeypatch):
    assert not should_compile(MPS, 10**6)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: (9, 0))
    monkeypatch.setattr(device, "use_bf16", lambda where: True)
    monkeypatch.setattr(Path, "exists", lambda path: path.name == "Python.h")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not should_compile(CPU, 10**6) and not should_compile(CUDA, 10**6)
    monkeypatch.setattr(shutil, "which", lambda name: f"bin/{name}")
    assert should_compile(CPU, 3000) and not should_compile(CPU, 2999)
    assert should_compile(CUDA, 500) and not should_compile(CUDA, 499)
    monkeypatch.setattr(device, "use_bf16", lambda where: where.type == "cuda")
    assert should_compile(CUDA, 500) and not should_compile(CPU, 10**6)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert not should_compile(CUDA, 500)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_that_a_step_frees_is_kept():
    """Without it each of these arrays is mapped anew: 2,000 page faults of 4 KB."""
    from resource import RUSAGE_SELF, getrusage

    device.keep_freed_memory()
    for turn in range(20):
        if turn == 5:
            before = getrusage(RUSAGE_SELF).ru_minflt
        arrays = [np.ones(1 << 20) for _ in range(4)]
        del arrays
    assert getrusage(RUSAGE_SELF).ru_minflt - before < 2000


def test_a_machine_is_described_by_its_processor_and_the_cores_that_are_ours(monkeypatch):
    found = device.describe(CPU)
    assert found["device"].startswith("CPU, ") and found["device"].endswith("bf16")
    assert found["threads"] == torch.get_num_threads()
    assert found["versions"]["torch"] == torch.__version__
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert device.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert device.cores() == 64
