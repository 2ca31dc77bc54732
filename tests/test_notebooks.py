# LLM-assisted: prompts P1, P6, see report.md
"""Every notebook runs top to bottom in smoke mode, from any folder, without an error or warning."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, tmp_path):
    environment = os.environ | {"CVASSIGN_SMOKE": "1", "CVASSIGN_RETRAIN": "0"}
    environment.pop("PYTHONPATH", None)  # the notebook has to find the package by itself
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute",
               "--output-dir", str(tmp_path), str(notebook)]  # fmt: skip
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True,
                          timeout=900)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    executed = json.loads((tmp_path / notebook.name).read_text())
    outputs = [o for cell in executed["cells"] for o in cell.get("outputs", [])]
    assert outputs
    shown = "".join("".join(o["text"]) for o in outputs if o.get("name") == "stderr")
    assert "Warning" not in shown, shown[:3000]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_executed(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code" and "".join(c["source"]).strip()]
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    assert not [o for c in code for o in c["outputs"] if o["output_type"] == "error"]
    assert "LLM-assisted" in "".join(cells[0]["source"])
