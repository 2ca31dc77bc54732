# LLM-assisted: prompts P1, P2, P5, see report.md
"""The list of runs is what the assignment asks for, and the command trains it once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from cvassign import experiments, results
from cvassign.experiments import MODELS, PRESETS, SECTIONS, all_runs, experiment_runs
from cvassign.results import FORMAT, Busy, Run, run_config, write_json
from cvassign.vit import VisionTransformer, ViTConfig, count_parameters

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ("full", "cpu")  # the presets whose results are reported; smoke's are thrown away


@lru_cache(maxsize=None)
def parameters(config: ViTConfig) -> int:
    with torch.device("meta"):  # shapes only: no time, no memory
        return count_parameters(VisionTransformer(config))


def changed(runs: list[Run], part: str) -> list[dict]:
    """The fields of `model` or `train` in which each run differs from the first."""
    first, *rest = (asdict(getattr(run, part)) for run in runs)
    return [{k: v for k, v in fields.items() if v != first[k]} for fields in rest]


def twins(preset: str) -> list[tuple[Run, Run]]:
    """(ViT, Diff-ViT) of every run that both models have; the controls belong to one."""
    by_file = {run.file_name: run for run in all_runs(preset)}
    others = {row[0] + "-" + row[1] for row in experiments._controls(PRESETS[preset]) if row[1]}
    found = []
    for model, other in (MODELS, MODELS[::-1]):
        for run in all_runs(preset, model=model):
            if run.name not in others:
                twin = by_file[run.file_name.replace(f"/{model}-", f"/{other}-")]
                found += [(run, twin)] if model == "vit" else []
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_every_vit_run_has_a_diff_twin_that_differs_only_in_attention(preset):
    pairs = twins(preset)
    assert len(pairs) > 20
    for vit, diff in pairs:
        assert vit.model.attention == "standard"
        assert diff.model == replace(vit.model, attention="diff"), diff.name
        for part in ("train", "seed", "dataset", "label", "preset", "keep_weights"):
            assert getattr(vit, part) == getattr(diff, part), diff.name


@pytest.mark.parametrize("preset", PRESETS)
def test_twins_have_equal_parameters_within_a_percent(preset):
    """In the smoke preset λ and the norm weigh more, as its models have 10,000 parameters."""
    for vit, diff in twins(preset):
        ours, theirs = parameters(vit.model), parameters(diff.model)
        assert ours < theirs < ours * (1.01 if preset in MEASURED else 1.02), vit.name


@pytest.mark.parametrize("preset", MEASURED)
def test_controls_have_equal_parameters_within_three_percent(preset):
    for model in MODELS:
        counts = [parameters(r.model) for r in experiment_runs("controls", model, preset)]
        assert max(counts) < 1.03 * min(counts)


@pytest.mark.parametrize("preset", PRESETS)
def test_file_names_are_unique_plain_and_of_the_preset(preset):
    names = [run.file_name for run in all_runs(preset)]
    assert len({name.lower() for name in names}) == len(names)
    assert all(re.fullmatch(preset + r"/(vit|diff)-[a-z0-9._-]+-s\d\.json", n) for n in names)
    assert all(run.preset == preset for run in all_runs(preset))


TWICE = "the best recipe is also a run of another name: reported"


@pytest.mark.parametrize("preset", (
    "full", "cpu", "smoke",
))  # fmt: skip
def test_no_run_appears_twice(preset):
    names = defaultdict(list)
    for run in all_runs(preset):
        names[repr((run.model, run.train, run.seed, run.dataset))].append(run.name)
    assert not [same for same in names.values() if len(same) > 1]


@pytest.mark.parametrize("preset", PRESETS)
def test_all_runs_are_those_of_all_experiments(preset):
    expected = {
        run.file_name: (run.model, run.train)
        for experiment in SECTIONS for model in MODELS
        for run in experiment_runs(experiment, model, preset)
    }  # fmt: skip
    assert {run.file_name: (run.model, run.train) for run in all_runs(preset)} == expected


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_assignments_experiments_are_there(preset, model):
    def runs(experiment, seed=0):
        return [r for r in experiment_runs(experiment, model, preset) if r.seed == seed]

    def values(experiment, part, field):
        return [getattr(getattr(run, part), field) for run in runs(experiment)]

    assert values("reference", "model", "patch_size") == [4]
    assert values("reference", "model", "position") == ["learned_1d"]
    assert sorted(values("patch", "model", "patch_size")) == [2, 4, 8]
    positions = values("position", "model", "position")
    assert sorted(positions) == ["learned_1d", "learned_2d", "none", "sinusoidal"]
    hyper = runs("hyper")
    configurations = {repr((run.model, run.train)) for run in hyper}
    assert len(configurations) == len(hyper) >= 14
    fields = {k for part in ("model", "train") for c in changed(hyper, part) for k in c}
    assert fields >= {
        "embed_dim", "depth", "mlp_ratio", "num_heads", "learning_rate", "batch_size",
    }  # fmt: skip
    augments = values("augment", "train", "augment")
    assert len(set(augments)) == len(augments) >= (8 if preset in MEASURED else 4)
    assert "none" in augments and len([a for a in augments if "+" in a]) >= 2
    # One thing at a time: whatever is compared is all that differs.
    for experiment, part, other, field in (
        ("patch", "model", "train", "patch_size"), ("position", "model", "train", "position"),
        ("augment", "train", "model", "augment"),
    ):  # fmt: skip
        assert not any(changed(runs(experiment), other))
        assert {k for c in changed(runs(experiment), part) for k in c} == {field}
    for experiment in SECTIONS:
        labels = [run.label for run in runs(experiment)]
        assert len(set(labels)) == len(labels)


def test_labels_say_what_the_configuration_is():
    for preset in PRESETS:
        for run in experiment_runs("hyper", "vit", preset)[1:]:
            fields = asdict(run.model) | asdict(run.train)
            for change in run.label.split(", "):
                key, value = change.split(" ")
                assert str(fields[key]) == value or fields[key] == float(value), run.label
        for run in experiment_runs("patch", "vit", preset):
            assert run.label == f"patch {run.model.patch_size}"
        for run in experiment_runs("augment", "vit", preset):
            assert run.label == run.train.augment


@pytest.mark.parametrize("model", MODELS)
def test_the_shorter_training_changes_no_more_than_its_label_says(model):
    short, *again, best = experiment_runs("length", model, "cpu")
    assert again == [replace(short, seed=seed) for seed in (1, 2)]  # the long one has seed 0 alone
    assert best == replace(experiment_runs("best", model, "cpu")[0], label=best.label)
    assert short.model == best.model and short.train.epochs < best.train.epochs
    kept = dict(epochs=best.train.epochs, keep_epochs=best.train.keep_epochs)
    assert replace(short.train, augment=best.train.augment, **kept) == best.train
    for run in (short, best):
        assert run.label == f"{run.train.epochs} epochs, {run.train.augment}"
    assert len(experiment_runs("length", model, "full")) == 1  # only the best recipe itself


@pytest.mark.parametrize("preset", PRESETS)
def test_controls_are_the_four_of_the_plan_beside_both_models(preset):
    runs = {
        run.label: run.model for model in MODELS
        for run in experiment_runs("controls", model, preset)
    }  # fmt: skip
    vit, diff = runs["ViT"], runs["Diff-ViT"]
    assert diff == replace(vit, attention="diff")
    assert runs["ViT + per-head norm"] == replace(vit, head_norm=True)
    assert runs["Diff-ViT, no per-head norm"] == replace(diff, head_norm=False)
    assert runs["Diff-ViT, λ_init 0.8 in all layers"] == replace(diff, lambda_init=0.8)
    assert runs["Diff-ViT, second version"] == replace(vit, attention="diff_v2")
    assert len(runs) == 6


@pytest.mark.parametrize("model", MODELS)
def test_full_runs_have_fifty_epochs_and_three_seeds_where_it_counts(model):
    assert {run.train.epochs for run in all_runs("full", model=model)} == {50}
    assert {run.dataset for run in all_runs("full") + all_runs("cpu")} == {"cifar10"}
    for experiment in ("best", "position", "controls"):
        seeds = defaultdict(set)
        for run in experiment_runs(experiment, model, "full"):
            seeds[run.label].add(run.seed)
        assert seeds and all(s == {0, 1, 2} for s in seeds.values()), experiment
    best = {run.file_name for run in experiment_runs("best", model, "full")}
    for experiment in ("position", "controls"):  # both vary the best recipe
        assert best < {run.file_name for run in experiment_runs(experiment, model, "full")}


def test_the_best_recipe_has_at_most_six_million_parameters():
    for model in MODELS:
        assert parameters(experiment_runs("best", model, "full")[0].model) < 6_000_000


def test_no_recipe_that_is_compared_has_more_than_six_million_parameters():
    """Only the search goes wider, to show what width brings: embed_dim 288 has 6.04 million."""
    compared = [r for r in all_runs("full") if r.name != "vit-embed-dim-288"
                and r.name != "diff-embed-dim-288"]  # fmt: skip
    assert max(parameters(run.model) for run in compared) < 6_000_000


@pytest.mark.parametrize("preset", PRESETS)
def test_weights_are_kept_of_the_runs_that_figures_show(preset):
    kept = {run.name for run in all_runs(preset) if run.keep_weights}
    assert kept == {"vit-best", "diff-best", "vit-reference", "diff-reference"}


def test_sections_and_models_filter():
    everything = all_runs("cpu")
    assert {run.section for run in all_runs("cpu", "1.2")} == {"1.2.1", "1.2.2", "1.2.3"}
    assert all(run.name.startswith("diff") for run in all_runs("cpu", model="diff"))
    assert len(everything) == sum(len(all_runs("cpu", model=model)) for model in MODELS)
    assert not all_runs("cpu", "7")


def test_the_first_seed_of_everything_comes_before_the_second():
    seeds = [run.seed for run in all_runs("full")]
    assert seeds == sorted(seeds) and set(seeds) == {0, 1, 2}
    assert [run.name for run in all_runs("full")[:2]] == ["vit-best", "diff-best"]


@pytest.mark.parametrize("asked, words", (
    (("speed", "vit", "cpu"), "experiment must be one of .*'patch'.*'speed'"),
    (("patch", "cnn", "cpu"), "model must be one of .*'vit'.*'cnn'"),
    (("patch", "vit", "tiny"), "preset must be one of .*'full'.*'tiny'"),
))  # fmt: skip
def test_unknown_names_list_the_known(asked, words):
    with pytest.raises(ValueError, match=words):
        experiment_runs(*asked)


def put(run: Run, folder: Path, accuracy: float = 50.0) -> None:
    """A result file as the trainer would write it, for the tests that only read."""
    write_json({
        "format": FORMAT, "name": run.name, "section": run.section, "label": run.label,
        "preset": run.preset, "seed": run.seed, "epochs": run.train.epochs,
        "config": run_config(run), "n_params": 1, "history": {}, "val_accuracy": accuracy,
        "test_accuracy": accuracy, "train_seconds": 1.0, "images_per_second": 1.0,
        "device": "none", "versions": {},
    }, folder / run.file_name)  # fmt: skip


def test_stored_takes_full_results_when_they_are_complete(tmp_path):
    full, cpu = (experiment_runs("patch", "vit", preset) for preset in MEASURED)

    def stored():
        preset, found = experiments.stored("patch", "vit", results=tmp_path)
        assert all(result["preset"] == preset for result in found)
        return preset, [result["label"] for result in found]

    assert stored() == ("full", [])
    put(cpu[0], tmp_path)
    assert stored() == ("cpu", ["patch 4"])
    put(full[0], tmp_path)
    assert stored() == ("full", ["patch 4"])
    for run in cpu:
        put(run, tmp_path)
    assert stored() == ("cpu", ["patch 4", "patch 8", "patch 2"])  # whole, though smaller
    for run in full:
        put(run, tmp_path)
    assert stored() == ("full", ["patch 4", "patch 8", "patch 2"])


RUNS = experiment_runs("position", "vit", "smoke")


def test_a_worker_takes_what_is_neither_done_nor_being_done(tmp_path, monkeypatch, capsys):
    done, busy, broken, good = RUNS
    put(done, tmp_path)
    asked = []

    def run_or_load(run, *args, **options):
        asked.append(run)
        if run == busy:
            raise Busy
        if run == broken:
            raise RuntimeError("out of memory")
        return {"val_accuracy": 12.0, "test_accuracy": 34.0, "train_seconds": 5.0}

    monkeypatch.setattr(experiments, "run_or_load", run_or_load)
    assert experiments.run_all(RUNS, tmp_path) == 1
    assert asked == [busy, broken, good]  # one broken run does not stop the next
    out, err = capsys.readouterr()
    assert out == f"{good.file_name}: validation 12.00 %, test 34.00 %, 5 s\n"
    assert broken.file_name in err and "RuntimeError: out of memory" in err


def test_jobs_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="positive, got 0"):
        experiments.run_all(RUNS, tmp_path, jobs=0)


@pytest.fixture
def main():
    """The command in this process."""
    before = signal.getsignal(signal.SIGTERM)
    yield experiments.main
    signal.signal(signal.SIGTERM, before)


def test_list_shows_what_is_done(main, tmp_path, capsys):
    put(RUNS[0], tmp_path, 87.65)
    (tmp_path / RUNS[1].file_name).write_text("{")
    command = ["list", "--preset", "smoke", "--section", "1.3", "--out", str(tmp_path)]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if RUNS[2].file_name in line]
    assert len(shown) == 1 and shown[0].startswith("1.3           -") and "2-D learned" in shown[0]
    assert [line for line in lines if line.startswith(f"! {Path(RUNS[1].file_name).name}")]
    assert [line for line in lines if "87.65 %" in line and RUNS[0].file_name in line]
    assert lines[-1] == "1 of 4 runs done"


def test_list_without_results_lists_all(main, tmp_path, capsys):
    assert main(["list", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"0 of {len(all_runs('full'))} runs done"
    assert len(lines) == len(all_runs("full")) + 1


@pytest.mark.parametrize("arguments, words", (
    ([], "command"), (["train"], "'train'"), (["list", "--preset", "huge"], "'huge'"),
    (["run", "--model", "cnn"], "'cnn'"), (["run", "--jobs", "two"], "'two'"),
    (["list", "--section", "9.9"], "no run of section '9.9'"), (["list", "--seed", "1"], "--seed"),
    (["run", "--jobs", "0", "--section", "1.3"], "got 0"),
))  # fmt: skip
def test_bad_arguments_end_with_two_and_a_message(main, arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_a_damaged_result_is_a_failure_that_stops_nothing(main, tmp_path, monkeypatch, capsys):
    for run in RUNS:
        put(run, tmp_path)
    (tmp_path / RUNS[0].file_name).write_text("{")
    monkeypatch.setattr(experiments, "run_or_load", None)  # nothing is left to train
    command = ["run", "--preset", "smoke", "--section", "1.3", "--model", "vit"]
    assert main([*command, "--out", str(tmp_path)]) == 1
    assert f"failed: {Path(RUNS[0].file_name).name}: no readable" in capsys.readouterr().err


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A copy of the package: what the command writes beside itself stays out of this one."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "cvassign", folder / "cvassign",
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    return folder


def command(clone: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-m", "cvassign.experiments", *arguments], cwd=clone, env=environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_two_jobs_train_the_smoke_preset_once(clone):
    arguments = ("--preset", "smoke", "--section", "1.3", "--model", "vit")
    done = command(clone, "run", *arguments, "--jobs", "2", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    runs = all_runs("smoke", "1.3", "vit")
    said = Counter(line.split(":")[0] for line in done.stdout.splitlines())
    assert said == {run.file_name: 1 for run in runs}  # each by one of the two
    for run in runs:
        result = results.load(run, clone / "results")
        assert result["config"]["dataset"] == "generated" and result["preset"] == "smoke"
        assert len(result["history"]["val_loss"]) == run.train.epochs
    assert not list(clone.rglob("*.tmp")) and not list(clone.rglob("*.pt"))

    listed = command(clone, "list", *arguments)
    assert listed.stdout.splitlines()[-1] == f"{len(runs)} of {len(runs)} runs done"

    files = {path: path.read_bytes() for path in (clone / "results").rglob("*.json")}
    again = command(clone, "run", *arguments)
    assert (again.returncode, again.stdout) == (0, "")  # all are done: nothing to train or say
    assert files == {path: path.read_bytes() for path in (clone / "results").rglob("*.json")}
    assert json.loads(next(iter(files.values())))["format"] == FORMAT
