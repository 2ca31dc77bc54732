# LLM-assisted: prompts P1, P2, P5, see report.md
"""What is drawn is what was given: lines, dots, texts and colours are read back from the figure."""

import numpy as np
import pytest

from cvassign import plots
from cvassign.attention import lambda_init_of
from tests.made import made_result, made_run

EPOCHS = 5


def result(name="vit", label="", attention="standard", seed=0, val=None, **settings):
    run = made_run(name, label, attention, seed=seed, **settings)
    return made_result(run, **({} if val is None else {"val": val}))


def three_seeds(*args, **kwargs):
    return [result(*args, seed=seed, **kwargs) for seed in range(3)]


def mean_of(results, key):
    return np.mean(np.array([r.history[key] for r in results], dtype=float), axis=0)


def test_loss_curves_draw_the_mean_of_the_seeds():
    runs = {name: three_seeds(name) for name in ("patch 2", "patch 4")}
    runs["patch 2"][0].history["val_loss"][2] = None  # was not finite: a gap
    fig = plots.loss_curves(sum(runs.values(), []))
    for ax, key in zip(fig.axes, ("train_loss", "val_loss"), strict=True):
        for line, group in zip(ax.lines, runs.values(), strict=True):
            np.testing.assert_allclose(line.get_xdata(), range(1, EPOCHS + 1))
            np.testing.assert_allclose(line.get_ydata(), mean_of(group, key))
        assert len(ax.collections) == 2  # a band each
    texts = [t.get_text() for t in fig.legends[0].get_texts()]
    assert texts == ["patch 2 (3 seeds)", "patch 4 (3 seeds)"]


@pytest.mark.parametrize("draw, runs, words", (
    (plots.loss_curves, [result("a"), result("a", seed=1, epochs=4)], r"'a'.*'train_loss'.*\[4"),
    (plots.loss_curves, [], "at least one result"),
    (plots.lambda_curves, [result()], "'vit'.*'lambdas'"),
    (plots.loss_curves, [result(f"{a}-{i}", f"{i}", a) for a in ("standard", "diff")
                         for i in range(5)], "4 labels apart, got 5: loss_grid"),
), ids=("epochs", "none", "lambdas", "many"))  # fmt: skip
def test_histories_must_fit(draw, runs, words):
    with pytest.raises(ValueError, match=words):
        draw(runs)


def test_loss_grid_has_a_panel_a_label_with_both_models():
    labels = [f"aug {i}" for i in range(6)]
    runs = {
        (a, label): result(f"{a}-{label}", label, a)
        for a in ("standard", "diff") for label in labels
    }  # fmt: skip
    fig = plots.loss_grid(list(runs.values()))
    assert [ax.get_title() for ax in fig.axes] == labels
    for ax, label in zip(fig.axes, labels):
        drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
        for attention, model in (("standard", "ViT"), ("diff", "Diff-ViT")):
            history = runs[attention, label].history
            np.testing.assert_allclose(drawn[f"{model}, training"], history["train_loss"])
            np.testing.assert_allclose(drawn[f"{model}, validation"], history["val_loss"])


def test_confusion_matrix_prints_the_counts_and_colours_the_mistakes():
    matrix = np.array([[90, 7, 3], [0, 95, 5], [20, 0, 80]])
    fig = plots.confusion_matrix(matrix, ("cat", "dog", "ship"))
    ax = fig.axes[0]
    for text in ax.texts:
        column, row = text.get_position()
        assert int(text.get_text()) == matrix[row, column]
    assert len(ax.texts) == 9
    drawn = np.ma.filled(ax.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(np.isnan(drawn), np.eye(3, dtype=bool))
    assert np.nanmax(drawn) == ax.images[0].norm.vmax == 20
    assert ax.get_ylabel() == "true class"
    assert [t.get_text() for t in ax.get_yticklabels()] == ["cat", "dog", "ship"]
    with pytest.raises(ValueError, match=r"\(2, 2\) for 2 classes, got \(3, 3\)"):
        plots.confusion_matrix(matrix, ("cat", "dog"))


def test_lambda_curves_have_a_labelled_line_a_layer():
    runs = three_seeds("diff", attention="diff")
    (ax,) = plots.lambda_curves(runs).axes
    expected = mean_of(runs, "lambdas")

    def lines(label):
        return [line.get_ydata() for line in ax.lines if line.get_label() == label]

    for layer in (1, 2, 3):
        (line,) = lines(f"layer {layer}")
        np.testing.assert_allclose(line, expected[:, layer - 1])
    assert len(lines("_seed")) == 3 * 3
    np.testing.assert_allclose(lines("_start"), [[lambda_init_of(i)] for i in (1, 2, 3)])


def test_a_hyperparameters_panel_has_its_runs_in_order_and_the_reference():
    runs = [
        result("reference", val=82.0), result("deep", depth=9, val=84.0),
        result("flat", depth=3, val=80.0),
        result("fast", learning_rate=2e-3, val=81.0),
        result("adamw", optimizer="adamw", learning_rate=5e-4, val=72.0),
    ]  # fmt: skip
    seeds = [result("reference", val=v) for v in (81.0, 82.0, 83.0)]
    drawn = {ax.get_xlabel(): ax for ax in plots.hyperparameters(runs, seeds).axes}
    for label, values in (
        ("layers", [80, 82, 84]), ("heads", [82]), ("learning rate, Muon", [82, 81]),
        ("learning rate, AdamW", [72]),
    ):  # fmt: skip
        assert drawn[label].lines[0].get_ydata().tolist() == values
    assert [t.get_text() for t in drawn["layers"].get_xticklabels()] == ["3", "6", "9"]
    band = drawn["layers"].patches[0].get_bbox()  # two standard deviations around the reference
    assert (band.y0, band.y1) == (80, 84)
