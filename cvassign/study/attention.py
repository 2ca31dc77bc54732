# LLM-assisted: prompts P2, P7, P8, P13, P15, see report.md
"""What test images say of the attention of the best ViT and the best Diff-ViT, and whether these
two have learned their training images by heart.

    python -m cvassign.study.attention    # -> results/study/attention.json, an hour on one core

The explicit attention of 500 images of a nine-layer model is a gigabyte, so each part of them is
reduced to what is asked for before the next is taken. The formulas are in `rollout`.

Shapes: L layers, B images, H heads (of a Diff-ViT half as many), N patches, K steps of a curve.
"""

import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cvassign import rollout
from cvassign.command import Parser
from cvassign.data import DATASETS, Dataset, normalise
from cvassign.device import autocast
from cvassign.experiments import MODELS, experiment_runs
from cvassign.maps import position_cosines
from cvassign.results import RESULTS, load_model, write_json
from cvassign.stats import paired_bootstrap
from cvassign.train import predict
from cvassign.vit import VisionTransformer

CLS = "CLS, last layer"


@dataclass(frozen=True)
class Attention:
    """A model's attention on some images."""

    cls: Tensor  # (L, B, H, N): from CLS to the patches; signed for differential attention
    norms: Tensor  # (L, B, N): lengths of the patches' tokens, as the layer reads them
    rollouts: dict[str, Tensor]  # treatment -> (B, N)
    entropy: Tensor  # (L,) in nats, mean over the rows of all images
    negative: Tensor  # (L,) share of weights below zero, 0 ... 1
    messages: list[str]  # what `attention_rollout` warned of, each text once


def treatments(model: VisionTransformer) -> dict[str, dict]:
    """The rollouts of a model: name -> options of `attention_rollout`. Without the identity it is
    appendix D.8 of the ViT paper as printed."""
    if model.config.kind == "ViT":
        return {"rollout": {}, "rollout, no identity": {"residual": False}}
    clamped = {"rollout, clamped": {"signed": "clamp"}}
    clamped["rollout, clamped, no identity"] = {"signed": "clamp", "residual": False}
    return {"rollout, normalised": {"signed": "normalise"}} | clamped


def _parts(images: Tensor, size: int) -> tuple[Tensor, ...]:
    """The images in equal parts of at most `size`: none of one image, unless there is no other."""
    return images.tensor_split(-(-len(images) // size))


@torch.no_grad()
def attention_of(model: VisionTransformer, images: Tensor, batch_size: int = 50) -> Attention:
    """The attention of a trained model on images (B, 3, S, S) uint8, on the model's device."""
    if not len(images):
        raise ValueError("expected at least one image, got none")
    found, rollouts = defaultdict(list), defaultdict(list)
    messages: list[str] = []
    model.eval()
    for part in _parts(images, batch_size):
        x, maps, norms = model.embed(normalise(part)), [], []
        for layer in model.layers:
            norms.append(x[:, 1:].norm(dim=-1))
            x, weights = layer(x, return_attention=True)
            maps.append(weights)
        maps = torch.stack(maps)  # (L, b, H, N+1, N+1)
        found["cls"].append(rollout.cls_attention(maps))
        found["norms"].append(torch.stack(norms))
        weight = len(part) / len(images)
        found["entropy"].append(rollout.attention_entropy(maps) * weight)
        found["negative"].append(rollout.negative_share(maps) * weight)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for name, options in treatments(model).items():
                rolled = rollout.attention_rollout(maps, **options)
                rollouts[name].append(rollout.rollout_map(rolled))
        messages += [str(w.message) for w in caught]
    whole = (torch.cat(found[key], dim=1) for key in ("cls", "norms"))
    rolled = {name: torch.cat(maps) for name, maps in rollouts.items()}
    means = (sum(found[key]) for key in ("entropy", "negative"))
    return Attention(*whole, rolled, *means, list(dict.fromkeys(messages)))


def peak_share(maps: Tensor, part: float = 0.1) -> Tensor:
    """Share of all |weight| that the strongest `part` of the patches holds: (..., N) -> (...). The
    same for signed maps, whose mean is near zero, as for others."""
    size = maps.abs()
    k = max(1, round(part * maps.shape[-1]))
    return size.topk(k, dim=-1).values.sum(-1) / size.sum(-1)


def _interval(values: Tensor) -> list:
    """Means of numbers (..., B) over images with their 95 % intervals: (..., 3) mean, low, high."""
    mean, half = values.mean(-1), 1.96 * values.std(-1) / values.shape[-1] ** 0.5
    return torch.stack([mean, mean - half, mean + half], dim=-1).tolist()


def places(grid: int) -> dict[str, Tensor]:
    """Which of the grid² patches are the corners, the rest of the border, and inside: (N,) bool."""
    at = torch.arange(grid)
    edge = (at == 0) | (at == grid - 1)
    sides = (edge[:, None].long() + edge).flatten()  # of how many sides a patch is a part
    return {"corner": sides == 2, "border": sides == 1, "inner": sides == 0}


def tokens(found: Attention) -> dict:
    """Are tokens that CLS attends to long ones, as "storage" is (arXiv 2309.16588: a few patches
    of the background, several times as long as the others, get much of the attention)?

    Lengths and |attention| are divided by their mean over the image's patches: 1 is like all.

    Returns:
        By layer, each [mean, low, high] over images: both at the corners, the border and inside;
        the longest token; and the rank correlation of the two over an image's patches.
    """
    length, looked = (v / v.mean(-1, keepdim=True) for v in (found.norms, found.cls.abs().mean(2)))
    N = length.shape[-1]
    where = places(round(N**0.5)).items()
    ranks = [v.argsort(-1).argsort(-1) - (N - 1) / 2 for v in (length, looked)]  # (L, B, N)
    return {
        "length": {name: _interval(length[..., mask].mean(-1)) for name, mask in where},
        "attention": {name: _interval(looked[..., mask].mean(-1)) for name, mask in where},
        "longest": _interval(length.amax(-1)),
        "rank correlation": _interval((ranks[0] * ranks[1]).mean(-1) * 12 / (N**2 - 1)),
    }


def _is_diff(model: VisionTransformer) -> None:
    if model.config.attention != "diff":
        raise ValueError(f"expected attention 'diff', got {model.config.attention!r}")


def _pairs(model: VisionTransformer, images: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """A1, A2 (B, H, N+1, N+1) and λ of every layer of a Diff-ViT."""
    x = model.eval().embed(normalise(images))
    for layer in model.layers:
        yield layer.attention.attention_maps(layer.norm1(x))
        x = layer(x)


@torch.no_grad()
def cancelled(model: VisionTransformer, images: Tensor, batch_size: int = 50) -> dict[str, Tensor]:
    """What the second map takes from the first, by layer and image, means over rows and heads.

    Returns:
        (L, B) each. "overlap": Σ min(A1, λA2), the share of A1's mass that is cancelled, 0 where
        λ < 0 (a correlation would not see a background that both maps share); "overlap with
        another image": the same with A2 of the next image, what is in common whatever is seen;
        "entropy of A1" and "entropy of the positive part" of A1 - λA2, normalised to sum to 1,
        in nats.
    """
    _is_diff(model)
    found = defaultdict(list)
    for part in _parts(images, batch_size):
        layers = defaultdict(list)
        for first, second, lam in _pairs(model, part):
            positive = (first - lam * second).clamp(min=0)
            positive = positive / positive.sum(-1, keepdim=True).clamp(min=1e-9)
            taken = lam.clamp(min=0) * second
            for name, value in {
                "overlap": torch.minimum(first, taken),
                "overlap with another image": torch.minimum(first, taken.roll(1, 0)),
                "entropy of A1": torch.special.entr(first),
                "entropy of the positive part": torch.special.entr(positive),
            }.items():
                layers[name].append(value.sum(-1).mean((1, 2)))
        for name, values in layers.items():
            found[name].append(torch.stack(values))
    return {name: torch.cat(values, dim=1) for name, values in found.items()}


@torch.no_grad()
def noise_pair(model: VisionTransformer, images: Tensor, layer: int = -1) -> dict[str, Tensor]:
    """What differential attention subtracts: CLS attention of A1, λA2 and A1 - λA2 in one layer of
    a Diff-ViT, {name: (1, B, H, N)}, as `maps.head_maps` wants them."""
    _is_diff(model)
    first, second, lam = list(_pairs(model, images))[layer]
    maps = {"A1": first, "λA2": lam * second, "A1 − λA2": first - lam * second}
    return {name: rollout.cls_attention(m[None]) for name, m in maps.items()}


def perturb(
    model: VisionTransformer, images: Tensor, maps: dict[str, Tensor], steps: int = 8
) -> dict[str, tuple[Tensor, Tensor]]:
    """Deletion and insertion by each map (B, N), and by a random order, for the class the model
    says of images (B, 3, S, S) uint8: the probabilities of `rollout.perturbation_curve`, {name:
    (deletion, insertion), each (B, K)}."""

    def answer(x: Tensor) -> Tensor:
        with autocast(x.device):
            return model(x)

    def curve(m: Tensor, insert: bool) -> Tensor:
        return rollout.perturbation_curve(answer, normalise(images), m, insert, steps=steps)[1]

    maps = maps | {"random order": rollout.random_maps(next(iter(maps.values())))}
    return {name: (curve(m, False), curve(m, True)) for name, m in maps.items()}


def scores(curves: dict[str, tuple[Tensor, Tensor]]) -> dict:
    """Of the curves of `perturb`, in points of probability: their means, the mean areas under
    them, and the paired gain of each map over a random order and over CLS's attention. A gain is
    positive when the map is better: in deletion the lower area, in insertion the higher."""
    area, rows = {}, {}
    for name, of in curves.items():
        area[name] = [torch.trapezoid(c, dx=1 / (c.shape[1] - 1)) for c in of]
    for name, (out, into) in area.items():
        row = {"deletion": 100 * out.mean().item(), "insertion": 100 * into.mean().item()}
        row["curves"] = [(100 * c.mean(0)).tolist() for c in curves[name]]
        for other, words in (("random order", ""), (CLS, " over CLS")):
            if name not in ("random order", other):
                lost, won = area[other]
                row[f"deletion gain{words}"] = vars(paired_bootstrap(out, lost))
                row[f"insertion gain{words}"] = vars(paired_bootstrap(won, into))
        rows[name] = row
    return rows


def study(model: VisionTransformer, images: Tensor, steps: int = 8) -> dict:
    """All that is stored of one model: lists by layer (entropy, negative share, concentration: what
    the strongest tenth of the patches holds of CLS's attention; of a Diff-ViT what is cancelled),
    its `tokens`, and the `scores` of its maps."""
    found = attention_of(model, images)
    layers = {"entropy": found.entropy.tolist(), "negative": found.negative.tolist()}
    layers["concentration"] = peak_share(found.cls).mean((1, 2)).tolist()
    maps = {CLS: found.cls[-1].mean(1)}
    if model.config.attention == "diff":
        maps[f"{CLS}, |weight|"] = found.cls[-1].abs().mean(1)
        common = cancelled(model, images)
        layers |= {name: value.mean(1).tolist() for name, value in common.items()}
        own, other = common["overlap"], common["overlap with another image"]
        layers["overlap, own minus other"] = _interval(own - other)
        layers["lambda"] = model.lambdas()
    gained = scores(perturb(model, images, maps | found.rollouts, steps))
    about = {"layers": layers, "tokens": tokens(found)}
    return about | {"scores": gained, "warnings": found.messages}


def clean_accuracy(model: VisionTransformer, dataset: Dataset) -> dict:
    """Accuracy (percent) without augmentation on the first 10,000 images of each split, at most:
    {"train", "val", "test": [mean, low, high]} over images."""
    found = {}
    for name in ("train", "val", "test"):
        split = getattr(dataset, name)
        right = predict(model, split.images[:10_000]).argmax(1) == split.labels[:10_000]
        found[name] = _interval(100.0 * right)
    return found


def _positions(model: VisionTransformer) -> dict:
    return position_cosines(model.position.table().detach()[1:])


def main(arguments: list[str] | None = None) -> int:
    parser = Parser("cvassign.study.attention", __doc__)
    parser.add_argument("--preset", default="full")
    parser.add_argument("--images", type=int, default=500, help="the first N test images")
    given = parser.parse_args(arguments)
    found: dict = {"images": given.images, "steps": 8, "models": {}, "positions": {}}
    for name, kind in zip(("ViT", "Diff-ViT"), MODELS):
        run = experiment_runs("best", kind, given.preset)[0]
        model, dataset = load_model(run), DATASETS[run.dataset]()
        found["models"][name] = study(model, dataset.test.images[: given.images])
        found["models"][name]["accuracy"] = clean_accuracy(model, dataset)
        found["positions"][f"{name}, best recipe"] = _positions(model)
    reference = load_model(experiment_runs("reference", "vit", given.preset)[0])
    found["positions"]["ViT, reference recipe"] = _positions(reference)
    write_json(found, RESULTS / "study" / "attention.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
