# LLM-assisted: prompts P2, P6, P7, P13, P15, see report.md
"""Test accuracy under noise, blur, low contrast, fog and JPEG: does differential attention help?

    python -m cvassign.study.robustness [--preset full] [--images N]

The corruptions and their five strengths follow CIFAR-10-C (arXiv 1903.12261). They are made here,
once for all models, so that every model sees the same pixels: three are torchvision's, JPEG is
Pillow's, the rest a few lines of torch. The one library that has all seven, imagecorruptions, fails
on today's NumPy and has ImageNet's strengths, too strong for 32 x 32 pixels.

Shapes: B images of S x S pixels, uint8 outside of this module and 0 ... 1 inside.
"""

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tv

from cvassign.assets import AssetError
from cvassign.command import Parser
from cvassign.data import DATASETS, Split
from cvassign.device import describe, pick_device
from cvassign.experiments import MODELS, PRESETS, experiment_runs
from cvassign.progress import bar
from cvassign.results import RESULTS, Run, load_model, weights_path, write_json
from cvassign.stats import over_seeds, paired_bootstrap
from cvassign.train import predict

SEVERITIES = (1, 2, 3, 4, 5)
CHUNK = 1000  # images corrupted at once


def gaussian_noise(images: Tensor, sigma: float) -> Tensor:
    """Each number plus N(0, σ²)."""
    return tv.gaussian_noise(images, sigma=sigma)


def shot_noise(images: Tensor, photons: float) -> Tensor:
    """Each number counted in photons, of which full brightness has so many: bright is noisier."""
    return torch.poisson(images * photons) / photons


def impulse_noise(images: Tensor, share: float) -> Tensor:
    """A share of the numbers becomes 0 or 1, either as often ("salt and pepper")."""
    drawn = torch.rand_like(images)
    images = torch.where(drawn < share / 2, 0.0, images)
    return torch.where(drawn > 1 - share / 2, 1.0, images)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of σ pixels; the kernel reaches to 4 σ."""
    return tv.gaussian_blur(images, kernel_size=2 * round(4 * sigma) + 1, sigma=sigma)


def fog(images: Tensor, amount: float, decay: float) -> Tensor:
    """A cloud is added and the range scaled back: fog is bright, uneven, and eats the contrast.

    CIFAR-10-C draws its clouds by the diamond-square algorithm. Here they are a sum of octaves:
    random grids of 2, 4, ... S points a side, smoothly enlarged, each weaker than the one before
    by decay² (there too: the noise of a step is its strength times a number as large as it). A
    low `decay` gives a fine-grained cloud.
    """
    B, _, S, _ = images.shape
    cloud, strength, side = torch.zeros(B, 1, S, S), 1.0, 2
    while side <= S:
        grid = torch.rand(B, 1, side, side) - 0.5
        cloud += strength * F.interpolate(grid, (S, S), mode="bilinear", align_corners=True)
        strength, side = strength / decay**2, 2 * side
    cloud -= cloud.amin((1, 2, 3), keepdim=True)
    cloud /= cloud.amax((1, 2, 3), keepdim=True)
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + amount * cloud) * brightest / (brightest + amount)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Compressed as JPEG and read again, by Pillow: torchvision gives its own JPEG up."""
    decoded = []
    for pixels in _to_uint8(images).permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255


@dataclass(frozen=True)
class Corruption:
    """A kind of damage: what does it, and how strongly at the severities 1 ... 5."""

    apply: Callable[..., Tensor]
    what: str  # the meaning and unit of the strengths
    strengths: tuple  # a number a severity, or a tuple of them


# The strengths of CIFAR-10-C, from the program that made it (github.com/hendrycks/robustness).
CORRUPTIONS = {
    "Gaussian noise": Corruption(gaussian_noise, "σ, of the full range",
                                 (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot noise": Corruption(shot_noise, "photons at full brightness", (500, 250, 100, 75, 50)),
    "impulse noise": Corruption(impulse_noise, "share of the numbers",
                                (0.01, 0.02, 0.03, 0.05, 0.07)),
    "blur": Corruption(blur, "σ, pixels", (0.4, 0.6, 0.7, 0.8, 1.0)),
    # Towards the image's mean grey; in CIFAR-10-C each channel moves to its own mean.
    "contrast": Corruption(tv.adjust_contrast, "share that is left", (0.75, 0.5, 0.4, 0.3, 0.15)),
    "fog": Corruption(fog, "amount, decay an octave",
                      ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "JPEG": Corruption(jpeg, "quality, percent", (80, 65, 58, 50, 40)),
}  # fmt: skip


NOISES = tuple(name for name in CORRUPTIONS if "noise" in name)


def _to_uint8(images: Tensor) -> Tensor:
    """0 ... 1 -> uint8, rounded: cutting off would darken every image by half a step."""
    return images.mul(255).round().clamp(0, 255).to(torch.uint8)


def corrupt(images: Tensor, name: str, severity: int, seed: int = 0) -> Tensor:
    """The images (B, 3, S, S) uint8, on the CPU, with one kind of damage, a key of CORRUPTIONS, of
    severity 1 ... 5: the same for the same arguments."""
    if name not in CORRUPTIONS:
        raise ValueError(f"corruption must be one of {tuple(CORRUPTIONS)}, got {name!r}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be one of {SEVERITIES}, got {severity!r}")
    shape, dtype = tuple(images.shape), images.dtype
    if len(shape) != 4 or shape[1] != 3 or dtype != torch.uint8:
        raise ValueError(f"expected images (B, 3, S, S) of uint8, got {shape} of {dtype}")
    corruption = CORRUPTIONS[name]
    strength = corruption.strengths[severity - 1]
    strength = strength if isinstance(strength, tuple) else (strength,)
    # torchvision's noise takes no generator: the global one is lent, seeded, and given back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = [corruption.apply(part / 255, *strength) for part in images.split(CHUNK)]
    return _to_uint8(torch.cat(parts))


def hits(
    models: Sequence[nn.Module], split: Split, name: str | None, severity: int = 0, seed: int = 0
) -> np.ndarray:
    """Which images each model gets right: (models, B) bool. `name` None: the images as they are."""
    images = split.images if name is None else corrupt(split.images, name, severity, seed)
    right = []
    for model in models:
        device = next(model.parameters()).device
        right.append(predict(model, images.to(device)).argmax(1).cpu() == split.labels)
    return torch.stack(right).numpy()


def best_runs(preset: str, results: Path = RESULTS) -> list[Run]:
    """The runs of the best recipe, of both models and all seeds, whose weights are stored."""
    runs = [run for model in MODELS for run in experiment_runs("best", model, preset)]
    return [run for run in runs if weights_path(run, results).exists()]


def study(
    runs: Sequence[Run],
    results: Path = RESULTS,
    images: int | None = None,
    seed: int = 0,
    device: str | None = None,
) -> dict:
    """Accuracy (percent) of the stored models of `runs`, of one preset and dataset, under every
    corruption and severity, on the first `images` test images, and the paired differences.

    Raises:
        ValueError: if `runs` is empty or mixes presets.
        ResultError: if the weights of a run cannot be used.
    """
    presets = {(run.preset, run.dataset) for run in runs}
    if len(presets) != 1:
        raise ValueError(f"expected runs of one preset and dataset, got {sorted(presets)}")
    ((preset, dataset),) = presets
    where = pick_device(device)
    split = DATASETS[dataset]().test
    if images is not None:
        if not 1 <= images <= len(split):
            raise ValueError(f"images must be between 1 and {len(split)}, got {images}")
        split = Split(split.images[:images], split.labels[:images])
    models = [load_model(run, results).to(where) for run in runs]
    clean = hits(models, split, None)  # (runs, B)
    right = np.zeros((len(runs), len(CORRUPTIONS), len(SEVERITIES), len(split)), dtype=bool)
    cases = list(product(enumerate(CORRUPTIONS), enumerate(SEVERITIES)))
    for (c, name), (s, severity) in bar("corruptions", iterable=cases):
        right[:, c, s] = hits(models, split, name, severity, seed)
    rows = []
    for run, on_clean, on_damaged in zip(runs, clean, right):
        row = {"name": run.name, "seed": run.seed, "attention": run.model.attention}
        accuracy = dict(zip(CORRUPTIONS, (100 * on_damaged.mean(-1)).tolist()))
        rows.append(row | {"clean": 100 * on_clean.mean(), "accuracy": accuracy})
    about = {"preset": preset, "images": len(split), "seed": seed, "severities": SEVERITIES}
    what = {k: {"what": c.what, "strengths": c.strengths} for k, c in CORRUPTIONS.items()}
    found = about | {"corruptions": what, "runs": rows}
    return found | _differences(runs, clean, right) | describe(where)


def _differences(runs: Sequence[Run], clean: np.ndarray, right: np.ndarray) -> dict:
    """Diff-ViT minus ViT, in points, from which images (runs, ..., B) are right.

    Over seeds when there are two or more of both models, else over the test images: an image's
    value is then the share of its severities (and corruptions) that the model gets right.

    Returns:
        "differences": clean, by corruption, over all, and of the losses of accuracy (clean minus
        damaged) to the noises, to the rest, and to all; "by severity": {corruption: five}.
    """
    of = {(run.model.attention, run.seed): i for i, run in enumerate(runs)}
    seeds = sorted(s for a, s in of if a == "standard" and ("diff", s) in of)
    if not seeds:
        return {"differences": {}, "by severity": {}}

    def gap(value: np.ndarray) -> dict:  # (runs, B)
        vit, diff = (value[[of[a, s] for s in seeds]] for a in ("standard", "diff"))
        if len(seeds) > 1:
            return vars(over_seeds(100 * vit.mean(1), 100 * diff.mean(1)))
        return vars(paired_bootstrap(vit[0], diff[0]))

    share = right.mean(axis=2)  # (runs, corruptions, B)
    values = {"clean": clean} | {name: share[:, k] for k, name in enumerate(CORRUPTIONS)}
    values["all corruptions"] = share.mean(axis=1)
    # What matters for the paper's claim: a model that starts higher also ends higher.
    noise = np.array([name in NOISES for name in CORRUPTIONS])
    for name, kinds in (("noise", noise), ("the rest", ~noise), ("corruption", slice(None))):
        values[f"lost to {name}"] = clean - share[:, kinds].mean(axis=1)
    by_severity = right.transpose(1, 2, 0, 3)  # (corruptions, severities, runs, B)
    return {
        "differences": {name: gap(value) for name, value in values.items()},
        "by severity": {n: [*map(gap, of)] for n, of in zip(CORRUPTIONS, by_severity)},
    }


def curves(stored: dict) -> dict[str, np.ndarray]:
    """A stored study as `plots.robustness_difference` wants it: {"clean" and each corruption:
    (severities, 3)}, the difference with its interval; of clean images there is one."""
    gaps = {"clean": [stored["differences"]["clean"]]} | stored["by severity"]
    return {k: np.array([[d["mean"], d["low"], d["high"]] for d in of]) for k, of in gaps.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = Parser("cvassign.study.robustness", __doc__)
    parser.add_argument("--preset", choices=PRESETS, default="full")
    parser.add_argument("--images", type=int, help="the first N test images (default: all)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    given = parser.parse_args(arguments)
    runs = best_runs(given.preset, given.results)
    if not runs:
        first = f"python -m cvassign.experiments run --preset {given.preset}"
        parser.exit(1, f"no stored weights of the best recipe; first: {first}\n")
    try:
        found = study(runs, given.results, given.images, device=given.device)
    except (AssetError, ValueError) as error:
        parser.error(str(error))
    write_json(found, given.results / "study" / "robustness.json")
    print(f"{len(runs)} models, {found['images']} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
