# LLM-assisted: prompts P1, P7, P10, P12, P15, see report.md
"""What machine this is: the device to compute on, and what that device is good at."""

import ctypes
import os
import platform
import re
import shutil
import sys
import sysconfig
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

COMPILE_STEPS = {"cuda": 500, "cpu": 3000}  # shorter trainings are not worth compiling
BF16_FROM = (8, 0)  # compute capability; a T4 (7.5) emulates bf16, slower than fp32
COMPILE_FROM = (7, 0)  # what Triton, which makes the compiled kernels, needs


def pick_device(name: str | None = None) -> torch.device:
    """The device called `name`, or ValueError; without one the first GPU that works, else the CPU,
    an Apple GPU only when named. Each is tried: today's PyTorch has no kernels for a P100."""
    if not name:
        return _first_that_works()
    try:
        try_out(device := torch.device(name))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = f"({first_line(error)}); choose 'cpu', or 'cuda' where there is a GPU"
        raise ValueError(f"device {name!r} cannot be used here {why}") from error
    return device


@cache
def _first_that_works() -> torch.device:
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        try:
            try_out(device := torch.device("cuda", i))
            return device
        except Exception as error:  # drivers have errors of many classes
            gpu = f"GPU {i} ({torch.cuda.get_device_name(i)})"
            print(f"{gpu} is not used: {first_line(error)}", file=sys.stderr)
    return torch.device("cpu")


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def try_out(device: torch.device) -> None:
    """A convolution and a matrix product, forward and backward; raises what the device raises."""
    image = torch.ones(2, 3, 8, 8, device=device)
    kernel = torch.ones(4, 3, 4, 4, device=device, requires_grad=True)
    tokens = F.conv2d(image, kernel, stride=4).flatten(2)  # (2, 4, 4)
    (tokens @ tokens.mT).sum().backward()
    if not kernel.grad.isfinite().all():  # reading it waits for the device
        raise RuntimeError("a convolution and a matrix product gave NaN")


def use_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32: on GPUs from Ampere on, and CPUs with AVX512 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= BF16_FROM
    there = device.type == "cpu" and torch.backends.mkldnn.is_available()  # not on a Mac
    return there and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def autocast(device: torch.device) -> torch.autocast:
    """bf16 where that pays, else fp32 as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=use_bf16(device))


def should_compile(device: torch.device, steps: int) -> bool:
    """Whether torch.compile earns back its minute: on a run of some length, where there are the C
    compiler (C++ on a CPU) and Python's headers that build its kernels. On a CPU without bf16 a
    step is no faster for it."""
    on_gpu = device.type == "cuda"
    able = torch.cuda.get_device_capability(device) >= COMPILE_FROM if on_gpu else use_bf16(device)
    compilers = ("cc", "gcc", "clang") if on_gpu else ("g++",)
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    builds = headers and any(map(shutil.which, compilers))
    return able and builds and steps >= COMPILE_STEPS[device.type]


def keep_freed_memory() -> None:
    """Lets glibc keep what a training step frees for the next one. By default large tensors go back
    to the system and are mapped anew page by page: a tenth of the time and more."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: nothing is mapped by itself
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap does not shrink


def cores() -> int:
    """CPU cores that this process may use: fewer than there are in a container or a batch job."""
    mine = hasattr(os, "sched_getaffinity")  # not on Windows, nor on a Mac
    return len(os.sched_getaffinity(0)) if mine else os.cpu_count() or 1


def describe(device: torch.device) -> dict:
    """The machine that a stored number belongs to: device, threads and versions."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        versions |= {"cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version())}
    else:
        name = platform.processor() or platform.machine()
        with suppress(OSError, IndexError):  # Linux tells it, on most machines
            about = Path("/proc/cpuinfo").read_text(encoding="utf-8")
            name = re.findall(r"model name\s*: (.*\S)", about)[0]
        name = f"CPU, {name}, {'with' if use_bf16(device) else 'without'} bf16"
    return {"device": name, "threads": torch.get_num_threads(), "versions": versions}
