# LLM-assisted: prompts P7, P8, see report.md
"""ViT against Diff-ViT, once: the one comparison that notebooks and report read.

    python -m cvassign.study.headline    # -> results/study/headline.json, in seconds

From the stored logits of the best recipe: no forward pass.
"""

import sys

import torch

from cvassign.data import DATASETS
from cvassign.experiments import MODELS, experiment_runs
from cvassign.results import RESULTS, load_logits, write_json
from cvassign.stats import over_seeds, paired_bootstrap


def headline(right: dict[str, torch.Tensor]) -> dict:
    """The two models' accuracies and their differences, from {"vit", "diff": (seeds, images) True
    where the model is right}, of the same seeds.

    Returns:
        Accuracies by seed (percent); Diff-ViT minus ViT over seeds, and over test images (each
        image counted with the share of seeds that get it right); how often both, one or none of
        the models of seed 0 is right.
    """
    accuracy = {m: 100 * r.float().mean(1) for m, r in right.items()}
    vit, diff = right["vit"][0], right["diff"][0]
    count = lambda mask: int(mask.sum())  # noqa: E731
    return {
        "accuracy": {m: a.tolist() for m, a in accuracy.items()},
        "over seeds": vars(over_seeds(accuracy["vit"], accuracy["diff"])),
        "over images": vars(paired_bootstrap(*(right[m].float().mean(0) for m in MODELS))),
        "both right": count(vit & diff),
        "only ViT": count(vit & ~diff),
        "only Diff-ViT": count(diff & ~vit),
        "none": count(~vit & ~diff),
    }


def main() -> int:
    runs = {m: experiment_runs("best", m, "full") for m in MODELS}
    labels = DATASETS["cifar10"]().test.labels
    right = {
        m: torch.stack([load_logits(run).argmax(1) == labels for run in of_model])
        for m, of_model in runs.items()
    }
    write_json(headline(right), RESULTS / "study" / "headline.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
