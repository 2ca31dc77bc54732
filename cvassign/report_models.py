# LLM-assisted: prompts P6, see report.md
"""What the report says of trained models that no training run has noted: measured once, stored.

Confusion, entropy of attention, deletion and insertion, likeness of neighbouring positions: for
the stored weights of one ViT and one Diff-ViT, in `results/models/PRESET-NAME.json`. The file holds
the checksum of the weights; it is measured anew when they change. And the report's figures of
images and maps, drawn from the same weights.
"""

import platform
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from cvassign import attention_plots
from cvassign.assets import sha256_of
from cvassign.attention_study import areas, attention_of, perturb
from cvassign.compare import paired_bootstrap, pick_images
from cvassign.data import CLASSES, DATASETS, Dataset
from cvassign.experiments import experiment_runs
from cvassign.results import Run, load_model, weights_path, write_json
from cvassign.train import predict
from cvassign.vit import VisionTransformer

FORMAT = 2  # of the files
IMAGES = 500  # of the test split, for attention, deletion and insertion
NAMES = {"vit": "ViT", "diff": "Diff-ViT"}


@dataclass(frozen=True)
class Stored:
    """A run whose weights are stored."""

    run: Run
    results: Path

    @cached_property
    def weights_sha256(self) -> str:
        return sha256_of(weights_path(self.run, self.results))

    @cached_property
    def model(self) -> VisionTransformer:
        """In fp32 on the CPU; ResultError if the weights do not fit."""
        return load_model(self.run, self.results)

    @cached_property
    def data(self) -> Dataset:
        """AssetError if it cannot be had."""
        return DATASETS[self.run.dataset]()

    @cached_property
    def logits(self) -> Tensor:
        """(images, K) on the test split."""
        return predict(self.model, self.data.test.images)

    @property
    def file(self) -> str:
        """Where the measurements are, below `results`."""
        return f"models/{self.run.preset}-{self.run.name}.json"


def stored_model(model: str, presets: tuple[str, ...], results: Path) -> Stored | None:
    """Seed 0 of the best recipe, else of the reference recipe; None without weights of either."""
    for experiment in ("best", "reference"):
        for preset in presets:
            run = experiment_runs(experiment, model, preset)[0]
            if weights_path(run, results).exists():
                return Stored(run, results)
    return None


def measure(stored: Stored, images: int = IMAGES) -> dict:
    """All measurements of one model, as the file has them."""
    model, test = stored.model, stored.data.test
    said = stored.logits.argmax(1)
    K = model.config.num_classes
    confusion = torch.bincount(test.labels * K + said, minlength=K * K).view(K, K)
    some = test.images[:images]
    attention = attention_of(model, some)
    maps = {"CLS attention, last layer": attention.cls[-1].mean(1)} | attention.rollouts
    scores = areas(perturb(model, some, maps))
    found = {
        "format": FORMAT,
        "preset": stored.run.preset,
        "name": stored.run.name,
        "seed": stored.run.seed,
        "weights_sha256": stored.weights_sha256,
        "images": len(some),
        "test_accuracy": 100 * (said == test.labels).double().mean().item(),
        "confusion": confusion.tolist(),  # a row a true class, a column an answer
        "entropy": attention.entropy.tolist(),
        "negative_share": attention.negative.tolist(),
        "tokens": model.config.grid**2 + 1,
        "deletion": {name: d.mean().item() for name, (d, _) in scores.items()},
        "insertion": {name: i.mean().item() for name, (_, i) in scores.items()},
        "against_random": {
            name: {
                way: {p: getattr(d, p) for p in ("mean", "low", "high")}
                for way, d in (
                    (way, paired_bootstrap(scores["random order"][i], scores[name][i]))
                    for i, way in enumerate(("deletion", "insertion"))
                )
            }
            for name in maps
        },  # in hundredths, with the interval over the images
        "rollout_messages": attention.messages,
        "device": f"CPU ({platform.machine()})",
        "versions": {"torch": torch.__version__},
    }
    if (table := model.position.table()) is not None:
        found["position_cosines"] = position_cosines(table[1:].detach(), model.config.grid)
    return found


def position_cosines(positions: Tensor, g: int) -> dict:
    """Mean cosine of the positions (N, D) of patches side by side, and of all other pairs."""
    unit = F.normalize(positions, dim=1)
    cosines = unit @ unit.T
    row, column = torch.arange(g * g) // g, torch.arange(g * g) % g
    steps = (row[:, None] - row).abs() + (column[:, None] - column).abs()
    return {
        "neighbours": cosines[steps == 1].mean().item(),
        "others": cosines[steps > 1].mean().item(),
    }


def up_to_date(stored: Stored, files) -> bool:
    """Whether the file (see `report_numbers.Files`) holds measurements of these very weights."""
    found = files.read(stored.file) if files.has(stored.file) else {}
    return (found.get("format"), found.get("weights_sha256")) == (FORMAT, stored.weights_sha256)


def write(stored: Stored) -> None:
    """Measures and writes the file."""
    write_json(measure(stored), stored.results / stored.file)


# ------------------------------------------------------------------------------- figures


def look(models: dict[str, Stored]) -> tuple:
    """What the figures of maps show: the images that the first model picks, each model's CLS
    attention and rollouts on them, and its captions."""
    first = next(iter(models.values()))
    test = first.data.test
    picked = pick_images(first.model, first.data, first.logits)
    images, labels = test.images[picked], test.labels[picked]
    attention = {name: attention_of(s.model, images) for name, s in models.items()}
    captions = {
        name: attention_plots.captions(
            labels.tolist(), s.logits[picked].argmax(1).tolist(), CLASSES
        )
        for name, s in models.items()
    }
    return images, attention, captions


SHOWN = (0, 3, 5, 8, 10, 11)  # of the twelve images, in figures with a row an image


def _some(models: dict[str, Stored]) -> tuple:
    """Arguments of `attention_plots.head_maps`, for the images SHOWN."""
    images, attention, captions = look(models)
    rows = [i for i in SHOWN if i < len(images)]  # a model without mistakes picks only ten
    return (
        images[rows],
        {n: a.cls[:, rows] for n, a in attention.items()},
        {n: [c[i] for i in rows] for n, c in captions.items()},
    )


def head_maps(models: dict[str, Stored]) -> Figure:
    """CLS attention of every head of the last layer, and their mean."""
    return attention_plots.head_maps(*_some(models))


def layer_maps(models: dict[str, Stored]) -> Figure:
    """CLS attention in every layer, the mean over its heads."""
    return attention_plots.layer_maps(*_some(models))


def rollout_maps(models: dict[str, Stored]) -> Figure:
    """Rollout of all images, a row a model and treatment."""
    images, attention, captions = look(models)
    maps = {
        n if len(a.rollouts) == 1 else f"{n}: {treatment.removeprefix('rollout, ')}": r
        for n, a in attention.items()
        for treatment, r in a.rollouts.items()
    }
    return attention_plots.rollout_maps(images, maps, attention_plots.captions_of_all(captions))


def position_figure(stored: Stored) -> Figure:
    """Dot products and cosines of the positions with one another."""
    return attention_plots.position_similarity(stored.model.position.table()[1:].detach())
