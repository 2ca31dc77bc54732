# LLM-assisted: prompts P2, P7, P8, see report.md
"""What 500 test images say of the attention of the best ViT and the best Diff-ViT.

    python -m cvassign.study.attention    # -> results/study/attention.json, 15 minutes on two cores

The explicit attention of 500 images of a nine-layer model is a gigabyte, so each part of them is
reduced to what is asked for before the next is taken. The formulas are in `rollout`.

Shapes: L layers, B images, H heads (of a Diff-ViT half as many), N patches.
"""

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cvassign.command import Parser
from cvassign.data import DATASETS, normalise
from cvassign.device import autocast
from cvassign.experiments import MODELS, experiment_runs
from cvassign.results import RESULTS, load_model, write_json
from cvassign.rollout import (
    attention_entropy,
    attention_rollout,
    cls_attention,
    negative_share,
    perturbation_curve,
    random_maps,
    rollout_map,
)
from cvassign.stats import paired_bootstrap
from cvassign.vit import VisionTransformer


@dataclass(frozen=True)
class Attention:
    """A model's attention on some images."""

    cls: Tensor  # (L, B, H, N): from CLS to the patches; signed for differential attention
    rollouts: dict[str, Tensor]  # treatment -> (B, N)
    entropy: Tensor  # (L,) in nats, mean over the rows of all images
    negative: Tensor  # (L,) share of weights below zero, 0 ... 1
    messages: list[str]  # what `attention_rollout` warned of, each text once


def treatments(model: VisionTransformer) -> dict[str, str]:
    """The rollouts of a model: name -> the `signed` of `attention_rollout`."""
    if model.config.attention == "standard":
        return {"rollout": "error"}
    return {"rollout, normalised": "normalise", "rollout, clamped": "clamp"}


@torch.no_grad()
def attention_of(model: VisionTransformer, images: Tensor, batch_size: int = 50) -> Attention:
    """The attention of a trained model on images (B, 3, S, S) uint8, on the model's device.

    Raises:
        ValueError: if there are no images.
    """
    if not len(images):
        raise ValueError("expected at least one image, got none")
    parts: dict[str, list] = {"cls": [], "entropy": [], "negative": []}
    rollouts: dict[str, list] = {name: [] for name in treatments(model)}
    messages: list[str] = []
    model.eval()
    for part in images.split(batch_size):
        _, maps = model(normalise(part), return_attention=True)  # (L, b, H, N+1, N+1)
        parts["cls"].append(cls_attention(maps))
        for name, f in (("entropy", attention_entropy), ("negative", negative_share)):
            parts[name].append(f(maps) * len(part))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for name, signed in treatments(model).items():
                rollouts[name].append(rollout_map(attention_rollout(maps, signed=signed)))
        messages += [str(w.message) for w in caught]
    return Attention(
        torch.cat(parts["cls"], dim=1),
        {name: torch.cat(r) for name, r in rollouts.items()},
        sum(parts["entropy"]) / len(images),
        sum(parts["negative"]) / len(images),
        list(dict.fromkeys(messages)),
    )


def peak_share(maps: Tensor, part: float = 0.1) -> Tensor:
    """Share of all |weight| that the strongest `part` of the patches holds: (..., N) -> (...).

    The same for signed maps as for others; a standard deviation over the mean would not be, as
    the mean of a signed map is near zero.
    """
    size = maps.abs()
    k = max(1, round(part * maps.shape[-1]))
    return size.topk(k, dim=-1).values.sum(-1) / size.sum(-1)


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
    """What the second map takes from the first, by layer, means over rows, heads and images: (L,).

    Returns:
        "overlap": Σ min(A1, λA2), the share of A1's mass that is cancelled, 0 where λ < 0 (a
        correlation would not see a background that both maps share); "entropy of A1" and "entropy of the positive
        part" of A1 - λA2, normalised to sum to 1, in nats.

    """
    _is_diff(model)
    found: dict[str, Tensor] = {}
    for part in images.split(batch_size):
        for i, (first, second, lam) in enumerate(_pairs(model, part)):
            positive = (first - lam * second).clamp(min=0)
            positive = positive / positive.sum(-1, keepdim=True).clamp(min=1e-9)
            for name, value in (
                ("overlap", torch.minimum(first, lam.clamp(min=0) * second).sum(-1)),
                ("entropy of A1", torch.special.entr(first).sum(-1)),
                ("entropy of the positive part", torch.special.entr(positive).sum(-1)),
            ):
                sums = found.setdefault(name, torch.zeros(model.config.depth))
                sums[i] += value.mean().item() * len(part) / len(images)
    return found


@torch.no_grad()
def noise_pair(model: VisionTransformer, images: Tensor, layer: int = -1) -> dict[str, Tensor]:
    """What differential attention subtracts: CLS attention of A1, λA2 and A1 - λA2 in one layer of
    a Diff-ViT, {name: (1, B, H, N)}, as `maps.head_maps` wants them."""
    _is_diff(model)
    first, second, lam = list(_pairs(model, images))[layer]
    maps = {"A1": first, "λA2": lam * second, "A1 − λA2": first - lam * second}
    return {name: cls_attention(m[None]) for name, m in maps.items()}


def perturb(
    model: VisionTransformer, images: Tensor, maps: dict[str, Tensor], steps: int = 8
) -> dict[str, tuple[Tensor, Tensor]]:
    """Deletion and insertion by each map, and by a random order, for the class the model says: the
    areas under the curves of `rollout.perturbation_curve`, {name: (deletion, insertion), each (B,)}.

    Args:
        model: in evaluation mode.
        images: (B, 3, S, S) uint8, on the model's device.
        maps: {name: (B, N)}.
    """

    def answer(x: Tensor) -> Tensor:
        with autocast(x.device):
            return model(x)

    def area(m: Tensor, insert: bool) -> Tensor:
        share, probability = perturbation_curve(answer, x, m, insert, steps=steps)
        return torch.trapezoid(probability, share, dim=1)

    x = normalise(images)
    maps = maps | {"random order": random_maps(next(iter(maps.values())))}
    return {name: (area(m, False), area(m, True)) for name, m in maps.items()}


def study(model: VisionTransformer, images: Tensor, steps: int = 8) -> dict:
    """All that is stored of one model: by layer, and the scores of its maps.

    Returns:
        Lists by layer (entropy, negative share, concentration: what the strongest tenth of the
        patches holds of CLS's attention), and for each map the mean areas of deletion and
        insertion with their gain over a random order, in points of probability.
    """
    found = attention_of(model, images)
    layers = {
        "entropy": found.entropy.tolist(),
        "negative": found.negative.tolist(),
        "concentration": peak_share(found.cls).mean((1, 2)).tolist(),
    }
    if model.config.attention == "diff":
        layers |= {name: value.tolist() for name, value in cancelled(model, images).items()}
        layers["lambda"] = model.lambdas()
    maps = {"CLS, last layer": found.cls[-1].mean(1)} | found.rollouts
    scores = perturb(model, images, maps, steps)
    chance = scores["random order"]
    rows = {}
    for name, (out, into) in scores.items():
        rows[name] = {"deletion": 100 * out.mean().item(), "insertion": 100 * into.mean().item()}
        if name != "random order":  # both gains are better when positive
            rows[name]["deletion gain"] = vars(paired_bootstrap(out, chance[0]))
            rows[name]["insertion gain"] = vars(paired_bootstrap(chance[1], into))
    return {"layers": layers, "scores": rows, "warnings": found.messages}


def main(arguments: list[str] | None = None) -> int:
    parser = Parser("cvassign.study.attention", __doc__)
    parser.add_argument("--preset", default="full")
    parser.add_argument("--images", type=int, default=500, help="the first N test images")
    given = parser.parse_args(arguments)
    found: dict = {"images": given.images, "steps": 8, "models": {}}
    for name, model in zip(("ViT", "Diff-ViT"), MODELS):
        run = experiment_runs("best", model, given.preset)[0]
        images = DATASETS[run.dataset]().test.images[: given.images]
        found["models"][name] = study(load_model(run), images)
    write_json(found, RESULTS / "study" / "attention.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
