# LLM-assisted: prompts P13, P15, see report.md
"""Why is the Diff-ViT behind? What each of its changes costs, one at a time.

    python -m cvassign.study.factorial    # -> results/study/factorial.json, in a second

From the runs of the experiments `factorial` and `variants`. An effect is a contrast: a weighted sum
of the means of cells. Its interval comes from the pooled noise of all cells (`stats.pooled`), and
not from pairs of seeds: some cells were trained on a GPU and some on a CPU, which draw other random
numbers for the same seed."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from cvassign.experiments import FACTORIAL, MODELS, experiment_runs
from cvassign.results import RESULTS, Result, by_label, load_all, write_json
from cvassign.stats import pooled

# Accuracy on validation and test (percent), and the last epoch's training loss (nats).
MEASURES = {"val": lambda r: r.val, "test": lambda r: r.test}
MEASURES["fit"] = lambda r: r.history["train_loss"][-1]
CELLS = WIDE, WIDE_NORM, FOUR, FOUR_NORM, PAIRS, PAIRS_NORM = [row.label for row in FACTORIAL]

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
    "norm × subtract": ("detail", SUBTRACT[1:], [SUBTRACT[0][::-1]]),
    "Diff-ViT without norm − ViT": ("detail", [(PAIRS, WIDE)]),
}


def effects(results: Sequence[Result]) -> dict:
    """Cells and effects, with their 95 % intervals, on every measure of `MEASURES`.

    Returns:
        {"cells": {label: {measure: values, "cpu": how many on a CPU}}, "noise": by measure,
        "effects": {label: {"kind", "seeds": fewest of a cell, measure: {"mean", "low", "high"}}}},
        without the effects of cells that have no run; "device" is CPU minus GPU within cells."""
    groups, found = by_label(results), {}
    cells = {label: {"cpu": sum(r.on_cpu for r in group)} for label, group in groups.items()}
    mixed = [k for k, cell in cells.items() if 0 < cell["cpu"] < len(groups[k])]
    parts = [((k, cpu), [r for r in groups[k] if r.on_cpu == cpu]) for k in mixed for cpu in (0, 1)]
    for key, group in [*groups.items(), *parts]:
        values = {name: [of(r) for r in group] for name, of in MEASURES.items()}
        cells[key] = values | cells.get(key, {})
    noise = {name: pooled([cells[label][name] for label in groups]) for name in MEASURES}
    more = {k: ("variant", [(k, PAIRS_NORM)]) for k in groups if k not in CELLS}
    more["CPU − GPU, within cells"] = ("device", [((k, 1), (k, 0)) for k in mixed])
    for label, (kind, *lists) in (EFFECTS | more).items():
        weights: dict[str, float] = defaultdict(float)
        for pairs, (first, second) in ((of, pair) for of in lists for pair in of):
            weights[first] += 1 / len(pairs)
            weights[second] -= 1 / len(pairs)
        if not weights or not weights.keys() <= cells.keys():
            continue
        seeds = {k: len(cells[k]["val"]) for k in weights}
        runs = 1 / sum(w**2 / seeds[k] for k, w in weights.items())  # whose mean is as certain
        found[label] = {"kind": kind, "seeds": min(seeds.values())}
        for name, z in noise.items():
            mean = sum(w * fmean(cells[k][name]) for k, w in weights.items())
            half = z.between(runs)
            found[label][name] = {"mean": mean, "low": mean - half, "high": mean + half}
    cells = {label: cells[label] for label in groups}
    return {"cells": cells, "noise": {k: vars(z) for k, z in noise.items()}, "effects": found}


def main() -> None:
    tables = ("factorial", "variants")
    runs = [run for of in tables for m in MODELS for run in experiment_runs(of, m, "full")]
    write_json(effects(load_all(runs)), RESULTS / "study" / "factorial.json")


if __name__ == "__main__":
    main()
