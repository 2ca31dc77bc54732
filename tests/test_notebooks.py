# LLM-assisted: prompts P1, P6, P8, see report.md
"""Every notebook runs top to bottom in smoke mode, and its prose says what its outputs show."""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NUMBER = r"(?<![\d./])\d+\.\d+(?!\d|\.\d)"
# Not results: code, formulas, addresses, references, section numbers.
NO_PROSE = r"`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\(?arXiv[: ]\S+|https?://\S+|abs/\S+|[Ss]ections? [\d.]+"
each = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def cells(notebook: Path, kind: str) -> list[dict]:
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [c for c in found if c["cell_type"] == kind and "".join(c["source"]).strip()]


@pytest.fixture(scope="module")
def running(tmp_path_factory, openai_archive):
    """All notebooks in smoke mode, side by side. With random weights in OpenAI's form, so that no
    cell of part 3 waits for them: how it looks without is committed."""
    folder = tmp_path_factory.mktemp("notebooks")
    environment = os.environ | {"CVASSIGN_SMOKE": "1", "CVASSIGN_RETRAIN": "0"}
    environment |= {"CVASSIGN_CLIP": str(openai_archive), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)  # a notebook has to find the package by itself
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output-dir"]
    pipes = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    processes = {
        n: subprocess.Popen([*command, folder, n], env=environment, cwd=folder, **pipes)
        for n in NOTEBOOKS
    }
    yield processes, folder
    for process in processes.values():
        process.kill()


@each
def test_a_notebook_runs(notebook, running):
    processes, folder = running
    _, said = processes[notebook].communicate(timeout=900)
    assert processes[notebook].returncode == 0, said[-3000:]
    outputs = [o for c in cells(folder / notebook.name, "code") for o in c["outputs"]]
    assert outputs
    shown = "".join("".join(o["text"]) for o in outputs if o.get("name") == "stderr")
    assert not shown, shown[:3000]  # neither a warning nor a progress bar
    if notebook.stem == "3_clip":
        said = json.dumps(outputs)
        assert "weights are not on this machine" not in said
        assert "CLIP RN50 (RN50.pt), 1 templates" in said and "'classes with two wins" in said


@each
def test_a_notebook_is_committed_as_executed(notebook):
    code = cells(notebook, "code")
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    outputs = [o for c in code for o in c["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    first = "".join(code[0]["source"])
    assert first.startswith("# LLM-assisted") and re.search(r"(?m)^# P\d+: ", first)
    assert "cvassign" in first or "cvassign" in "".join(code[1]["source"])


@each
def test_every_number_in_the_text_is_shown_by_an_output(notebook):
    outputs = [o for c in cells(notebook, "code") for o in c["outputs"]]
    shown = set(re.findall(NUMBER, json.dumps(outputs)))
    for i, c in enumerate(cells(notebook, "markdown")):
        text = re.sub(r"(?m)^#.*$", "", "".join(c["source"]))
        text = re.sub(NO_PROSE, "", text, flags=re.DOTALL)
        numbers = [n for n in re.findall(NUMBER, text) if not re.fullmatch(r"[123]\.[1-5]", n)]
        assert not [n for n in numbers if n not in shown], f"text cell {i}"


@each
def test_every_source_on_the_page_is_whole(notebook):
    for c in cells(notebook, "code"):
        for o in c["outputs"]:
            text = "".join(o.get("data", {}).get("text/markdown", ""))
            for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
                ast.parse(textwrap.dedent(code))


@each
def test_cells_are_short_and_print_no_literal_result(notebook):
    sources = ["".join(c["source"]) for c in cells(notebook, "code")]
    lines = [len([line for line in s.splitlines() if line.strip()]) for s in sources]
    assert max(lines) <= 20 and sum(lines) <= 400
    for s in sources:
        for printed in re.findall(r"print\((?:[^()]|\([^()]*\))*\)", s):
            text = re.sub(r"\{[^{}]*\}", "", printed)  # formats are no results
            assert not re.search(NUMBER, text), printed
