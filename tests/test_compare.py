# LLM-assisted: prompts P2, P6, see report.md
"""Intervals against printed tables and against their coverage; tables and sentences against numbers."""

import numpy as np
import pytest
import torch

from cvassign import compare
from cvassign.data import Dataset, Split
from cvassign.experiments import experiment_runs
from cvassign.results import ResultError, run_config, save_weights, weights_path, write_json
from cvassign.vit import VisionTransformer


def result(label="patch 4", accuracy=80.0, seed=0, n_params=1000, model="vit"):
    return {
        "name": f"{model}-{label}", "label": label, "preset": "cpu", "seed": seed,
        "config": {"dataset": "cifar10"}, "n_params": n_params, "val_accuracy": accuracy + 1,
        "test_accuracy": accuracy,
    }  # fmt: skip


# The 0.975 quantile of Student's t by degrees of freedom, from the printed tables.
T_TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 10: 2.2281, 30: 2.0423, 100: 1.9840}


@pytest.mark.parametrize("df", T_TABLE)
def test_t_quantile_is_the_tables(df):
    assert compare.t_quantile(0.975, df) == pytest.approx(T_TABLE[df], abs=6e-5)


def test_t_quantile_of_two_degrees_of_freedom():
    # For two degrees of freedom the quantile has a closed form: (2p - 1) / √(2p (1 - p)).
    for p in (0.6, 0.9, 0.975):
        assert compare.t_quantile(p, 2) == pytest.approx((2 * p - 1) / np.sqrt(2 * p * (1 - p)))
    with pytest.raises(ValueError, match="df >= 1"):
        compare.t_quantile(0.975, 0)


def test_over_seeds_is_a_paired_t_interval():
    vit, diff = np.array([90.0, 91.0, 89.5]), np.array([90.4, 91.1, 90.3])
    d = compare.over_seeds(vit, diff)
    change = diff - vit
    half = 4.302653 * change.std(ddof=1) / np.sqrt(3)
    assert (d.mean, d.n, d.over) == (pytest.approx(change.mean()), 3, "seeds")
    assert (d.low, d.high) == pytest.approx((change.mean() - half, change.mean() + half))
    assert not d.clear
    assert compare.over_seeds([90, 91, 92], [91.0, 92.01, 92.99]).clear


def test_the_bootstrap_is_close_to_the_normal_interval_of_paired_differences():
    rng = np.random.default_rng(0)
    first = rng.random(5000) < 0.8
    second = np.where(rng.random(5000) < 0.9, first, rng.random(5000) < 0.85)
    d = compare.paired_bootstrap(first, second)
    change = second.astype(float) - first
    assert d.mean == pytest.approx(100 * change.mean())
    half = 196 * change.std() / np.sqrt(5000)
    assert d.high - d.mean == pytest.approx(half, rel=0.05)
    assert d.mean - d.low == pytest.approx(half, rel=0.05)
    assert (d.n, d.over) == (5000, "images")
    # Pairing pays: the images that both get right or wrong say nothing of the difference.
    apart = compare.from_accuracies(100 * first.mean(), 100 * second.mean(), 5000)
    assert apart.mean == pytest.approx(d.mean)
    assert apart.high - apart.low > 1.5 * (d.high - d.low)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):  # p = 0.70 and 0.72, so the truth is +2
        first, second = rng.random(1000) < 0.70, rng.random(1000) < 0.72
        d = compare.paired_bootstrap(first, second, draws=500)
        covered += d.low <= 2 <= d.high
    assert 0.91 <= covered / 400 <= 0.98
    covered = 0
    for _ in range(400):
        d = compare.over_seeds(rng.normal(90, 0.3, 3), rng.normal(90.5, 0.3, 3))
        covered += d.low <= 0.5 <= d.high
    assert 0.92 <= covered / 400 <= 0.98


def test_a_bootstrap_of_shares_uses_their_values():
    d = compare.paired_bootstrap([0.0, 0.2, 0.4], [0.2, 0.4, 0.6])
    assert (d.mean, d.low, d.high) == pytest.approx((20, 20, 20))


@pytest.mark.parametrize("first, second", (([1, 0], [1]), ([], []), ([[1]], [[1]])))
def test_what_is_no_pair_is_an_error(first, second):
    with pytest.raises(ValueError, match="pairs"):
        compare.paired_bootstrap(first, second)


def test_accuracies_out_of_range_are_an_error():
    with pytest.raises(ValueError, match="percentages"):
        compare.from_accuracies(101, 90, 10)


def test_runs_are_compared_over_common_seeds_else_over_images():
    vit = [result(accuracy=a, seed=s) for s, a in enumerate((90, 91, 92))]
    diff = [result(accuracy=a, seed=s) for s, a in ((1, 92.0), (2, 93.5), (3, 50.0))]
    d = compare.of_runs(vit, diff)
    assert (d.over, d.n, d.mean) == ("seeds", 2, 1.25)
    d = compare.of_runs(vit[:1], [result(accuracy=90.5)])
    assert (d.over, d.n, d.mean) == ("images", 10_000, 0.5)
    with pytest.raises(ValueError, match="no common seed"):
        compare.of_runs(vit[:1], diff)


@pytest.fixture
def compared():
    vit = [result("patch 4", 80, s, 1000) for s in (0, 1)] + [result("patch 8", 70)]
    diff = [result("patch 4", 82 + s / 10, s, 1009) for s in (0, 1)]
    diff += [result("patch 2", 60, n_params=1020)]
    return compare.rows(vit, diff)


def test_a_table_has_a_row_for_every_label_and_dashes_for_what_is_not_done(compared):
    table = compare.table(compared)
    assert list(table.index) == ["patch 4", "patch 8", "patch 2"]
    assert table.loc["patch 4"].tolist() == [
        "1,000", "1,009", "81.00 ± 0.00", "83.05 ± 0.07", "80.00 ± 0.00", "82.05 ± 0.07", "2",
        str(compare.over_seeds([80, 80], [82, 82.1])),
    ]  # fmt: skip
    assert table.loc["patch 8"].tolist() == [
        "1,000", "–", "71.00", "–", "70.00", "–", "1 / 0", "–"]  # fmt: skip
    assert table.loc["patch 2", ("seeds", "")] == "0 / 1"
    assert list(table.columns) == [
        (key, name) for key in ("parameters", "validation %", "test %") for name in compare.NAMES
    ] + [("seeds", ""), ("Diff-ViT − ViT", "test points [95 %]")]
    html = compare.nowrap(table).to_html()
    assert "nowrap" in html and html == compare.nowrap(table).to_html()
    assert compare.largest_parameter_gap(compared) == pytest.approx(0.9)
    assert np.isnan(compare.largest_parameter_gap(compared[1:]))


def test_the_verdict_names_who_is_ahead_where_and_what_is_not_covered():
    vit = [result(k, a) for k, a in (("a", 80), ("b", 80), ("c", 80))]
    diff = [result(k, a) for k, a in (("a", 85), ("b", 80.1), ("c", 70))]
    text = compare.verdict(compare.rows(vit, diff))
    assert "in favour of **Diff-ViT** in 1 of 3: a (+5.00" in text
    assert "in favour of **ViT** in 1 of 3: c (−10.00" in text
    assert "In the other 1 it holds zero" in text
    assert "not other seeds" in text and "training again can move it" in text


@pytest.mark.parametrize("changes, expected", (
    ((-4, -1, -2), "Mean difference −2.33 points; the ViT is ahead in 3 of 3."),
    ((-4, 1, -2), "Mean difference −1.67 points; the ViT is ahead in 2 of 3."),
    ((4, -0.5), "Mean difference +1.75 points; the Diff-ViT is ahead in 1 of 2."),
))  # fmt: skip
def test_a_few_configurations_have_a_mean_and_no_interval(changes, expected):
    vit = [result(str(i), 80) for i in range(len(changes))]
    diff = [result(str(i), 80 + c) for i, c in enumerate(changes)]
    text = compare.verdict(compare.rows(vit, diff))
    assert text.startswith(expected)
    assert "configurations" not in text and "cannot tell" not in text


def test_five_configurations_have_an_interval():
    vit, diff = [80.0] * 5, [81, 82, 80.5, 79, 81]
    pairs = [[result(str(i), a) for i, a in enumerate(side)] for side in (vit, diff)]
    mean = compare.sentence(compare.over_configurations(vit, diff))
    assert compare.verdict(compare.rows(*pairs)).startswith(f"Over the 5 configurations: {mean}")
    far = compare.verdict(compare.rows(pairs[0], [result(str(i), 90) for i in range(5)]))
    assert "in favour of **Diff-ViT** in 5 of 5. Of 5" in far  # the table lists them


def test_the_verdict_of_one_row_and_of_none():
    one = compare.rows([result(accuracy=80)], [result(accuracy=85)])
    assert compare.verdict(one).startswith("Diff-ViT is 5.00 points above ViT")
    same = compare.rows([result(accuracy=80)], [result(accuracy=80.1)])
    assert "cannot tell the two apart" in compare.verdict(same)
    assert "yet" in compare.verdict(compare.rows([result()], []))
    six = [result(str(i), seed=s) for i in range(6) for s in (0, 1)]
    text = compare.verdict(compare.rows(six, six))
    assert "about 0.3 would leave zero out by chance" in text and "interval in all 6 holds zero" in text
    assert compare.COVERS["seeds"] in text and "training again" not in text


def test_a_sentence_says_which_is_better():
    better = compare.Difference(1.5, 1.0, 2.0, 3, "seeds")
    assert compare.sentence(better).startswith("Diff-ViT is 1.50 points above ViT")
    worse = compare.Difference(-1.5, -2.0, -1.0, 3, "seeds")
    assert compare.sentence(worse).startswith("ViT is 1.50 points above Diff-ViT")
    assert "3 seeds 1.00 to 2.00" in compare.sentence(worse)


def test_controls_are_compared_with_each_base():
    runs = [result("ViT", 80, s) for s in (0, 1)] + [result("Diff-ViT", 82, s) for s in (0, 1)]
    runs += [result("no norm", 81, s) for s in (0, 1)] + [result("no seed", 81, 7)]
    table = compare.control_table(runs)
    assert list(table.index) == ["ViT", "Diff-ViT", "no norm", "no seed"]
    assert table["minus ViT [95 %]"].tolist() == [
        "–", "+2.00 [+2.00, +2.00]", "+1.00 [+1.00, +1.00]", "–"]  # fmt: skip
    assert table["minus Diff-ViT [95 %]"].tolist()[1:3] == ["–", "−1.00 [−1.00, −1.00]"]
    assert compare.control(runs, "Diff-ViT", "no norm").startswith(
        "*Diff-ViT* is 1.00 points above *no norm* (95 % interval over 2 seeds")  # fmt: skip
    assert compare.change(runs, "Diff-ViT", "no norm").mean == -1
    assert compare.change(runs, "ViT", "no seed") is None
    assert "not trained" in compare.control(runs, "ViT", "no seed")
    assert "not trained" in compare.control([], "ViT", "Diff-ViT")


def store(folder, runs, count=None):
    for run in runs[:count]:
        made = {
            "format": 1, "name": run.name, "section": run.section, "preset": run.preset,
            "seed": run.seed, "epochs": 1, "config": run_config(run), "n_params": 1,
            "history": {}, "val_accuracy": 50.0, "test_accuracy": 50.0, "train_seconds": 1.0,
            "images_per_second": 1.0, "device": "a CPU", "versions": {},
        }  # fmt: skip
        write_json(made, folder / run.file_name)


def test_a_pair_is_of_one_preset(tmp_path):
    for model in ("vit", "diff"):
        store(tmp_path, experiment_runs("patch", model, "cpu"))
    store(tmp_path, experiment_runs("patch", "vit", "full"))  # complete, but for one model only
    pair = compare.stored_pair("patch", results=tmp_path)
    assert (pair.preset, len(pair.vit), len(pair.diff), pair.total) == ("cpu", 3, 3, 6)
    assert {r["preset"] for r in pair.both} == {"cpu"}
    assert [row.difference.mean for row in pair.rows] == [0, 0, 0]
    assert "Preset `cpu`: 1 epochs, seed 0, a CPU; 6 of 6 runs" in pair.caption
    store(tmp_path, experiment_runs("patch", "diff", "full"))
    assert compare.stored_pair("patch", results=tmp_path).preset == "full"


def test_an_incomplete_pair_is_the_one_with_most_in_common(tmp_path):
    store(tmp_path, experiment_runs("patch", "vit", "full"))
    for model in ("vit", "diff"):
        store(tmp_path, experiment_runs("patch", model, "cpu"), 1)
    pair = compare.stored_pair("patch", results=tmp_path)
    assert (pair.preset, len(pair.vit), len(pair.diff)) == ("cpu", 1, 1)
    assert "2 of 6 runs" in pair.caption
    none = compare.stored_pair("patch", results=tmp_path / "none")
    assert (none.both, none.rows) == ([], []) and "is stored yet" in none.caption


def test_models_are_of_one_recipe(tmp_path):
    def keep(experiment, *models):
        for model in models:
            run = experiment_runs(experiment, model, "smoke")[0]
            save_weights(VisionTransformer(run.model), weights_path(run, tmp_path))

    with pytest.raises(ResultError, match="to train them"):
        compare.stored_models(("smoke",), tmp_path)
    keep("reference", "vit", "diff")
    keep("best", "vit")  # alone: nothing to compare it with
    found = compare.stored_models(("smoke",), tmp_path)
    assert [run.name for run, _ in found.values()] == ["vit-reference", "diff-reference"]
    keep("best", "diff")
    found = compare.stored_models(("smoke",), tmp_path)
    assert list(found) == ["ViT", "Diff-ViT"]
    assert [model.config.attention for _, model in found.values()] == ["standard", "diff"]
    assert {run.name for run, _ in found.values()} == {"vit-best", "diff-best"}


def dataset(labels):
    labels = torch.tensor(labels)
    split = Split(torch.zeros(len(labels), 3, 32, 32, dtype=torch.uint8), labels)
    return Dataset("made", split, split, split)


def test_images_are_picked_by_the_rule():
    labels = [1, 0, 0, 1, 2, 2, 0]
    said = [0, 0, 0, 1, 1, 0, 1]  # wrong: 0, 4, 5, 6; class 2 is never right
    sure = [2.0, 1, 1, 1, 9, 0.5, 3]
    logits = torch.zeros(7, 3)
    logits[range(7), said] = torch.tensor(sure)
    picked = compare.pick_images(None, dataset(labels), logits)
    assert picked.tolist() == [1, 3, 4, 6, 0]  # first right 0, 1; first of 2; surest other mistakes


def test_fewer_mistakes_give_fewer_images():
    logits = torch.eye(2)
    assert compare.pick_images(None, dataset([0, 1]), logits).tolist() == [0, 1]
    with pytest.raises(ValueError, match="2 test images"):
        compare.pick_images(None, dataset([0, 1]), torch.eye(3))


def test_the_model_is_asked_when_no_logits_are_given():
    class Says(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([[0.0, 1.0]]).expand(len(x), 2)

    assert compare.pick_images(Says(), dataset([0, 0, 1, 1])).tolist() == [0, 2, 1]


def curve(label, losses, accuracy=80.0, seed=0):
    return result(label, accuracy, seed) | {"history": {"val_loss": losses}}


def test_loss_curves_in_words():
    runs = [curve("none", [2.0, 1.5]), curve("learned", [1.8, 1.0]), curve("learned", [1.6, 1.2])]
    text = compare.losses(runs, "ViT")
    assert text == (
        "Validation loss of the ViT ends at (nats, lowest first): learned 1.10, none 1.50; the "
        "order after the first epoch was the same."
    )
    crossed = compare.losses([curve("none", [1.0, 1.5]), curve("learned", [1.8, 1.0])], "ViT")
    assert crossed.endswith("after the first epoch was none, learned.")


def test_a_run_that_diverged_comes_last():
    runs = [curve("wild", [1.0, None]), curve("none", [2.0, 1.5]), curve("learned", [1.8, 1.0])]
    text = compare.losses(runs, "ViT")
    assert "lowest first): learned 1.00, none 1.50, wild nan; " in text
    assert text.endswith("after the first epoch was wild, learned, none.")


def test_whether_both_models_rank_alike():
    vit = [result("a", 80), result("b", 82), result("only ViT", 99)]
    alike = compare.same_order(vit, [result("a", 60), result("b", 61)], "positions")
    assert alike == "Both models rank the positions alike by validation accuracy: b, a."
    other = compare.same_order(vit, [result("a", 62), result("b", 61)], "positions")
    assert other.endswith("differently by validation accuracy: ViT b, a; Diff-ViT a, b.")
    assert "no order yet" in compare.same_order(vit, [], "positions")


def configured(label="", val=70.0, attention="standard", **train):
    fields = dict(epochs=18, keep=0.5, keep_epochs=13, optimizer="muon", learning_rate=0.004)
    model = dict(embed_dim=128, position="learned_1d", attention=attention)
    config = {"model": model, "train": fields | train, "dataset": "cifar10"}
    return result(label, val - 1) | {"name": label, "config": config}


def test_a_recipe_is_named_by_what_it_changes():
    reference = configured(epochs=3, label_smoothing=0)
    reference["config"]["model"]["embed_dim"] = 96
    bases = {"best recipe": configured(), "reference recipe": reference}
    assert compare.recipe(configured(attention="diff"), bases) == "the best recipe"
    assert compare.recipe(reference, bases) == "the reference recipe"
    short = configured(epochs=6, keep=0.25)
    assert compare.recipe(short, bases) == (
        "the best recipe's hyperparameters, trained 6 epochs instead of 18 (0.25 of the patches "
        "kept instead of 0.5)"
    )
    milder = configured(epochs=6, augment="flip")
    assert compare.recipe(milder, {"best recipe": configured(augment="crop+flip")}) == (
        "the best recipe's hyperparameters, trained 6 epochs instead of 18 (flip as augmentation "
        "instead of crop+flip)"
    )
    other = configured()
    other["config"]["model"]["position"] = "none"
    assert compare.recipe(other, bases) == "a recipe of its own"
    assert compare.recipe(other, bases, but=("position",)) == "the best recipe"


def test_each_optimizer_is_judged_at_its_own_best_rate():
    base = configured("reference", 65)
    runs = [
        base, configured("fast", 64, learning_rate=0.008),
        configured("adamw", 50, optimizer="adamw"),
        configured("adamw slow", 60, optimizer="adamw", learning_rate=0.001),
        configured("longer", 90, optimizer="adamw", epochs=50),  # not only the optimizer differs
    ]  # fmt: skip
    assert compare.optimizers(runs, base, "ViT") == (
        "ViT, validation accuracy of each optimizer at its own best rate: Muon 65.00 % (test 64.00 "
        "%) at 0.004, the best of 2 rates; AdamW 60.00 % (test 59.00 %) at 0.001, the best of 2 "
        "rates."
    )
    assert "at 0.001, the only rate run" in compare.optimizers([base, runs[3]], base, "ViT")
    assert "only one optimizer" in compare.optimizers(runs[:2], base, "ViT")
