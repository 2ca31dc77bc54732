# LLM-assisted: prompts P2, P7, P8, P13, P15, see report.md
"""What test images say of the attention of the best ViT and the best Diff-ViT, and whether these
two have learned their training images by heart.

    python -m cvassign.study.attention    # -> results/study/attention.json, an hour on one core

The explicit attention of 500 images of a nine-layer model is a gigabyte, so each part of them is
reduced to what is asked for before the next is taken. The formulas are in `rollout`.

Shapes: L layers, B images, H heads (of a Diff-ViT half as many), N patches, K steps of a curve."""

import json
from collections.abc import Sequence
from functools import partial
from itertools import takewhile

import torch
from torch import Tensor

from cvassign import rollout
from cvassign.data import DATASETS, Dataset, normalise
from cvassign.device import autocast
from cvassign.experiments import MODELS, experiment_runs
from cvassign.maps import position_cosines
from cvassign.results import RESULTS, load_model, weights_path, write_json
from cvassign.stats import paired_bootstrap
from cvassign.train import predict
from cvassign.vit import VisionTransformer

OUT = RESULTS / "study" / "attention.json"
IMAGES, STEPS = 500, 8  # the first test images; steps of a curve
RANDOM, CENTRE, CLS = "random order", "from the centre", "CLS, last layer"
SIZE = f"{CLS}, |weight|"
# What a map is compared with, each also with those before it, and the words for its gain.
YARDSTICKS = {RANDOM: "", CENTRE: " over the centre", CLS: " over CLS", SIZE: " over |weight|"}
# Options of `attention_rollout`. Without the identity it is appendix D.8 of the ViT as printed.
ROLLOUTS = {
    "ViT": {"rollout": {}, "rollout, no identity": {"residual": False}},
    "Diff-ViT": {
        "rollout, normalised": {"signed": "normalise"},
        "rollout, clamped": {"signed": "clamp"},
        "rollout, clamped, no identity": {"signed": "clamp", "residual": False},
    },
}


def cancelled(first: Tensor, second: Tensor, lam: Tensor) -> dict[str, Tensor]:
    """What the second map takes from the first in a layer of a Diff-ViT: of A1, A2 (B, H, N+1, N+1)
    and λ, means over rows and heads, (B,) each.

    An overlap is Σ min(A1, λA2), the share of A1's mass that is cancelled, 0 where λ < 0 (a
    correlation would not see a background that both maps share); with A2 of the next image it is
    what is in common whatever is seen. Entropies are in nats, the positive part's of A1 - λA2
    scaled to a sum of 1."""
    positive = (first - lam * second).clamp(min=0)
    positive = positive / positive.sum(-1, keepdim=True).clamp(min=1e-9)
    taken = lam.clamp(min=0) * second
    found = {
        "overlap": torch.minimum(first, taken),
        "overlap with another image": torch.minimum(first, taken.roll(1, 0)),
        "entropy of A1": torch.special.entr(first),
        "entropy of the positive part": torch.special.entr(positive),
    }
    return {name: value.sum(-1).mean((1, 2)) for name, value in found.items()}


@torch.no_grad()
def attention_of(model: VisionTransformer, images: Tensor, batch_size: int = 50) -> dict:
    """The attention of a trained model on images (B, 3, S, S) uint8, on the model's device.

    Returns:
        "cls": (L, B, H, N) from CLS to the patches, signed for differential attention; "norms":
        (L, B, N) lengths of the patches' tokens, as the layer reads them; (L, B) each, "entropy"
        in nats, "negative", the share of weights below zero, and of a Diff-ViT what is
        `cancelled`; `ROLLOUTS` by name: (1, B, N)."""
    parts = []
    # Equal parts: none is of one image, unless there is no other.
    for part in images.tensor_split(-(-len(images) // batch_size)):
        x, maps, layers = model.eval().embed(normalise(part)), [], []
        for layer in model.layers:
            layers.append({"norms": x[:, 1:].norm(dim=-1)})
            if model.config.attention == "diff":
                layers[-1] |= cancelled(*layer.attention.attention_maps(layer.norm1(x)))
            x, weights = layer(x, return_attention=True)
            maps.append(weights)
        found = {name: torch.stack([of[name] for of in layers]) for name in layers[0]}
        maps = torch.stack(maps)  # (L, b, H, N+1, N+1)
        found["cls"] = rollout.cls_attention(maps)
        each = maps.split(1, dim=1)  # the formulas give means over images
        found["entropy"] = torch.stack([rollout.attention_entropy(m) for m in each], dim=1)
        found["negative"] = torch.stack([rollout.negative_share(m) for m in each], dim=1)
        for name, options in ROLLOUTS[model.config.kind].items():
            found[name] = rollout.rollout_map(rollout.attention_rollout(maps, **options))[None]
        parts.append(found)
    return {name: torch.cat([of[name] for of in parts], dim=1) for name in parts[0]}


def peak_share(maps: Tensor) -> Tensor:
    """Share of all |weight| that the strongest tenth of the patches holds: (..., N) -> (...). The
    same for signed maps, whose mean is near zero, as for others."""
    size, k = maps.abs(), max(1, round(0.1 * maps.shape[-1]))
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


def tokens(norms: Tensor, cls: Tensor) -> dict:
    """Are tokens that CLS attends to long ones, as "storage" is (arXiv 2309.16588: a few patches
    of the background, several times as long as the others, get much of the attention)?

    By layer, each [mean, low, high] over images: length and |attention|, divided by their mean over
    the image's patches, at the `places`; the longest token; and the two's rank correlation."""
    length, looked = (v / v.mean(-1, keepdim=True) for v in (norms, cls.abs().mean(2)))
    N = length.shape[-1]
    where = places(round(N**0.5)).items()
    ranks = [v.argsort(-1).argsort(-1) - (N - 1) / 2 for v in (length, looked)]  # (L, B, N)
    return {
        "length": {name: _interval(length[..., mask].mean(-1)) for name, mask in where},
        "attention": {name: _interval(looked[..., mask].mean(-1)) for name, mask in where},
        "longest": _interval(length.amax(-1)),
        "rank correlation": _interval((ranks[0] * ranks[1]).mean(-1) * 12 / (N**2 - 1)),
    }


@torch.no_grad()
def noise_pair(model: VisionTransformer, images: Tensor, layer: int = -1) -> dict[str, Tensor]:
    """What differential attention subtracts: CLS attention of A1, λA2 and A1 - λA2 in one layer of
    a Diff-ViT, {name: (1, B, H, N)}, as `maps.head_maps` wants them."""
    if model.config.attention != "diff":
        raise ValueError(f"expected attention 'diff', got {model.config.attention!r}")
    x, own = model.eval().embed(normalise(images)), model.layers[layer]
    for before in model.layers[:layer]:
        x = before(x)
    first, second, lam = own.attention.attention_maps(own.norm1(x))
    maps = {"A1": first, "λA2": lam * second, "A1 − λA2": first - lam * second}
    return {name: rollout.cls_attention(m[None]) for name, m in maps.items()}


def central_maps(maps: Tensor) -> Tensor:
    """Maps (B, N) that see nothing: the nearer a patch to the image's centre, the higher."""
    side = round(maps.shape[1] ** 0.5)
    off = (torch.arange(side, device=maps.device) - (side - 1) / 2) ** 2
    return -(off[:, None] + off).flatten().expand_as(maps)


def scores(curves: dict[str, Sequence[Tensor]]) -> dict:
    """Of the curves by each map, of deletion and of insertion, (B, K) each, in points: their means,
    the mean areas under them, and the paired gains of each map over the `YARDSTICKS`. A gain is
    positive when the map is better: in deletion the lower area, in insertion the higher."""
    K, rows = curves[CLS][0].shape[1], {}
    area = {name: [torch.trapezoid(c, dx=1 / (K - 1)) for c in of] for name, of in curves.items()}
    for name, (out, into) in area.items():
        row = {"deletion": 100 * out.mean().item(), "insertion": 100 * into.mean().item()}
        row["curves"] = [(100 * c.mean(0)).tolist() for c in curves[name]]
        for other in filter(area.get, takewhile(name.__ne__, YARDSTICKS)):
            lost, won = area[other]
            row[f"deletion gain{YARDSTICKS[other]}"] = vars(paired_bootstrap(out, lost))
            row[f"insertion gain{YARDSTICKS[other]}"] = vars(paired_bootstrap(won, into))
        rows[name] = row
    return rows


def study(model: VisionTransformer, images: Tensor, steps: int = STEPS) -> dict:
    """All that is stored of one model: lists by layer (entropy, negative share, concentration: the
    `peak_share` of CLS's attention; of a Diff-ViT what is cancelled), its `tokens`, and the
    `scores` of its maps."""
    found = attention_of(model, images)
    cls, norms = found.pop("cls"), found.pop("norms")
    maps = {CLS: cls[-1].mean(1)}
    if model.config.attention == "diff":
        maps[SIZE] = cls[-1].abs().mean(1)
    maps |= {name: found.pop(name)[0] for name in ROLLOUTS[model.config.kind]}
    found["concentration"] = peak_share(cls).mean(2)
    layers = {name: value.mean(1).tolist() for name, value in found.items()}
    maps |= {CENTRE: central_maps(maps[CLS]), RANDOM: rollout.random_maps(maps[CLS])}
    curve = partial(rollout.perturbation_curve, model, normalise(images), steps=steps)
    with autocast(images.device):
        curves = {name: [curve(m, insert=i)[1] for i in (False, True)] for name, m in maps.items()}
    return {"layers": layers, "tokens": tokens(norms, cls), "scores": scores(curves)}


def clean_accuracy(model: VisionTransformer, dataset: Dataset) -> dict:
    """Accuracy (percent) without augmentation on the first 10,000 images of each split, at most:
    {"train", "val", "test": [mean, low, high]} over images."""
    found = {}
    for name in ("train", "val", "test"):
        split = getattr(dataset, name)
        right = predict(model, split.images[:10_000]).argmax(1) == split.labels[:10_000]
        found[name] = _interval(100.0 * right)
    return found


def main() -> None:
    models = {}
    for kind in MODELS:
        run = experiment_runs("best", kind, "full")[0]
        model, dataset = load_model(run), DATASETS[run.dataset]()
        found = study(model, dataset.test.images[:IMAGES])
        models[model.config.kind] = found | {"accuracy": clean_accuracy(model, dataset)}
    found = {"images": IMAGES, "steps": STEPS, "models": models}
    # Those without flips may be of weights that are not here.
    found["positions"] = json.loads(OUT.read_bytes())["positions"] if OUT.exists() else {}
    runs = [experiment_runs(table, "vit", "full")[0] for table in ("best", "reference", "flip")]
    for run in filter(lambda run: weights_path(run).exists(), runs):
        table = load_model(run).position.table().detach()
        found["positions"][f"ViT, {run.label}"] = position_cosines(table[1:])
    write_json(found, OUT)


if __name__ == "__main__":
    main()
