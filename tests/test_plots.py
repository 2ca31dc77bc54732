# LLM-assisted: prompts P1, P2, P5, P13, P15, see report.md
"""What is drawn is what was given: lines, dots, texts and colours are read back from the figure."""

from itertools import product

import numpy as np
import pytest

from cvassign import plots
from cvassign.attention import lambda_init_of
from cvassign.stats import Noise
from tests.made import made_result, made_run

EPOCHS = 5


def result(name="vit", label="", attention="standard", seed=0, val=None, **settings):
    run = made_run(name, label, attention, seed=seed, **settings)
    return made_result(run, **({} if val is None else {"val": val}))


def three_seeds(*args, **kwargs):
    return [result(*args, seed=seed, **kwargs) for seed in range(3)]


def mean_of(results, key):
    return np.mean(np.array([r.history[key] for r in results], dtype=float), axis=0).ravel()


def test_loss_curves_draw_the_mean_of_the_seeds():
    runs = {name: three_seeds(name) for name in ("patch 2", "patch 4")}
    runs["patch 2"][0].history["val_loss"][2] = None  # was not finite: a gap
    fig = plots.loss_curves([*runs["patch 2"], *runs["patch 4"]])
    keys = ("train_loss_tenths", 2 * EPOCHS), ("val_loss", EPOCHS)
    for ax, (key, points) in zip(fig.axes, keys, strict=True):
        for line, group in zip(ax.lines, runs.values(), strict=True):
            np.testing.assert_allclose(line.get_xdata()[[0, -1]], (EPOCHS / points, EPOCHS))
            np.testing.assert_allclose(line.get_ydata(), mean_of(group, key))
        assert len(ax.collections) == 2  # a band each
    texts = [t.get_text() for t in fig.legends[0].get_texts()]
    assert texts == ["patch 2 (3 seeds)", "patch 4 (3 seeds)"]


def test_histories_must_fit():
    many = [result(f"{a}-{i}", f"{i}", a) for a in ("standard", "diff") for i in range(2)]
    seeds = [result("a"), result("a", seed=1, epochs=4)]
    for draw, runs, words in (
        (plots.loss_curves, seeds, r"'a'.*'train_loss_tenths'.*\[4"),
        (plots.loss_curves, [], "at least one result"),
        (plots.loss_curves, many, "no more labels than 1, got 2: take loss_grid"),
        (plots.lambda_curves, seeds[:1], "'a'.*'lambdas'"),
    ):
        with pytest.raises(ValueError, match=words):
            draw(runs)


def test_loss_grid_has_a_panel_a_label_with_both_models():
    pairs = list(product(("standard", "diff"), [f"aug {i}" for i in range(6)]))
    runs = [result(f"{a}-{label}", label, a) for a, label in pairs]
    reference = three_seeds("reference")
    fig = plots.loss_grid(runs, reference=reference)
    panels = {ax.get_title(): {line.get_label(): line for line in ax.lines} for ax in fig.axes}
    assert list(panels) == [label for _, label in pairs[:6]]
    for run in runs:
        drawn = panels[run.label]
        for name, group, key in (
            (f"{run.kind}, training", [run], "train_loss_tenths"),
            (f"{run.kind}, validation", [run], "val_loss"),
            ("ViT, reference", reference, "val_loss"),
        ):
            np.testing.assert_allclose(drawn[name].get_ydata(), mean_of(group, key))


def test_lambda_curves_have_a_labelled_line_a_layer():
    runs = three_seeds("diff", attention="diff")
    (ax,) = plots.lambda_curves(runs).axes
    expected = np.mean([r.history["lambdas"] for r in runs], axis=0)
    drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
    for layer in (1, 2, 3):
        np.testing.assert_allclose(drawn[f"layer {layer}"], expected[:, layer - 1])
    starts = [line.get_ydata()[0] for line in ax.lines if line.get_label() == "_start"]
    assert starts == [lambda_init_of(i) for i in (1, 2, 3)]
    assert len(ax.lines) == 3 * (3 + 2)  # of each layer the seeds, the mean and the start


def test_first_lambdas_are_sorted_and_told_apart():
    runs = (("diff-long-a-none", "none", 0), ("diff-b-none", "none", 0), ("diff-best", "best", 0))
    runs += (("diff-best", "best", 1),)
    made = [result(name, label, "diff", seed=seed) for name, label, seed in runs]
    for r, end in zip(made, (-0.5, 0.3, -1, -0.8), strict=True):
        r.history["lambdas"][-1][0] = end
    (ax,) = plots.first_lambdas(made, "best").axes
    assert [t.get_text() for t in ax.texts[::2]] == ["best", "a none", "b none"]
    assert [line.get_xdata().tolist() for line in ax.lines[:3]] == [[-1, -0.8], [-0.5], [0.3]]
    assert [line.get_color() for line in ax.lines[:3]] == ["#D55E00", "0.45", "0.45"]
    assert ax.lines[4].get_xdata()[0] == pytest.approx(0.2)  # λ_init of layer 1


def test_a_hyperparameters_panel_has_its_runs_in_order_and_the_reference():
    runs = [
        result("reference", val=81.0),
        result("deep", depth=9, val=84.0),
        result("flat", depth=3, val=80.0),
        result("fast", learning_rate=2e-3, val=81.0),
        result("adamw", optimizer="adamw", learning_rate=5e-4, val=72.0),
    ]
    seeds = [result("reference", seed=i, val=v) for i, v in enumerate((81.0, 82.0, 83.0))]
    noise = Noise(0.5, 8)
    drawn = {ax.get_xlabel(): ax for ax in plots.hyperparameters(runs, seeds, "", noise).axes}
    for label, values in (  # the reference is the mean of its seeds, 82
        ("layers", [80, 82, 84]),
        ("heads", [82]),
        ("learning rate, Muon", [82, 81]),
        ("learning rate, AdamW (own scale)", [72]),
    ):
        assert drawn[label].lines[0].get_ydata().tolist() == values
    assert [t.get_text() for t in drawn["layers"].get_xticklabels()] == ["3", "6", "9"]
    band = drawn["layers"].patches[0].get_bbox()  # of a single run against the mean
    assert (band.y1 - 82, 82 - band.y0) == pytest.approx([noise.between(1, 3)] * 2)
    (bar,) = drawn["layers"].containers[0][2][0].get_segments()
    assert bar.tolist() == [[1, 82 - noise.between(3)], [1, 82 + noise.between(3)]]
    (bar,) = drawn["learning rate, AdamW (own scale)"].containers[0][2][0].get_segments()
    assert bar.tolist() == [[0, 72 - noise.between(1)], [0, 72 + noise.between(1)]]
    assert drawn["heads"].get_ylim() == drawn["layers"].get_ylim()
    assert drawn["learning rate, AdamW (own scale)"].get_ylim()[1] < 79


def test_a_forest_has_a_row_a_difference():
    rows = [("halve the heads", -0.3, -1.1, 0.5, "3 seeds", "step")]
    rows += [("add the norm", -1.2, -2.0, -0.4, "", "step"), ("all", -1.5, -2.5, -0.5, "", "sum")]
    (ax,) = plots.forest(rows).axes
    for y, (row, (line, _, (bar,))) in enumerate(zip(rows, ax.containers, strict=True)):
        assert (line.get_xdata()[0], line.get_ydata()[0]) == (row[1], y)
        np.testing.assert_allclose(bar.get_segments()[0], [[row[2], y], [row[3], y]])
        hollow = line.get_markerfacecolor() == "white"  # zero is inside
        assert hollow == (row[0] == "halve the heads")
    assert [t.get_text() for t in ax.get_yticklabels()] == [row[0] for row in rows]
    assert ax.texts[0].get_text() == "−0.30 [−1.10, +0.50]   3 seeds"
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row on top
    names = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert names == ["one step, mean over what else differs", "sum of the steps"]
