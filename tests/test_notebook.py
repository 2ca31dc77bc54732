# LLM-assisted: prompts P15, P16, see report.md
"""What notebooks show of stored results: all of it, nothing else, and what is missing by name."""

import ast
import textwrap

import pytest

from cvassign import notebook, results, settings
from cvassign.experiments import experiment_runs
from cvassign.vit import EncoderLayer, VisionTransformer
from tests.made import made_result


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Results of patch 4 and 8 under the preset `cpu`; patch 2 was never trained."""
    for model in ("vit", "diff"):
        for run in experiment_runs("patch", model, "cpu")[1:]:
            results.save(made_result(run, device="CPU" if "size" in run.name else "GPU"), tmp_path)
    monkeypatch.setattr(notebook, "RESULTS", tmp_path)
    return notebook.Stored()


def test_a_missing_run_is_a_row_and_a_line_with_the_command(stored, capsys):
    html = notebook.table(stored("patch")).to_html()
    said = capsys.readouterr().out
    assert "not run: patch 2 (seed 0)" in said
    assert "cvassign.experiments run --preset cpu --section 1.2.1 --model vit" in said
    assert all(label in html for label in ("patch 2", "patch 4", "patch 8 †", "missing"))


def test_two_models_stand_side_by_side_with_their_difference(stored):
    vit, diff = stored("patch"), stored("patch", "diff")
    html = notebook.table(vit, diff).to_html()
    for gap in (diff[0].val - vit[0].val, diff[0].test - vit[0].test):
        assert f"{gap:+.2f}" in html


def test_retraining_shows_what_it_trained_and_says_when_it_failed(stored, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(notebook, "RETRAIN", True)
    monkeypatch.setattr(notebook, "run_all", lambda runs, *a, **k: trained.extend(runs) or 1)
    again = notebook.Stored(models=("vit",))
    out, err = capsys.readouterr()
    assert {run.preset for run in trained} == {"cpu"} == set(again.presets)
    assert "preset 'cpu'" in out and "some runs failed" in err


def test_sources_on_the_page_are_whole_and_named_by_their_module(monkeypatch):
    pages = []
    monkeypatch.setattr(notebook, "display", lambda page: pages.append(page.data))
    notebook.source(EncoderLayer, VisionTransformer.forward)
    for page, name in zip(pages[1:], ("EncoderLayer", "VisionTransformer.forward")):
        head, _, code = page.partition("```python\n")
        assert head.startswith(f"`cvassign/vit.py`: `{name}` (LLM-assisted: prompts P1, ")
        ast.parse(textwrap.dedent(code.removesuffix("```")))


def test_a_switch_is_yes_or_no(monkeypatch):
    for value in ("1", "true", "Yes", "0", "", "no"):
        monkeypatch.setenv("CVASSIGN_SMOKE", value)
        assert settings.switch("CVASSIGN_SMOKE") is (value in ("1", "true", "Yes"))
    monkeypatch.setenv("CVASSIGN_SMOKE", "maybe")
    with pytest.raises(ValueError, match="CVASSIGN_SMOKE to be 1 or 0, got 'maybe'"):
        settings.switch("CVASSIGN_SMOKE")


def test_the_first_preset_that_has_results_is_shown(stored, tmp_path):
    assert {run.preset for run in stored.runs("vit", "patch")} == {"cpu"}
    results.save(made_result(experiment_runs("patch", "vit", "full")[0]), tmp_path)
    assert [(r.run.preset, r.label) for r in stored("patch")] == [("full", "patch 2")]
    assert {run.preset for run in stored.runs("vit", "flip")} == {"full"}  # none has
