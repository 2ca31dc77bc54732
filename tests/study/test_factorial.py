# LLM-assisted: prompts P13, P15, see report.md
"""Effects are differences of the cells' means; their intervals follow from the pooled noise."""

import pytest

from cvassign.study import factorial as study
from tests.made import made_result, made_run

MADE = [
    made_result(made_run(label, seed=i), val=mean + i - 1, test=mean + i, device="CPU")
    for label, mean in zip(study.CELLS, (83.0, 82.0, 81.0, 80.0, 85.0, 81.5))
    for i in range(3)
]
MADE.append(made_result(made_run("a variant"), val=82.5, test=83.5))


def test_effects_are_differences_of_means():
    found = study.effects(MADE)["effects"]
    means = {label: effect["val"]["mean"] for label, effect in found.items()}
    steps = [means[label] for label, effect in found.items() if effect["kind"] == "step"]
    assert steps == pytest.approx([(-2 - 2) / 2, (-1 - 1 - 3.5) / 3, (4 + 1.5) / 2])
    assert means["sum of the three"] == pytest.approx(sum(steps))
    assert means["measured: Diff-ViT − ViT"] == pytest.approx(-1.5)
    assert means["subtract, norm"] == pytest.approx(1.5)
    assert means["a variant"] == pytest.approx(1.0) and found["a variant"]["seeds"] == 1
    for effect in found.values():
        assert effect["val"]["mean"] == pytest.approx(effect["test"]["mean"]) and "fit" in effect


def test_intervals_follow_from_the_pooled_noise():
    """Each cell has a standard deviation of 1; t at 95 % with 12 degrees of freedom is 2.179."""
    found = study.effects(MADE)
    assert found["noise"]["val"] == pytest.approx({"std": 1.0, "df": 12})
    variances = {"add the norm, 8 heads": 2 / 3, "add the norm (mean of 3)": 2 / 9}
    for label, variance in (variances | {"a variant": 4 / 3}).items():
        effect = found["effects"][label]["val"]
        assert effect["high"] - effect["mean"] == pytest.approx(2.179 * variance**0.5, rel=1e-3)
        assert effect["mean"] - effect["low"] == pytest.approx(effect["high"] - effect["mean"])


def test_a_cell_without_runs_leaves_its_effects_out():
    found = study.effects([r for r in MADE if r.label not in (study.FOUR, "a variant")])
    assert "add the norm, 8 heads" in found["effects"]
    assert not {"add the norm, 4 heads", "sum of the three"} & found["effects"].keys()
    assert found["cells"][study.WIDE]["cpu"] == 3
