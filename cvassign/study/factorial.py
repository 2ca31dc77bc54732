# LLM-assisted: prompts P13, P15, see report.md
"""Why is the Diff-ViT behind? What each of its changes costs, one at a time.

    python -m cvassign.study.factorial    # -> results/study/factorial.json, in a second

From the runs of the experiments `factorial` and `variants`. An effect is a contrast: a weighted sum
of the means of cells. Its interval comes from the pooled noise of all cells (`stats.pooled`), and
not from pairs of seeds: some cells were trained on a GPU and some on a CPU, which draw other random
numbers for the same seed.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from statistics import fmean

from cvassign.experiments import MODELS, experiment_runs
from cvassign.results import RESULTS, Result, by_label, load_all, write_json
from cvassign.stats import pooled

WIDE, WIDE_NORM = "8 heads of width 16", "8 heads, norm"
FOUR, FOUR_NORM = "4 heads of width 32", "4 heads, norm"
PAIRS, PAIRS_NORM = "4 pairs, no norm", "4 pairs, norm"

HALVE = [(FOUR, WIDE), (FOUR_NORM, WIDE_NORM)]
NORM = [(WIDE_NORM, WIDE), (FOUR_NORM, FOUR), (PAIRS_NORM, PAIRS)]
SUBTRACT = [(PAIRS, FOUR), (PAIRS_NORM, FOUR_NORM)]
# label -> the kind of row it is in the figure, and lists of pairs of cells. The effect is the sum
# of the lists' mean differences, first minus second.
EFFECTS = {
    "halve the heads (mean of 2)": ("step", HALVE),
    "add the norm (mean of 3)": ("step", NORM),
    "subtract the second map (mean of 2)": ("step", SUBTRACT),
    "sum of the three": ("sum", HALVE, NORM, SUBTRACT),
    "measured: Diff-ViT − ViT": ("whole", [(PAIRS_NORM, WIDE)]),
    "halve the heads, no norm": ("detail", HALVE[:1]),
    "halve the heads, norm": ("detail", HALVE[1:]),
    "add the norm, 8 heads": ("detail", NORM[:1]),
    "add the norm, 4 heads": ("detail", NORM[1:2]),
    "add the norm, 4 pairs": ("detail", NORM[2:]),
    "subtract, no norm": ("detail", SUBTRACT[:1]),
    "subtract, norm": ("detail", SUBTRACT[1:]),
    "Diff-ViT without norm − ViT": ("detail", [(PAIRS, WIDE)]),
}
CELLS = (WIDE, WIDE_NORM, FOUR, FOUR_NORM, PAIRS, PAIRS_NORM)


def effects(results: Sequence[Result]) -> dict:
    """Cells and effects (points, with their 95 % intervals), on validation and on test.

    Returns:
        {"cells": {label: {"val", "test": accuracies, "cpu": how many on a CPU}}, "noise": {"val",
        "test"}, "effects": {label: {"kind", "seeds": fewest of a cell, "val", "test": {"mean",
        "low", "high"}}}}, without the effects of cells that have no run.
    """
    groups, found = by_label(results), {}
    cells = {s: {k: [getattr(r, s) for r in g] for k, g in groups.items()} for s in ("val", "test")}
    noise = {split: pooled([*of.values()]) for split, of in cells.items()}
    variants = {k: ("variant", [(k, PAIRS_NORM)]) for k in groups if k not in CELLS}
    for label, (kind, *lists) in (EFFECTS | variants).items():
        weights: dict[str, float] = defaultdict(float)
        for pairs, (first, second) in ((of, pair) for of in lists for pair in of):
            weights[first] += 1 / len(pairs)
            weights[second] -= 1 / len(pairs)
        if not weights.keys() <= groups.keys():
            continue
        found[label] = {"kind": kind, "seeds": min(len(groups[k]) for k in weights)}
        for split, of in cells.items():
            mean = sum(w * fmean(of[k]) for k, w in weights.items())
            variance = sum(w**2 / len(of[k]) for k, w in weights.items())
            half = noise[split].half_width(variance)
            found[label][split] = {"mean": mean, "low": mean - half, "high": mean + half}
    by_cell = {k: {split: of[k] for split, of in cells.items()} for k in groups}
    for k, group in groups.items():
        by_cell[k]["cpu"] = sum(r.on_cpu for r in group)
    noise = {split: vars(z) for split, z in noise.items()}
    return {"cells": by_cell, "noise": noise, "effects": found}


def main() -> None:
    tables = product(("factorial", "variants"), MODELS)
    runs = [run for experiment, m in tables for run in experiment_runs(experiment, m, "full")]
    write_json(effects(load_all(runs)), RESULTS / "study" / "factorial.json")


if __name__ == "__main__":
    main()
