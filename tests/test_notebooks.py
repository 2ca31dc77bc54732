# LLM-assisted: prompts P1, P6, P8, P12, P15, P16, see report.md
"""Every notebook runs top to bottom on every user's machine, and its text says what is so on each.

The users: *offline* has nothing, no network, no npm, an empty home; *at home* has the files of
torchvision, OpenAI and Meta (random weights in their forms, checksums exchanged) and no npm; *here*
is this machine as it is. All run side by side, in smoke mode, and nobody has a network.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import torch
from pooch import file_hash
from torchvision.models import resnet50

from dino.vision_transformer import build

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NUMBER = r"(?<![\d./])\d+\.\d+(?!\d|\.\d)"
# Not results: markers, code, formulas, addresses, references, section numbers.
NO_PROSE = (
    r"<!--= .*?<!--/-->|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\(?arXiv[: ]\S+|https?://\S+|"
    r"[Ss]ections? [\d.]+|[Aa]ppendix [A-Z][\d.]+"
)
RUNS = [(n, "here") for n in NOTEBOOKS]
RUNS += [(n, user) for n in NOTEBOOKS if "diff" not in n.stem for user in ("offline", "at home")]
each = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def cells(notebook: Path, kind: str) -> list[dict]:
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [c for c in found if c["cell_type"] == kind and "".join(c["source"]).strip()]


def at_home(folder: Path, openai_archive: Path) -> dict[str, str]:
    """A copy of the project that takes random weights for the published ones, and these; its
    notebook 3 runs every cell twice."""
    for name in ("cvassign", "dino", "notebooks"):
        shutil.copytree(ROOT / name, folder / "project" / name)
    for name in ("results", "gallery"):
        (folder / "project" / name).symlink_to(ROOT / name)
    notebook = folder / "project/notebooks/3_clip.ipynb"
    held = json.loads(notebook.read_text(encoding="utf-8"))
    # Each cell again in the same kernel, from the last to the first.
    again = [dict(c, id=f"again-{i}") for i, c in enumerate(held["cells"])]
    held["cells"] += [c for c in reversed(again) if c["cell_type"] == "code"]
    notebook.write_text(json.dumps(held), encoding="utf-8")
    data = folder / "data"
    data.mkdir()
    torch.save(resnet50().state_dict(), file := data / "resnet50-0676ba61.pth")
    torch.save(build("vit_small", 8).state_dict(), data / "dino_deitsmall8_300ep_pretrain.pth")
    table = folder / "project/cvassign/assets.csv"
    text = re.sub("0676ba61[0-9a-f]{56}", file_hash(file), table.read_text(encoding="utf-8"))
    table.write_text(text, encoding="utf-8")
    return {"CVASSIGN_DATA": str(data), "CVASSIGN_CLIP": str(openai_archive)}


@pytest.fixture(scope="module")
def running(tmp_path_factory, openai_archive):
    """{(notebook, user): (process, its executed notebook)}."""
    sockets = tempfile.mkdtemp()  # the path of a socket may have some hundred characters
    folder, processes = tmp_path_factory.mktemp("notebooks"), {}
    nowhere = "http://127.0.0.1:9"  # the proxy of somebody without a network
    common = {"CVASSIGN_SMOKE": "1", "CVASSIGN_RETRAIN": "0", "OMP_NUM_THREADS": "1"}
    common |= {"http_proxy": nowhere, "https_proxy": nowhere, "all_proxy": nowhere}
    for user in ("offline", "at home", "here"):
        own, project, new = folder / user, ROOT, user != "here"
        own.mkdir()
        environment = {k: v for k, v in os.environ.items() if not new or "CVASSIGN_" not in k}
        environment.pop("PYTHONPATH", None)  # a notebook has to find the package by itself
        environment |= common
        for variable in ("CVASSIGN_CACHE", "HOME", "PATH") if new else ():  # empty ones
            (own / variable).mkdir()
            environment[variable] = str(own / variable)
        if user == "at home":
            environment |= at_home(own, openai_archive)
            project = own / "project"
        for notebook in (n for n, who in RUNS if who == user):
            command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute"]
            command += ["--output-dir", own, project / "notebooks" / notebook.name]
            # Sockets with names of their own: of kernels that start together, two may choose the
            # same port, and one then waits for ever.
            command += ["--KernelManager.transport=ipc"]
            command += [f"--KernelManager.ip={sockets}/{len(processes)}"]
            command += ["--ExecutePreprocessor.startup_timeout=600"]  # seconds, for busy cores
            pipes = dict(text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            process = subprocess.Popen(command, env=environment, cwd=own, **pipes)
            processes[notebook, user] = process, own / notebook.name
    yield processes
    for process, _ in processes.values():
        process.kill()
    shutil.rmtree(sockets)


@pytest.mark.parametrize("notebook, user", RUNS, ids=lambda v: getattr(v, "stem", v))
def test_a_notebook_runs_for_every_user(notebook, user, running):
    process, executed = running[notebook, user]
    _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said[-3000:]
    outputs = [o for c in cells(executed, "code") for o in c["outputs"]]
    shown = "".join("".join(o["text"]) for o in outputs if o.get("name") == "stderr")
    assert outputs and not shown, shown[:3000]  # neither a warning nor a bar
    if user != "here":
        assert ("weights are not on this machine" in json.dumps(outputs)) == (user == "offline")


@each
def test_a_notebook_is_committed_as_executed(notebook):
    code = cells(notebook, "code")
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    outputs = [o for c in code for o in c["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]


@each
def test_the_last_cell_has_the_prompts_of_the_report_in_full(notebook):
    """As comments: those that the first cell names, and those alone."""
    first, last = ("".join(cells(notebook, "code")[i]["source"]) for i in (0, -1))

    def words(text: str, heading: str) -> dict[str, list[str]]:
        _, *parts = re.split(heading, text)
        texts = (re.sub(r"(?m)^[>#] ?", "", part).split() for part in parts[1::2])
        return dict(zip(parts[::2], texts))

    found = words(last, r"(?m)^# (P\d+)$")
    full = words((ROOT / "report.md").read_text(encoding="utf-8"), r"(?m)^### (P\d+)$")
    named = re.findall(r"P\d+", first.splitlines()[0])
    assert first.startswith("# LLM-assisted") and list(found) == named
    assert all(line.startswith("#") for line in last.splitlines())
    assert found == {name: full[name] for name in named}


@each
def test_every_number_in_the_text_is_filled_or_shown_by_an_output(notebook):
    outputs = [o for c in cells(notebook, "code") for o in c["outputs"]]
    shown = set(re.findall(NUMBER, json.dumps(outputs)))
    for i, c in enumerate(cells(notebook, "markdown")):
        text = re.sub(NO_PROSE, "", "".join(c["source"]), flags=re.DOTALL)
        text = re.sub(r"(?m)^#.*$", "", text)
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
    """Imports and the prompts are not counted."""
    sources = ["".join(c["source"]) for c in cells(notebook, "code")]
    counted = r"(?m)^(?!#|import |from ).*\S"
    code = [len(re.findall(counted, source)) for source in sources]
    assert max(code) <= 20 and sum(code) <= 260
    for printed in re.findall(r"print\((?:[^()]|\([^()]*\))*\)", "\n".join(sources)):
        text = re.sub(r"\{[^{}]*\}", "", printed)  # formats are no results
        assert not re.search(NUMBER, text), printed


@each
def test_every_link_of_the_first_table_has_its_heading(notebook):
    texts = ["".join(c["source"]) for c in cells(notebook, "markdown")]
    headings = {h.replace(" ", "-") for t in texts for h in re.findall(r"(?m)^#+ (.*)$", t)}
    links = re.findall(r"\]\(#(.*?)\) \|$", texts[0], flags=re.MULTILINE)
    assert len(links) > 4 and set(links) <= headings
