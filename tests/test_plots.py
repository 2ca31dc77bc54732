# LLM-assisted: prompts P1, P2, P5, P13, P15, see report.md
"""What is drawn is what was given: lines, dots, texts and colours are read back from the figure."""

import numpy as np
import pytest

from cvassign import plots
from cvassign.attention import lambda_init_of
from cvassign.stats import Noise
from tests.made import made_result, made_run


def result(*args, **settings):
    return made_result(made_run(*args, **settings))


def three_seeds(*args):
    return [result(*args, seed=seed) for seed in range(3)]


def mean_of(results, key):
    return np.mean(np.array([r.history[key] for r in results], dtype=float), axis=0).ravel()


def test_loss_curves_draw_the_mean_of_the_seeds():
    runs = {name: three_seeds(name) for name in ("patch 2", "patch 4")}
    runs["patch 2"][0].history["val_loss"][2] = None  # was not finite: a gap
    fig = plots.loss_curves([*runs["patch 2"], *runs["patch 4"]])
    for ax, key, first in zip(fig.axes, ("train_loss_tenths", "val_loss"), (0.5, 1), strict=True):
        for line, group in zip(ax.lines, runs.values(), strict=True):
            assert line.get_xdata()[[0, -1]].tolist() == [first, 5]  # epochs
            np.testing.assert_allclose(line.get_ydata(), mean_of(group, key))
        assert len(ax.collections) == 2  # a band each
    texts = [t.get_text() for t in fig.legends[0].get_texts()]
    assert texts == ["patch 2 (3 seeds)", "patch 4 (3 seeds)"]


def test_histories_must_fit():
    many = [result(f"{a}-{i}", str(i), a) for a in ("standard", "diff") for i in range(2)]
    for draw, runs, words in (
        (plots.loss_curves, [result("a"), result("a", epochs=4)], "'a'.*'train_loss_tenths'.*4, 5"),
        (plots.loss_curves, [], "at least one result"),
        (plots.loss_curves, many, "no more labels than 1, got 2: take loss_grid"),
        (plots.lambda_curves, [result("a")], "'a'.*'lambdas'"),
    ):
        with pytest.raises(ValueError, match=words):
            draw(runs)


def test_loss_grid_has_a_panel_a_label_with_both_models():
    runs = [result(f"{a}-{i}", f"aug {i}", a) for a in ("standard", "diff") for i in range(6)]
    reference = three_seeds("reference")
    fig = plots.loss_grid(runs, reference=reference)
    panels = {ax.get_title(): {line.get_label(): line for line in ax.lines} for ax in fig.axes}
    assert list(panels) == [f"aug {i}" for i in range(6)]
    assert [ax.get_xlabel() for ax in fig.axes] == ["", "", *["epoch"] * 4]  # below each column
    for r in runs:
        drawn = {name: line.get_ydata() for name, line in panels[r.label].items()}
        np.testing.assert_allclose(drawn[f"{r.kind}, training"], mean_of([r], "train_loss_tenths"))
        np.testing.assert_allclose(drawn[f"{r.kind}, validation"], r.history["val_loss"])
        grey = drawn["ViT, reference, validation"]
        np.testing.assert_allclose(grey, mean_of(reference, "val_loss"))


def test_lambda_curves_have_a_labelled_line_a_layer():
    runs = three_seeds("diff", "", "diff")
    (ax,) = plots.lambda_curves(runs).axes
    drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
    expected = np.mean([r.history["lambdas"] for r in runs], axis=0).T
    np.testing.assert_allclose([drawn[f"layer {i}"] for i in (1, 2, 3)], expected)
    starts = [line.get_ydata()[0] for line in ax.lines if line.get_label() == "_start"]
    assert starts == [lambda_init_of(i) for i in (1, 2, 3)]
    assert len(ax.lines) == 3 * (3 + 2)  # of each layer the seeds, the mean and the start
    assert ax.lines[3].get_xdata()[[0, -1]].tolist() == [1, 5]


def test_first_lambdas_are_sorted_and_told_apart():
    runs = (("diff-long-a-none", "none"), ("diff-b-none", "none"), *[("diff-best", "best")] * 2)
    made = [result(*run, "diff", seed=seed) for seed, run in enumerate(runs)]
    for r, end in zip(made, (-0.5, 0.3, -1, -0.8), strict=True):
        r.history["lambdas"][-1][0] = end
    del (without := result("diff-v2", "v2", "diff")).history["lambdas"]
    made.append(without)
    (ax,) = plots.first_lambdas(made, "best").axes
    assert [t.get_text() for t in ax.texts[::2]] == ["best", "a none", "b none"]
    assert [line.get_xdata().tolist() for line in ax.lines[:3]] == [[-1, -0.8], [-0.5], [0.3]]
    assert [line.get_color() for line in ax.lines[:3]] == ["#D55E00", "0.45", "0.45"]
    assert ax.lines[4].get_xdata()[0] == pytest.approx(0.2)  # λ_init of layer 1


def test_a_hyperparameters_panel_has_its_runs_in_order_and_the_reference():
    changes = {}, {"depth": 9}, {"depth": 3}, {"learning_rate": 2e-3}
    changes += ({"learning_rate": 5e-4, "optimizer": "adamw"},)
    runs = [made_run(name=f"run {i}", **c) for i, c in enumerate(changes)]
    runs = [made_result(run, val=v) for run, v in zip(runs, (81, 84, 80, 81, 72))]
    runs += [made_result(made_run(name="run 0", seed=i), val=81.0 + i) for i in (1, 2)]
    axes = plots.hyperparameters(runs, "", noise := Noise(0.5, 8)).axes
    values = [ax.lines[0].get_ydata().tolist() for ax in axes]
    assert values == [[80, 82, 84], *[[82]] * 3, [82, 81], [72]]  # 82 is the mean of the seeds
    layers, *_, muon, adamw = axes
    assert (layers.get_xlabel(), adamw.get_xlabel()[:20]) == ("layers", "learning rate, AdamW")
    assert [t.get_text() for t in layers.get_xticklabels()] == ["3", "6", "9"]
    band = layers.patches[0].get_bbox()  # of a single run against the mean
    assert (band.y1 - 82, 82 - band.y0) == pytest.approx([noise.between(1, 3)] * 2)
    for ax, x, y, half in ((layers, 1, 82, noise.between(3)), (adamw, 0, 72, noise.between(1))):
        (bar,) = ax.containers[0][2][0].get_segments()
        assert bar.tolist() == [[x, y - half], [x, y + half]]
    assert muon.get_ylim() == layers.get_ylim() and adamw.get_ylim()[1] < 79


def test_a_forest_has_a_row_a_difference():
    rows = [("halve the heads", -0.3, -1.1, 0.5, "3 seeds", "step")]
    rows += [("add the norm", -1.2, -2.0, -0.4, "", "step"), ("all", -1.5, -2.5, -0.5, "", "sum")]
    (ax,) = plots.forest(rows).axes
    for y, (row, (line, _, (bar,))) in enumerate(zip(rows, ax.containers, strict=True)):
        assert (line.get_xdata()[0], line.get_ydata()[0]) == (row[1], y)
        np.testing.assert_allclose(bar.get_segments()[0], [[row[2], y], [row[3], y]])
        assert (line.get_markerfacecolor() == "white") == (row[2] < 0 < row[3])
    assert [t.get_text() for t in ax.get_yticklabels()] == [row[0] for row in rows]
    assert ax.texts[0].get_text() == "−0.30 [−1.10, +0.50]   3 seeds"
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row on top
    names = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert names == ["one step, mean over what else differs", "sum of the steps"]
