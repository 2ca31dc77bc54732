# LLM-assisted: prompts P2, P6, P7, P13, P15, see report.md
"""Test accuracy under noise, blur, low contrast, fog and JPEG: does differential attention help?

    python -m cvassign.study.robustness [--preset full] [--images N]

The corruptions and their five strengths follow CIFAR-10-C (arXiv 1903.12261). They are made here,
once for all models, so that every model sees the same pixels: three are torchvision's, JPEG is
Pillow's, the rest a few lines of torch. The one library that has all seven, imagecorruptions, fails
on today's NumPy and has ImageNet's strengths, too strong for 32 x 32 pixels.

Shapes: B images of S x S pixels, uint8 outside of this module and 0 ... 1 inside."""

import io
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from cvassign.assets import AssetError
from cvassign.command import Parser
from cvassign.data import DATASETS
from cvassign.device import describe, pick_device
from cvassign.experiments import MODELS, PRESETS, experiment_runs
from cvassign.progress import bar
from cvassign.results import RESULTS, Run, load_model, weights_path, write_json
from cvassign.stats import paired_bootstrap
from cvassign.train import predict

SEVERITIES = (1, 2, 3, 4, 5)
# Beside the best pair, of the reference recipe: the pair, the norm's part in it, and that of pairs
# of maps. Kinds of attention, the first without and the second with; means if there are several.
COMPARED = {
    "reference": [("standard", "diff")],
    "norm": [("standard", "standard_norm"), ("diff_no_norm", "diff")],
    "pairs": [("standard", "diff_no_norm"), ("standard_norm", "diff")],
}
CHUNK = 1000  # images corrupted at once


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
    """A cloud is added and the range scaled back: fog is bright, uneven, and eats the contrast. Its
    clouds (CIFAR-10-C's are of the diamond-square algorithm) are a sum of octaves: random grids of
    2, 4, ... S points a side, enlarged, each weaker than the one before by decay², as there."""
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


# What does the damage, and how strongly at the severities: by CIFAR-10-C's own program.
CORRUPTIONS = {
    # mean and σ, of the full range
    "Gaussian noise": (tv.gaussian_noise, [(0.0, s) for s in (0.04, 0.06, 0.08, 0.09, 0.10)]),
    "shot noise": (shot_noise, (500, 250, 100, 75, 50)),
    "impulse noise": (impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "blur": (blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    # Towards the image's mean grey, of which a share is left; in CIFAR-10-C to each channel's mean.
    "contrast": (tv.adjust_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "fog": (fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "JPEG": (jpeg, (80, 65, 58, 50, 40)),
}


def _to_uint8(images: Tensor) -> Tensor:
    """0 ... 1 -> uint8, rounded: cutting off would darken every image by half a step."""
    return images.mul(255).round().clamp(0, 255).to(torch.uint8)


def corrupt(images: Tensor, name: str, severity: int, seed: int = 0) -> Tensor:
    """The images (B, 3, S, S) uint8, on the CPU, with one kind of damage, a key of CORRUPTIONS, of
    severity 1 ... 5: the same for the same arguments."""
    if images.dtype != torch.uint8:
        raise ValueError(f"expected images of torch.uint8, got {images.dtype}")
    if name not in CORRUPTIONS or severity not in SEVERITIES:
        known = f"one of {tuple(CORRUPTIONS)} and of {SEVERITIES}"
        raise ValueError(f"expected {known}, got {name!r} and {severity!r}")
    damage, strengths = CORRUPTIONS[name]
    strength = np.atleast_1d(strengths[severity - 1]).tolist()
    # torchvision's noise takes no generator: the global one is lent, seeded, and given back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _to_uint8(torch.cat([damage(p / 255, *strength) for p in images.split(CHUNK)]))


def study(
    groups: Sequence[Sequence[Run]], results: Path, images: int | None, device: str | None
) -> dict:
    """The stored models of two groups of runs of one preset, as a ViT and a Diff-ViT, under every
    corruption and severity, on the first `images` test images. ValueError if there are no so many,
    ResultError if the weights of a run cannot be used.

    Returns:
        "runs": names and mean accuracies (percent) of the groups; "differences": the second minus
        the first, in points over the test images, clean, by corruption, and over all (an image's
        value is the share of models, severities and corruptions that get it right); "by severity":
        {corruption: five differences}."""
    run = groups[0][0]
    where, test = pick_device(device), DATASETS[run.dataset]().test
    if images is not None and not 1 <= images <= len(test):
        raise ValueError(f"images must be between 1 and {len(test)}, got {images}")
    pixels, labels = test.images[:images], test.labels[:images]
    models = [[load_model(run, results).to(where) for run in group] for group in groups]

    def hits(images: Tensor) -> np.ndarray:  # (2, B): the share of a group's models that are right
        logits = [[predict(m, images.to(where)).cpu() for m in group] for group in models]
        right = [(torch.stack(of).argmax(-1) == labels).double().mean(0) for of in logits]
        return torch.stack(right).numpy()

    clean, names = hits(pixels), bar("corruptions", iterable=CORRUPTIONS)
    right = [[hits(corrupt(pixels, name, severity)) for severity in SEVERITIES] for name in names]
    right = np.array(right)  # (7, 5, 2, B)
    rows = []
    for group, of_clean, of in zip(groups, clean, np.moveaxis(right, 2, 0)):
        accuracy = dict(zip(CORRUPTIONS, (100 * of.mean(-1)).tolist()))
        names = [f"{r.name}-s{r.seed}" for r in group]
        rows.append({"names": names, "clean": 100 * of_clean.mean(), "accuracy": accuracy})
    share = right.mean(1)  # (7, 2, B)
    values = {"clean": clean} | dict(zip(CORRUPTIONS, share)) | {"all corruptions": share.mean(0)}
    found = {"preset": run.preset, "images": len(labels), "severities": SEVERITIES}
    found |= {"runs": rows} | describe(where)
    found["differences"] = {name: vars(paired_bootstrap(*of)) for name, of in values.items()}
    gaps = ([vars(paired_bootstrap(*of)) for of in severities] for severities in right)
    return found | {"by severity": dict(zip(CORRUPTIONS, gaps))}


def curves(stored: dict) -> dict[str, np.ndarray]:
    """For `plots.robustness_difference`: {"clean" and each corruption: (severities, 3)}."""
    gaps = {"clean": [stored["differences"]["clean"]]} | stored["by severity"]
    return {k: np.array([[d["mean"], d["low"], d["high"]] for d in of]) for k, of in gaps.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("cvassign.study.robustness", __doc__)
    parser.add_argument("--preset", choices=PRESETS, default="full")
    parser.add_argument("--images", type=int, help="the first N test images (default: all)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    given = parser.parse_args(arguments)
    best = [experiment_runs("best", model, given.preset)[0] for model in MODELS]
    tables = product(("reference", "factorial"), MODELS)
    runs = [run for table in tables for run in experiment_runs(*table, given.preset)]
    runs = [run for run in runs if run.model.num_heads == runs[0].model.num_heads]
    if not all(weights_path(run, given.results).exists() for run in best):
        first = f"python -m cvassign.experiments run --preset {given.preset}"
        parser.exit(1, f"no stored weights of the best recipe; first: {first}\n")
    cells = {r.model.attention: r for r in runs if weights_path(r, given.results).exists()}
    groups = {"best": [[run] for run in best]}
    for name, pairs in COMPARED.items():
        if pairs := [pair for pair in pairs if cells.keys() >= {*pair}]:
            groups[name] = [[cells[of] for of in side] for side in zip(*pairs)]
    try:
        of = {k: study(v, given.results, given.images, given.device) for k, v in groups.items()}
    except (AssetError, ValueError) as error:
        parser.error(str(error))
    path = given.results / "study" / "robustness.json"
    held = json.loads(path.read_bytes()) if path.exists() else {}
    held = {k: v for k, v in held.items() if k in COMPARED}  # of weights that may not be here
    found = held | of.pop("best") | of
    write_json(found, path)
    print(f"{found['images']} images")


if __name__ == "__main__":
    main()
