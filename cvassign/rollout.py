# LLM-assisted: prompts P1, P2, P10, P15, see report.md
"""Where a Vision Transformer looks, and a number that says whether a map of it is right.

Papers: attention rollout, "Quantifying Attention Flow in Transformers" (arXiv 2005.00928,
section 3) and ViT (arXiv 2010.11929, appendix D.8); insertion and deletion, RISE (arXiv
1806.07421, section 4.1).

Shapes: L layers, B batch, H heads, N patches (the CLS token comes before them: N+1 tokens),
g patches a side (N = g²), S pixels a side."""

import math
import warnings

import torch
from torch import Tensor

HEAD_FUSIONS = {"mean": torch.mean, "max": torch.amax, "min": torch.amin}
SIGNED = ("error", "normalise", "clamp")
MIN_ROW_SUM = 1e-2  # a signed row that sums to less is not divided by it: noise, times 100


def _check(attentions: Tensor) -> None:
    shape = tuple(attentions.shape)
    if len(shape) != 5 or shape[-1] != shape[-2]:
        raise ValueError(f"expected attentions (L, B, H, N+1, N+1), got shape {shape}")


def cls_attention(attentions: Tensor) -> Tensor:
    """How much the CLS token attends to each patch: (L, B, H, N+1, N+1) -> (L, B, H, N)."""
    _check(attentions)
    return attentions[..., 0, 1:]  # the row of CLS, without what it pays to itself


def to_grid(maps: Tensor) -> Tensor:
    """Numbers per patch in raster order, (..., N) -> (..., g, g); ValueError if N is no square."""
    N = maps.shape[-1]
    g = math.isqrt(N)
    if g * g != N:
        raise ValueError(f"expected maps (..., N) with N = g² patches, got N = {N}")
    return maps.unflatten(-1, (g, g))


def attention_rollout(
    attentions: Tensor, head_fusion: str = "mean", residual: bool = True, signed: str = "error"
) -> Tensor:
    """Attention from the last layer's tokens to the image's patches, arXiv 2005.00928 section 3.

    Â(l) = ½ A(l) + ½ I,  rollout(l) = Â(l) · rollout(l-1),  rollout(0) = I,

    where A is fused over the heads and the identity stands for the residual connection: half of
    what a token becomes is what it was. The text of the ViT's appendix D.8 leaves it out.

    The maps A1 - λA2 of differential attention are signed and their rows sum to 1 - λ. No paper
    says how to roll them out. By default (`signed` "error") they are a ValueError; two ways are
    offered: "normalise" divides each row by its sum and keeps the sign, ½ I + ½ (A1 - λA2) / (1 -
    λ); "clamp" sets negative weights to zero in each head and then divides by the sum. Where λ
    comes close to 1 or passes it, the first way divides by nothing, or turns the sign round: such
    a layer is clamped, with a warning.

    Args:
        attentions: (L, B, H, N+1, N+1), the first layer first; the rollout is (B, N+1, N+1), and
            each of its rows sums to one.
        head_fusion: "mean" as in the paper, "max" or "min"."""
    _check(attentions)
    if head_fusion not in HEAD_FUSIONS:
        raise ValueError(f"head_fusion must be one of {tuple(HEAD_FUSIONS)}, got {head_fusion!r}")
    if signed not in SIGNED:
        raise ValueError(f"signed must be one of {SIGNED}, got {signed!r}")
    attentions = attentions.float()
    if not attentions.isfinite().all():
        raise ValueError("expected finite attentions, got NaN or infinity: look at the weights")
    if signed == "error":
        _check_weights(attentions)
    fuse = HEAD_FUSIONS[head_fusion]
    clamped = _rows_to_one(fuse(attentions.clamp(min=0), dim=2))  # (L, B, N+1, N+1)
    if signed == "normalise":
        fused = fuse(attentions, dim=2)
        # Judged for each image alone, so that no image's map depends on its batch.
        small = fused.sum(-1).amin(-1) < MIN_ROW_SUM  # (L, B)
        if small.any():
            layers = [i + 1 for i, bad in enumerate(small.any(1).tolist()) if bad]
            why = f"rows sum to less than {MIN_ROW_SUM} (λ near or above 1)"
            done = "and cannot be normalised: negative weights are clamped to zero"
            warnings.warn(f"rollout: in the layers {layers} {why} {done}", stacklevel=2)
        fused = torch.where(small[..., None, None], clamped, _rows_to_one(fused))
    else:
        fused = clamped  # equal to the plain formula when no weight is negative
    identity = torch.eye(fused.shape[-1], device=fused.device)
    if residual:
        fused = 0.5 * fused + 0.5 * identity
    rollout = identity.expand_as(fused[0])
    for layer in fused:
        rollout = layer @ rollout  # the later layer on the left: it reads what the earlier wrote
    return rollout


def _rows_to_one(weights: Tensor) -> Tensor:
    """Each row divided by its sum; a row of zeros attends to nothing and keeps its own token."""
    total = weights.sum(-1, keepdim=True)
    identity = torch.eye(weights.shape[-1], device=weights.device)
    return torch.where(total == 0, identity, weights / total)


def _check_weights(attentions: Tensor) -> None:
    least, sums = attentions.amin(), attentions.sum(-1)
    if least < 0 or (sums - 1).abs().amax() > 1e-2:
        got = f"a weight of {least:.3g}, sums of {sums.amin():.3g} ... {sums.amax():.3g}"
        choose = "for differential attention choose signed='normalise' or signed='clamp'"
        raise ValueError(f"expected weights >= 0 whose rows sum to one, got {got}; {choose}")


def rollout_map(rollout: Tensor) -> Tensor:
    """The CLS token's row without its own column: (B, N+1, N+1) -> (B, N)."""
    if rollout.ndim != 3 or rollout.shape[1] != rollout.shape[2]:
        raise ValueError(f"expected a rollout (B, N+1, N+1), got shape {tuple(rollout.shape)}")
    return rollout[:, 0, 1:]


def attention_entropy(attentions: Tensor) -> Tensor:
    """Mean entropy of the rows in nats, by layer: (L, B, H, N+1, N+1) -> (L,); 0 if every token
    looks at one place, ln(N+1) if at all alike. A signed row has no entropy; for it |A| / Σ|A| is
    taken, which for ordinary attention is A itself."""
    _check(attentions)
    weights = attentions.float().abs()
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.special.entr(weights).sum(-1).mean((1, 2, 3))  # entr(p) = -p ln p, 0 at 0


def negative_share(attentions: Tensor) -> Tensor:
    """Share of the weights that are below zero, 0 ... 1, by layer: (L, B, H, N+1, N+1) -> (L,)."""
    _check(attentions)
    return (attentions < 0).float().mean((1, 2, 3, 4))


@torch.no_grad()
def perturbation_curve(
    model, images: Tensor, maps: Tensor, insert=False, steps: int | None = None, batch_size=1000
) -> tuple[Tensor, Tensor]:
    """Probability of the class that the model says to the whole image, while patches leave it, or
    enter an empty one, in a map's order. In place of a patch is 0, the mean of normalised images.

    Args:
        model: images (B, C, S, S) -> logits (B, classes); a module should be in evaluation mode.
        maps: (B, N) importance of each patch, N = g² and g a divisor of S.
        steps: evaluate after so many equal steps; None after every patch.

    Returns:
        The share (K,) of the patches that had their turn, the probability (B, K); K = steps + 1."""
    (B, _, S, _), N = images.shape, maps.shape[-1]
    g = to_grid(maps).shape[-1]
    if maps.shape != (B, N) or S % g or images.shape[-1] != S:
        got = f"{tuple(images.shape)} and {tuple(maps.shape)}"
        raise ValueError(f"expected images (B, C, S, S), maps (B, g²), g a divisor of S; got {got}")
    if not maps.isfinite().all():
        raise ValueError("expected finite maps, got NaN or infinity: their patches have no order")
    labels = torch.cat([model(part).argmax(1) for part in images.split(batch_size)])
    counts = torch.linspace(0, N, (steps or N) + 1, device=images.device).round()  # (K,)
    # argsort of argsort is the rank: 0 for the most important patch.
    rank = maps.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # (B, N)
    probability = []
    # Every (image, step) is one input; together they are far more than fit into memory.
    for pair in torch.arange(B * len(counts), device=images.device).split(batch_size):
        image, step = pair // len(counts), pair % len(counts)
        first = rank[image] < counts[step, None]  # (n, N), the patches that had their turn
        kept = to_grid(first if insert else ~first).unsqueeze(1)  # (n, 1, g, g)
        kept = kept.repeat_interleave(S // g, 2).repeat_interleave(S // g, 3)  # (n, 1, S, S)
        logits = model(torch.where(kept, images[image], 0.0))
        probability.append(logits.float().softmax(1).gather(1, labels[image, None]))
    return counts / N, torch.cat(probability).view(B, -1)


def random_maps(maps: Tensor, seed: int = 0) -> Tensor:
    """Maps of the same shape that rank the patches at random: the baseline of both scores."""
    return torch.rand(maps.shape, generator=torch.Generator().manual_seed(seed)).to(maps.device)
