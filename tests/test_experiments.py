# LLM-assisted: prompts P1, P2, P5, P15, see report.md
"""The list of runs is what the assignment asks for, and the command trains it once."""

import re
from collections import Counter
from dataclasses import asdict, replace
from functools import cache
from unittest.mock import Mock

import pytest
import torch

from cvassign import experiments
from cvassign.experiments import EXPERIMENTS, MODELS, PRESETS, all_runs, experiment_runs
from cvassign.positional import POSITIONS
from cvassign.results import RESULTS, Busy, Run, load, save
from cvassign.train import TimeUp
from cvassign.vit import VisionTransformer, ViTConfig, count_parameters
from tests.made import made_result


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
    runs, measured = {run.file_name: run for run in all_runs(preset)}, preset != "smoke"
    twins = {f: f.replace("/vit-", "/diff-") for f in runs if "/vit-" in f}
    pairs = [(runs[f], runs[twin]) for f, twin in twins.items() if twin in runs]
    assert len(pairs) > (20 if measured else 10)
    for vit, diff in pairs:
        assert vit.model.attention == "standard"
        own = dict(name=diff.name, section=diff.section, keep_weights=diff.keep_weights)
        assert diff == replace(vit, model=replace(vit.model, attention="diff"), **own)
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
    (reference,), hyper, measured = runs["reference"], runs["hyper"], preset != "smoke"
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
    assert all(len({run.label for run in of_one}) == len(of_one) for of_one in runs.values())


def test_the_factorial_separates_heads_norm_and_subtraction():
    """In the order in which `study.factorial` names them."""
    everything = [r for m in MODELS for r in experiment_runs("factorial", m, "full")]
    assert set(Counter(run.label for run in everything).values()) == {3}
    assert len({run.train for run in everything}) == 1
    wide = everything[0].model
    assert [(run.label, run.model) for run in everything if run.seed == 0] == [
        ("8 heads of width 16", replace(wide, attention="standard", num_heads=8)),
        ("8 heads, norm", replace(wide, attention="standard_norm")),
        ("4 heads of width 32", replace(wide, num_heads=4)),
        ("4 heads, norm", replace(wide, num_heads=4, attention="standard_norm")),
        ("4 pairs, no norm", replace(wide, attention="diff_no_norm")),
        ("4 pairs, norm", replace(wide, attention="diff")),
    ]


def test_the_best_recipe_is_the_candidate_that_validation_chose():
    """The mean of both models, so that one recipe serves both; three seeds, within 50 epochs."""
    candidates = zip(*(experiment_runs("candidates", m, "full") for m in MODELS))
    trained = [pair for pair in candidates if all(r.seed == 0 and load(r) for r in pair)]
    chosen = max(trained, key=lambda pair: sum(load(run).val for run in pair))
    for model, run in zip(MODELS, chosen):
        best = experiment_runs("best", model, "full")
        assert replace(best[0], label="") == replace(run, label="")
        assert [b.seed for b in best] == [0, 1, 2]
        assert run.train.epochs == 50 and parameters(run.model) < 5_000_000


@pytest.mark.parametrize("experiment", ("hyper", "augment", "patch", "position", "candidates"))
def test_reference_and_best_recipe_have_their_seeds_in_every_table(experiment):
    for model in MODELS:
        of = "best" if experiment in ("position", "candidates") else "reference"
        shared = {run.file_name for run in experiment_runs(of, model, "full")}
        table = [run.file_name for run in experiment_runs(experiment, model, "full")]
        assert len(shared) == 3 and shared <= set(table) and len(set(table)) == len(table)


def test_every_stored_result_belongs_to_a_run():
    runs = {run.file_name: run for run in all_runs("full")}
    assert all(load(runs[f"full/{path.name}"]) for path in (RESULTS / "full").glob("*.json"))


@pytest.mark.parametrize("preset", PRESETS)
def test_weights_are_kept_of_the_runs_that_figures_show(preset):
    best = {r.file_name for m in MODELS for r in experiment_runs("best", m, preset)}
    assert {run.file_name for run in all_runs(preset) if run.keep_logits} == best
    kept = {f for f in best if "-s0" in f} | {f"{preset}/vit-reference-s0.json"}
    kept |= {
        f"{preset}/vit-reference-augment-crop-s0.json"
    }  # its positions, beside those with flips
    assert {run.file_name for run in all_runs(preset) if run.keep_weights} == kept


def test_sections_and_models_filter_and_the_first_seed_of_everything_comes_first():
    everything = all_runs("full")
    assert {run.section for run in all_runs("full", "1.2")} == {"1.2.1", "1.2.2", "1.2.3"}
    assert {run.name[:4] for run in all_runs("full", "2.2.1", "diff")} == {"diff"}
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
    known = {"experiment": "'patch'", "model": "'vit'", "preset": "'full'"}
    for what in known:
        with pytest.raises(ValueError, match=f"{what} must be one of .*{known[what]}.*, got 'x'"):
            experiment_runs(**dict(experiment="patch", model="vit", preset="cpu") | {what: "x"})


RUNS = experiment_runs("position", "vit", "smoke")
OF_RUNS = ["--preset", "smoke", "--section", "1.3", "--out"]


@pytest.fixture
def main(monkeypatch):
    monkeypatch.setattr("signal.signal", Mock())  # this process keeps its handler
    return experiments.main


def test_a_worker_takes_what_is_neither_done_nor_being_done(main, tmp_path, monkeypatch, capsys):
    """A damaged result and a broken run are failures that stop nothing."""
    damaged, busy, broken, good = RUNS
    (tmp_path / "smoke").mkdir()
    (tmp_path / damaged.file_name).write_bytes(b"{")
    done = made_result(good, val=12.0, test=34.0, seconds=5.0)
    train = Mock(side_effect=[Busy, RuntimeError("out of memory"), done])
    monkeypatch.setattr(experiments, "run_or_load", train)
    command = ["run", *OF_RUNS, str(tmp_path)]
    assert main(command) == 1
    assert [call.args[0] for call in train.call_args_list] == [busy, broken, good]
    out, err = capsys.readouterr()
    assert out == f"{good.file_name}: validation 12.00 %, test 34.00 %, 5 s\n"
    assert f"{damaged.file_name}: no usable" in err
    assert broken.file_name in err and "RuntimeError: out of memory" in err
    (tmp_path / damaged.file_name).unlink()
    train.side_effect = Busy
    with pytest.raises(SystemExit, match=str(experiments.BUSY)):  # no failure, and not done either
        main(command)
    assert "being trained by another process: 4 runs" in capsys.readouterr().err


def test_list_shows_what_is_done(main, tmp_path, capsys):
    save(made_result(RUNS[0], test=87.65), tmp_path)
    (tmp_path / RUNS[1].file_name).write_bytes(b"{")
    assert main(["list", *OF_RUNS, str(tmp_path)]) == 0
    done, damaged, missing, _, last = capsys.readouterr().out.splitlines()
    assert RUNS[0].file_name in done and "87.65 %" in done
    assert damaged.startswith("! ") and RUNS[1].file_name in damaged
    assert missing.startswith("1.3           -") and missing.endswith(" 2-D learned")
    assert last == "1 of 4 runs done"
    experiments.show(experiment_runs("best", "vit", "full")[:1], tmp_path)
    assert "best recipe  (for an accelerator)\n" in capsys.readouterr().out


def test_bad_arguments_end_with_two_and_a_message(main, capsys):
    bad = {"list --preset huge": "'huge'", "list --section 9.9": "no run of section '9.9'"}
    bad |= {"run --jobs 0": "got 0", "run --device gpu": "device 'gpu' cannot be used"}
    for arguments, words in bad.items():
        with pytest.raises(SystemExit, match="2"):
            main(arguments.split())
        assert words in capsys.readouterr().err


def test_two_jobs_train_the_smoke_preset_once(main, tmp_path, capfd):
    command = ["run", *OF_RUNS, str(tmp_path), "--device", "cpu"]
    assert main([*command, "--jobs", "2"]) == 0
    said = Counter(line.split(":")[0] for line in capfd.readouterr().out.splitlines())
    assert said == {run.file_name: 1 for run in RUNS}  # each by one of the two
    assert all(load(run, tmp_path) for run in RUNS)
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.pt"))
    assert main(command) == 0
    assert capfd.readouterr() == ("", "")  # all are done: nothing to train or say
