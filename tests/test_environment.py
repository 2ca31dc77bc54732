# LLM-assisted: prompts P6, P15, P16, see report.md
"""Machines that are not as expected: a torch without CUDA, a figures folder that is read-only, a
notebook that is started elsewhere. Killed processes and full disks: test_train, test_results."""

import ast
import json
import os
import re
import shutil
import signal as signals
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(program: str, cwd: Path, *arguments: str) -> subprocess.CompletedProcess:
    """A Python program in a fresh process that finds the package but nothing in its folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CVASSIGN_SMOKE": "0"}
    options = dict(env=environment, cwd=cwd, capture_output=True, text=True, timeout=300)
    return subprocess.run([sys.executable, "-c", program, *arguments], **options)


# A build without CUDA lacks these entry points, and torch asks for them to know what it is.
CPU_ONLY = """
import sys, torch
for name in [n for n in dir(torch._C) if n.startswith(("_cuda", "_Cuda"))]:
    delattr(torch._C, name)
assert not torch.cuda.is_available()
try:
    torch.zeros(1).cuda()
except AssertionError as error:
    assert "not compiled with CUDA" in str(error)
else:
    raise SystemExit("this torch still has CUDA")
"""


def test_everything_runs_on_a_torch_without_cuda(tmp_path):
    program = """
from dataclasses import replace
from pathlib import Path
from cvassign import data, experiments, results
from cvassign.clip import precision
from cvassign.study import attention as attention_study, bench

out = Path(sys.argv[1])
for model in ("vit", "diff"):
    run = experiments.experiment_runs("best", model, "smoke")[0]
    run = replace(run, train=replace(run.train, epochs=1))
    result = results.run_or_load(run, out, out / "state", progress=False)
    assert result.on_cpu, result.device
    trained = results.load_model(run, out)
    attention_study.attention_of(trained, data.load_generated().test.images[:4])
layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 4))
found = precision.measure(layers, torch.randn(2, 3, 8, 8), [1], runs=2)
assert "error" not in found["fp32"] and "tf32" not in found
assert precision.describe(torch.device("cpu"))["device"].startswith("CPU")
assert bench.attention_kernels(run.model, 2, 2, torch.device("cpu"))
"""
    done = run(CPU_ONLY + program, tmp_path, str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "smoke").glob("*.json"))) == 2


def test_a_torch_without_cuda_that_is_asked_for_it_says_so(tmp_path):
    program = """
from cvassign import experiments
sys.exit(experiments.main("run --preset smoke --device cuda --out".split() + sys.argv[1:]))
"""
    done = run(CPU_ONLY + program, tmp_path, str(tmp_path))
    assert done.returncode == 2 and "device 'cuda' cannot be used here" in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.rglob("*.json"))


# Permissions do not bind root: it becomes nobody, after all imports, which nobody may not read.
READ_ONLY = """
import os, sys
from pathlib import Path
import matplotlib.pyplot as plt
from IPython.display import Image
from cvassign import figure as figures

folder = Path(sys.argv[1])
figure, ax = plt.subplots(figsize=(4, 2))
ax.plot([1, 3, 2])
figures.encoded(figure)  # whatever drawing loads at its first use
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
assert not os.access(folder, os.W_OK)
"""


@pytest.fixture
def read_only():
    """A folder that only root may write, with a figure of earlier; anyone may look into it."""
    above = Path(tempfile.mkdtemp())  # not in pytest's own folders, which are closed to others
    folder = above / "figures"
    folder.mkdir()
    (folder / "curve.png").write_bytes(b"an older one")
    above.chmod(0o755)
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(above)


@pytest.mark.skipif(os.name != "posix", reason="the permissions are those of POSIX")
def test_a_figure_is_shown_where_it_cannot_be_saved(read_only, tmp_path):
    program = """
for where in (folder, folder / "inner"):
    shown = figures.show(figure, "curve", where)
    assert isinstance(shown, Image) and shown.data[1:4] == b"PNG" and shown.width == 400
"""
    done = run(READ_ONLY + program, tmp_path, str(read_only))
    assert done.returncode == 0, done.stderr[-3000:]
    line = "curve.png is shown but was not saved: Permission denied"
    assert done.stdout.splitlines() == [line, line]
    assert [p.name for p in read_only.iterdir()] == ["curve.png"]
    assert (read_only / "curve.png").read_bytes() == b"an older one"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_finds_the_package_from_other_folders(notebook, tmp_path):
    """Also from above a clone that is called as the package is, here a link; else it says so."""
    code = [
        c["source"] for c in json.loads(notebook.read_bytes())["cells"] if c["cell_type"] == "code"
    ]
    before, found, _ = "".join(code[0]).partition("sys.path.insert(0, str(home))\n")
    # Not `python -c`, which would put the current folder onto the path by itself.
    program = before + found + "import cvassign, dino\nprint(cvassign.__file__)\n"
    command, changes = [sys.executable, "-P", "-"], {"PYTHONPATH": ""}
    options = dict(input=program, env=os.environ | changes, text=True, capture_output=True)
    for folder in (ROOT, ROOT / "notebooks", ROOT / "tests", tmp_path):
        if folder == tmp_path:
            done = subprocess.run(command, cwd=folder, **options)
            assert f"no cvassign in or above {tmp_path}" in done.stderr.splitlines()[-1]
            (tmp_path / "cvassign").symlink_to(ROOT)
        done = subprocess.run(command, cwd=folder, **options)
        assert done.returncode == 0, done.stderr[-2000:]
        assert Path(done.stdout.strip()).resolve().parent == ROOT / "cvassign"


def test_printing_and_reading_survive_another_encoding():
    """λ is in labels and in files; a terminal that cannot show it gets an escape."""
    program = (
        "from cvassign.experiments import main; main('list --section 2.2 --model diff'.split())"
    )
    changes = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    changes["PYTHONIOENCODING"] = "cp1252"
    options = dict(env=os.environ | changes, cwd=ROOT, capture_output=True, timeout=300)
    done = subprocess.run([sys.executable, "-c", program], **options)
    assert done.returncode == 0, done.stderr[-1000:]
    assert b"runs done" in done.stdout and b"\\u03bb_init 0.8" in done.stdout


@pytest.mark.parametrize("folder", ("cvassign", "dino", "gallery", "tests"))
def test_text_is_read_and_written_in_utf_8(folder):
    """Not in the locale's encoding; ruff's PLW1514 sees it only where it knows a path as one."""
    for file in (ROOT / folder).rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_bytes())):
            name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
            if name == "open" or name.endswith((".read_text", ".write_text")):
                assert re.search("encoding=|'wb'", ast.unparse(call)), f"{file}:{call.lineno}"


@pytest.mark.parametrize("signal", ("SIGKILL", "SIGHUP"))
def test_workers_end_with_the_process_that_started_them(signal, tmp_path):
    """Also where it could not tell them."""
    program = """
import os, signal, sys, time
from pathlib import Path
from cvassign import experiments

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who starts the tests with nohup ignores it

def _worker(*args):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    experiments.run_all([], Path(sys.argv[1]), jobs=2)
else:
    experiments._worker = _worker
"""
    script = tmp_path / "parent.py"
    script.write_bytes(program.encode())
    workers = tmp_path / "workers"
    workers.mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script, workers], env=environment) as parent:
        until = time.monotonic() + 120
        while len(found := list(workers.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        parent.send_signal(getattr(signals, signal))
    assert len(found) == 2
    until = time.monotonic() + 10
    while any(Path("/proc", p.name).exists() for p in found):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_an_older_python_is_told_in_one_line(tmp_path):
    program = "import sys; sys.version_info = (3, 10, 12); import cvassign"
    done = run(program, tmp_path)
    line = "cvassign needs Python 3.11 or newer, this is "
    assert done.returncode == 1 and re.fullmatch(f"{line}.*\n", done.stderr)
