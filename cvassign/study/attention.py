# LLM-assisted: prompts P2, see report.md
"""What many images say of a trained model's attention, a few images at a time.

The explicit attention of 500 images of a nine-layer model is a gigabyte, so each part of them is
reduced to what is asked for before the next is taken. The formulas are in `rollout`.

Shapes: L layers, B images, H heads (of a Diff-ViT half as many), N patches.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cvassign.compare import Difference
from cvassign.data import normalise
from cvassign.rollout import (
    attention_entropy,
    attention_rollout,
    cls_attention,
    negative_share,
    perturbation_curve,
    random_maps,
    rollout_map,
)
from cvassign.train import autocast
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


def heads_alike(maps: Tensor) -> Tensor:
    """Mean correlation over the patches of two different heads' maps: (..., H, N) -> (...)."""
    unit = F.normalize(maps - maps.mean(-1, keepdim=True), dim=-1)
    H = maps.shape[-2]
    return ((unit @ unit.mT).sum((-2, -1)) - H) / (H * (H - 1))  # without each head with itself


def _first_version(model: VisionTransformer) -> None:
    if model.config.attention != "diff":
        raise ValueError(f"expected attention 'diff', got {model.config.attention!r}")


def _pairs(model: VisionTransformer, images: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """A1, A2 (B, H, N+1, N+1) and λ of every layer of a Diff-ViT."""
    x = model.eval().embed(normalise(images))
    for layer in model.layers:
        yield layer.attention.attention_maps(layer.norm1(x))
        x = layer(x)


@torch.no_grad()
def common_part(model: VisionTransformer, images: Tensor, batch_size: int = 50) -> Tensor:
    """How alike the two maps of differential attention are: (L, B, H).

    The correlation of A1 and A2 over the patches, from CLS: 1 if the second map is the first one
    but for size and offset, 0 if they have nothing in common.

    Args:
        model: a Diff-ViT (first version).
        images: (B, 3, S, S) uint8.
        batch_size: images at once.

    Raises:
        ValueError: if the model has no differential attention of the first version.
    """
    _first_version(model)
    found = []
    for part in images.split(batch_size):
        by_layer = []
        for first, second, _ in _pairs(model, part):
            rows = (m[:, :, 0, 1:] - m[:, :, 0, 1:].mean(-1, keepdim=True) for m in (first, second))
            by_layer.append(F.cosine_similarity(*rows, dim=-1))  # (b, H)
        found.append(torch.stack(by_layer))
    return torch.cat(found, dim=1)


@torch.no_grad()
def noise_pair(model: VisionTransformer, images: Tensor, layer: int = -1) -> dict[str, Tensor]:
    """What differential attention subtracts: CLS attention of A1, λA2 and A1 - λA2 in one layer.

    Args:
        model: a Diff-ViT (first version).
        images: (B, 3, S, S) uint8.
        layer: index of the layer; the last by default.

    Returns:
        {"A1", "λA2", "A1 − λA2"}: each (1, B, H, N), as `attention_plots.head_maps` wants them.

    Raises:
        ValueError: if the model has no differential attention of the first version.
    """
    _first_version(model)
    first, second, lam = list(_pairs(model, images))[layer]
    maps = {"A1": first, "λA2": lam * second, "A1 − λA2": first - lam * second}
    return {name: cls_attention(m[None]) for name, m in maps.items()}


@dataclass(frozen=True)
class Perturbation:
    """Class probability while patches leave or enter the images, in the order of some maps."""

    share: Tensor  # (K,) of the patches, 0 ... 1
    deletion: dict[str, Tensor]  # name of the map -> (B, K)
    insertion: dict[str, Tensor]


def perturb(
    model: VisionTransformer, images: Tensor, maps: dict[str, Tensor], steps: int = 8
) -> Perturbation:
    """Deletion and insertion by each map, and by a random order, for the class the model says.

    Args:
        model: in evaluation mode.
        images: (B, 3, S, S) uint8, on the model's device.
        maps: {name: (B, N)}.
        steps: see `rollout.perturbation_curve`.
    """
    def answer(x: Tensor) -> Tensor:
        with autocast(x.device):
            return model(x)

    x = normalise(images)
    maps = maps | {"random order": random_maps(next(iter(maps.values())))}
    curves: dict[bool, dict[str, Tensor]] = {False: {}, True: {}}
    for insert in curves:
        for name, m in maps.items():
            share, curves[insert][name] = perturbation_curve(answer, x, m, insert, steps=steps)
    return Perturbation(share, curves[False], curves[True])


def areas(perturbation: Perturbation) -> dict[str, tuple[Tensor, Tensor]]:
    """The areas under the curves: {name of the map: (deletion (B,), insertion (B,))}."""
    p = perturbation
    return {
        name: (torch.trapezoid(p.deletion[name], p.share, dim=1),
               torch.trapezoid(p.insertion[name], p.share, dim=1))
        for name in p.deletion
    }  # fmt: skip


def against_random(gains: dict[str, Difference], score: str) -> str:
    """Which maps beat a random order by one score, in words.

    Args:
        gains: {map: gain over a random order, better when positive}.
        score: "deletion" or "insertion".
    """
    kinds = {
        "beaten by a random order": [k for k, d in gains.items() if d.high < 0],
        "not told from a random order (the interval holds zero)":
            [k for k, d in gains.items() if not d.clear],
        "better than a random order": [k for k, d in gains.items() if d.low > 0],
    }  # fmt: skip
    said = [f"{kind}: {', '.join(maps)}" for kind, maps in reversed(kinds.items()) if maps]
    return f"By {score}, {'; '.join(said)}."
