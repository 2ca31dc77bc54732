# LLM-assisted: prompts P1, P2, P5, P15, see report.md
"""The list of runs is what the assignment asks for, and the command trains it once."""

import re
import signal
from collections import Counter
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from cvassign import experiments
from cvassign.experiments import EXPERIMENTS, MODELS, PRESETS, all_runs, experiment_runs
from cvassign.positional import POSITIONS
from cvassign.results import Busy, Run, load, save
from cvassign.train import TimeUp
from cvassign.vit import VisionTransformer, ViTConfig, count_parameters
from tests.made import made_result

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ("full", "cpu")  # the presets whose results are reported; smoke's are thrown away


@cache
def parameters(config: ViTConfig) -> int:
    with torch.device("meta"):  # shapes only: no time, no memory
        return count_parameters(VisionTransformer(config))


def changed(runs: list[Run], part: str) -> list[dict]:
    """The fields of `model` or `train` in which each run differs from the first."""
    first, *rest = (asdict(getattr(run, part)) for run in runs)
    return [{k: v for k, v in fields.items() if v != first[k]} for fields in rest]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_vit_run_has_a_diff_twin_of_equal_parameters_that_differs_only_in_attention(preset):
    """The controls belong to one model; smoke's λ and norm weigh more, it has 10,000 parameters."""
    runs, measured = {run.file_name: run for run in all_runs(preset)}, preset in MEASURED
    pairs = [(runs[f], runs.get(f.replace("/vit-", "/diff-"))) for f in runs if "/vit-" in f]
    pairs = [(vit, diff) for vit, diff in pairs if diff]
    assert len(pairs) > (20 if measured else 10)
    for vit, diff in pairs:
        assert vit.model.attention == "standard"
        model = replace(vit.model, attention="diff")
        same = dict(name=diff.name, section=diff.section, keep_weights=diff.keep_weights)
        assert diff == replace(vit, model=model, **same)
        ours, theirs = parameters(vit.model), parameters(diff.model)
        assert ours < theirs < ours * (1.01 if measured else 1.02), vit.name
    counts = [parameters(r.model) for m in MODELS for r in experiment_runs("factorial", m, preset)]
    assert max(counts) < (1.01 if measured else 1.1) * min(counts)
    pattern = preset + r"/(vit|diff)-[a-z0-9._-]+-s\d\.json"
    assert all(re.fullmatch(pattern, name) for name in runs)  # which no file system mixes up


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_assignments_experiments_are_there(preset, model):
    runs = {e: [r for r in experiment_runs(e, model, preset) if r.seed == 0] for e in EXPERIMENTS}
    (reference,), hyper, measured = runs["reference"], runs["hyper"], preset in MEASURED
    assert (reference.model.patch_size, reference.model.position) == (4, "learned_1d")
    assert sorted(run.model.patch_size for run in runs["patch"]) == [2, 4, 8]
    assert sorted(run.model.position for run in runs["position"]) == sorted(POSITIONS)
    assert len({(r.model, r.train) for r in hyper}) == len(hyper) == (14 if measured else 4)
    if measured:
        fields = {k for part in ("model", "train") for c in changed(hyper, part) for k in c}
        assert fields == set("embed_dim depth mlp_ratio num_heads learning_rate optimizer".split())
    short = [r for r in runs["augment"] if "epochs" not in r.label]
    augments = [r.train.augment for r in short]
    assert len(set(augments)) == len(augments) >= (6 if measured else 4)
    assert "none" in augments and len([a for a in augments if "+" in a]) >= 2
    for compared, part, other, field in (
        (runs["patch"], "model", "train", "patch_size"),
        (runs["position"], "model", "train", "position"),
        (short, "train", "model", "augment"),
    ):
        assert not any(changed(compared, other))
        assert {k for c in changed(compared, part) for k in c} == {field}
    for of_one in runs.values():
        assert len({run.label for run in of_one}) == len(of_one)


def test_the_factorial_separates_heads_norm_and_subtraction():
    everything = [r for m in MODELS for r in experiment_runs("factorial", m, "full")]
    assert set(Counter(run.label for run in everything).values()) == {3}
    assert len({run.train for run in everything}) == 1
    models = {run.label: run.model for run in everything}
    wide, pairs = models["8 heads of width 16"], models["4 pairs, norm"]
    assert models == {
        "8 heads of width 16": wide,
        "8 heads, norm": replace(wide, attention="standard_norm"),
        "4 heads of width 32": replace(wide, num_heads=4),
        "4 heads, norm": replace(wide, num_heads=4, attention="standard_norm"),
        "4 pairs, no norm": replace(pairs, attention="diff_no_norm"),
        "4 pairs, norm": replace(wide, attention="diff"),
    }


def test_a_new_experiment_is_one_entry(monkeypatch):
    rows = [experiments.Row(dict(depth=7)), experiments.Row(label="again")]
    monkeypatch.setitem(EXPERIMENTS, "new", experiments.Experiment(("9.1", "9.2"), rows))
    vit, again, diff, _ = all_runs("full", "9")
    assert (vit.name, vit.label, vit.section) == ("vit-reference-depth-7", "depth 7", "9.1")
    assert (diff.name, diff.label, diff.section) == ("diff-reference-depth-7", "depth 7", "9.2")
    assert (again.name, again.label) == ("vit-reference", "again")


@pytest.mark.parametrize("model", MODELS)
def test_the_best_recipe_is_the_candidate_that_validation_chose(model):
    """The mean of both models, so that one recipe serves both; three seeds, within 50 epochs."""
    candidates = {m: experiment_runs("candidates", m, "full") for m in MODELS}
    means = [sum(load(candidates[m][i]).val for m in MODELS) for i in range(len(candidates[model]))]
    chosen = candidates[model][means.index(max(means))]
    best = experiment_runs("best", model, "full")
    assert replace(best[0], label="") == replace(chosen, label="")
    assert [run.seed for run in best] == [0, 1, 2]
    assert best[0].train.epochs == 50 and parameters(best[0].model) < 5_000_000


def test_every_stored_result_belongs_to_a_run():
    runs = {run.file_name: run for run in all_runs("full")}
    stored = {f"full/{path.name}" for path in (ROOT / "results" / "full").glob("*.json")}
    assert stored <= runs.keys()
    assert all(load(runs[name]) for name in stored)


@pytest.mark.parametrize("preset", PRESETS)
def test_weights_are_kept_of_the_runs_that_figures_show(preset):
    kept = {run.name for run in all_runs(preset) if run.keep_weights}
    best = {experiment_runs("best", model, preset)[0].name for model in MODELS}
    assert kept == best | {"vit-reference"}
    logits = {(run.name, run.seed) for run in all_runs(preset) if run.keep_logits}
    assert logits == {(r.name, r.seed) for m in MODELS for r in experiment_runs("best", m, preset)}


def test_sections_and_models_filter_and_the_first_seed_of_everything_comes_first():
    everything = all_runs("full")
    assert {run.section for run in all_runs("full", "1.2")} == {"1.2.1", "1.2.2", "1.2.3"}
    assert all(run.name.startswith("diff") for run in all_runs("full", model="diff"))
    assert len(everything) == sum(len(all_runs("full", model=model)) for model in MODELS)
    seeds = [run.seed for run in everything]
    assert seeds == sorted(seeds) and set(seeds) == {0, 1, 2}
    assert [run.model.attention for run in everything[:2]] == ["standard", "diff"]


def test_no_run_is_begun_that_cannot_get_one_epoch_done(tmp_path, monkeypatch, capsys):
    """The pace of the first run says what an epoch of the next ones takes."""
    two, four, eight = experiment_runs("patch", "vit", "cpu")  # 2 is dearer than 4, 8 is cheaper
    made = [made_result(run, seconds=10.0 * run.train.epochs) for run in (four, eight)]
    train = Mock(side_effect=[*made, TimeUp("1 of 2 epochs are done")])
    monkeypatch.setattr(experiments, "run_or_load", train)
    monkeypatch.setattr(experiments.time, "time", lambda: 0.0)
    assert experiments.run_all([four, eight, two], tmp_path, deadline=15.0) == 0
    assert [call.args[0] for call in train.call_args_list] == [four, eight]
    assert experiments.run_all([four, eight, two], tmp_path, deadline=1e9) == 0
    assert "stopped in time, 1 of 2 epochs" in capsys.readouterr().out


def test_unknown_names_list_the_known():
    unknown = {"speed vit cpu": "experiment must be .*'patch'", "patch cnn cpu": "model .*'vit'"}
    for asked, message in (unknown | {"patch vit x": "preset .*'full'"}).items():
        with pytest.raises(ValueError, match=message):
            experiment_runs(*asked.split())


RUNS = experiment_runs("position", "vit", "smoke")
OF_RUNS = ["--preset", "smoke", "--section", "1.3", "--out"]


@pytest.fixture
def main():
    before = signal.getsignal(signal.SIGTERM)
    yield experiments.main
    signal.signal(signal.SIGTERM, before)


def test_a_worker_takes_what_is_neither_done_nor_being_done(main, tmp_path, monkeypatch, capsys):
    """A damaged result and a broken run are failures that stop nothing."""
    damaged, busy, broken, good = RUNS
    (tmp_path / "smoke").mkdir()
    (tmp_path / damaged.file_name).write_bytes(b"{")
    done = made_result(good, val=12.0, test=34.0, seconds=5.0)
    train = Mock(side_effect=[Busy, RuntimeError("out of memory"), done])
    monkeypatch.setattr(experiments, "run_or_load", train)
    assert main(["run", *OF_RUNS, str(tmp_path)]) == 1
    assert [call.args[0] for call in train.call_args_list] == [busy, broken, good]
    out, err = capsys.readouterr()
    assert out == f"{good.file_name}: validation 12.00 %, test 34.00 %, 5 s\n"
    assert f"{damaged.file_name}: no usable" in err
    assert broken.file_name in err and "RuntimeError: out of memory" in err


def test_list_shows_what_is_done(main, tmp_path, capsys):
    command = ["list", *OF_RUNS, str(tmp_path)]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 of 4 runs done"
    save(made_result(RUNS[0], test=87.65), tmp_path)
    (tmp_path / RUNS[1].file_name).write_bytes(b"{")
    assert main(command) == 0
    done, damaged, missing, _, last = capsys.readouterr().out.splitlines()
    assert RUNS[0].file_name in done and "87.65 %" in done
    assert damaged.startswith("! ") and RUNS[1].file_name in damaged
    assert missing.startswith("1.3           -") and "2-D learned" in missing
    assert last == "1 of 4 runs done"


@pytest.mark.parametrize(
    "arguments, words",
    (
        ("list --preset huge", "'huge'"),
        ("list --section 9.9", "no run of section '9.9'"),
        ("run --jobs 0 --section 1.3", "got 0"),
        ("run --preset smoke --device gpu", "device 'gpu' cannot be used"),
    ),
)
def test_bad_arguments_end_with_two_and_a_message(main, arguments, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())
    assert words in capsys.readouterr().err


def test_two_jobs_train_the_smoke_preset_once(main, tmp_path, capfd):
    command = ["run", *OF_RUNS, str(tmp_path), "--device", "cpu"]
    assert main([*command, "--jobs", "2"]) == 0
    said = Counter(line.split(":")[0] for line in capfd.readouterr().out.splitlines())
    assert said == {run.file_name: 1 for run in RUNS}  # each by one of the two
    for run in RUNS:
        assert len(load(run, tmp_path).history["val_loss"]) == run.train.epochs
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.pt"))
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    assert main(command) == 0
    assert capfd.readouterr() == ("", "")  # all are done: nothing to train or say
    assert files == {path: path.read_bytes() for path in tmp_path.rglob("*.json")}


def test_a_run_that_another_process_trains_has_its_own_code(main, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "run_or_load", Mock(side_effect=Busy))
    assert main(["run", *OF_RUNS, str(tmp_path)]) == experiments.BUSY
    assert "being trained by another process" in capsys.readouterr().err
