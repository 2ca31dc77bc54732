# LLM-assisted: prompts P7, P8, P13, P15, see report.md
"""ViT against Diff-ViT, and what another seed alone does: the one comparison and the one noise that
notebooks and report read.

    python -m cvassign.study.headline    # -> results/study/headline.json, in seconds

From stored results and the logits of the best recipe: no forward pass."""

from collections.abc import Sequence
from statistics import fmean

import torch

from cvassign.experiments import MODELS, all_runs, experiment_runs
from cvassign.results import RESULTS, Result, by_name, load_all, load_logits, write_json
from cvassign.stats import Difference, paired_bootstrap, pooled


def noise(results: Sequence[Result]) -> dict:
    """What another seed does, from all recipes with several seeds, by length of training:
    {"15 epochs": {"val", "test": `stats.Noise`; "recipes": their number}}."""
    several, found = [group for group in by_name(results) if len(group) > 1], {}
    for epochs in sorted({group[0].train.epochs for group in several}):
        groups = [group for group in several if group[0].train.epochs == epochs]
        of = {s: pooled([[getattr(r, s) for r in g] for g in groups]) for s in ("val", "test")}
        of = {split: vars(z) for split, z in of.items()}
        found[f"{epochs} epochs"] = of | {"recipes": len(groups)}
    return found


def over_seeds(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Second minus first, of accuracies by seed (percent), by their pooled noise."""
    mean = fmean(second) - fmean(first)
    half = pooled([first, second]).between(len(first), len(second))
    return Difference(mean, mean - half, mean + half, len(first), "seeds")


def main() -> None:
    right = {}  # model -> (seeds, images)
    for m in MODELS:
        of_seeds = [load_logits(run) for run in experiment_runs("best", m, "full")]
        right[m] = torch.stack([logits.argmax(1) == labels for logits, labels in of_seeds]).float()
    accuracy = {m: (100 * r.mean(1)).tolist() for m, r in right.items()}
    vit, diff = accuracy.values()
    found = {"accuracy": accuracy, "over seeds": vars(over_seeds(vit, diff))}
    gaps = [d - v for v, d in zip(vit, diff)]  # one seed, the same order of images
    mean, half = fmean(gaps), pooled([gaps]).between(len(gaps))
    found["over pairs"] = vars(Difference(mean, mean - half, mean + half, len(gaps), "pairs"))
    # Each image is counted with the share of seeds that get it right.
    found["over images"] = vars(paired_bootstrap(*(r.mean(0) for r in right.values())))
    found["noise"] = noise(load_all(all_runs("full")))
    write_json(found, RESULTS / "study" / "headline.json")


if __name__ == "__main__":
    main()
