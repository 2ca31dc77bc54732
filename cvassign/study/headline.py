# LLM-assisted: prompts P7, P8, P13, P15, see report.md
"""ViT against Diff-ViT, and what another seed alone does: the one comparison and the one noise that
notebooks and report read.

    python -m cvassign.study.headline    # -> results/study/headline.json, in seconds

From stored results and the logits of the best recipe: no forward pass.
"""

import sys
from collections.abc import Sequence

import torch

from cvassign.data import DATASETS
from cvassign.experiments import MODELS, all_runs, experiment_runs
from cvassign.results import RESULTS, Result, by_name, load_all, load_logits, write_json
from cvassign.stats import over_seeds, paired_bootstrap, pooled

COMPARED = {"one and three": (1, 3), "two and three": (2, 3), "one and one": (1, 1)}
COMPARED |= {"three and three": (3, 3), "three": (3,)}


def headline(right: dict[str, torch.Tensor]) -> dict:
    """Accuracies by seed (percent), from {"vit", "diff": (seeds, images) True where the model is
    right}; Diff-ViT minus ViT over seeds, and over test images (each image counted with the share
    of seeds that get it right); how often both, one or none of the models of seed 0 is right."""
    accuracy = {m: 100 * r.float().mean(1) for m, r in right.items()}
    vit, diff = right["vit"][0], right["diff"][0]
    return {
        "accuracy": {m: a.tolist() for m, a in accuracy.items()},
        "over seeds": vars(over_seeds(accuracy["vit"], accuracy["diff"])),
        "over images": vars(paired_bootstrap(*(right[m].float().mean(0) for m in MODELS))),
        "both right": int((vit & diff).sum()),
        "only ViT": int((vit & ~diff).sum()),
        "only Diff-ViT": int((diff & ~vit).sum()),
        "none": int((~vit & ~diff).sum()),
    }


def noise(results: Sequence[Result]) -> dict:
    """What another seed does, by length of training and split, from all recipes with several seeds.

    Returns:
        {"15 epochs": {"val", "test": `stats.Noise`; "half widths": {"val", "test": of the 95 %
        interval, by how many runs are compared with how many}; "recipes": their number}}.
    """
    several = [group for group in by_name(results) if len(group) > 1]
    found: dict[str, dict] = {}
    for epochs in sorted({group[0].train.epochs for group in several}):
        groups = [group for group in several if group[0].train.epochs == epochs]
        values = {s: [[getattr(r, s) for r in g] for g in groups] for s in ("val", "test")}
        of = {split: pooled(v) for split, v in values.items()}
        widths = {s: {name: z.between(*n) for name, n in COMPARED.items()} for s, z in of.items()}
        found[f"{epochs} epochs"] = {split: vars(z) for split, z in of.items()}
        found[f"{epochs} epochs"] |= {"half widths": widths, "recipes": len(groups)}
    return found


def main() -> int:
    labels, right = DATASETS["cifar10"]().test.labels, {}
    for m in MODELS:
        logits = [load_logits(run)[0] for run in experiment_runs("best", m, "full")]
        right[m] = torch.stack(logits).argmax(2) == labels
    found = headline(right) | {"noise": noise(load_all(all_runs("full")))}
    write_json(found, RESULTS / "study" / "headline.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
