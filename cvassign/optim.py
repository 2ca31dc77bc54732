# LLM-assisted: prompts P1, P5, P15, see report.md
"""AdamW and Muon with a warm-up and a cosine, for the parameters of a ViT.

Muon (Jordan et al. 2024; torch.optim.Muon) replaces the momentum of a weight matrix by the nearest
orthogonal matrix, found by five Newton-Schulz steps, so that every direction moves at one speed.
torch's own treats one matrix after the other, some thousand small kernels a step for a ViT. Here
those of equal shapes are stacked and orthogonalised together; a test holds the result equal."""

import math
from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from cvassign.device import use_bf16

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of torch.optim.Muon
NS_STEPS = 5


def orthogonalise(stack: Tensor) -> Tensor:
    """The orthogonal factor, nearly, of each matrix of (K, a, b), by Newton-Schulz: in bf16 where
    the device multiplies it (elsewhere that takes twenty times as long), else in fp32."""
    a, b, c = NEWTON_SCHULZ
    x = stack.bfloat16() if use_bf16(stack.device) else stack.float()
    if tall := x.size(1) > x.size(2):  # the Gram matrix is cheaper on the short side
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # spectral norm at most one
    for _ in range(NS_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class StackedMuon(Optimizer):
    """Muon over stacks of equally shaped matrices, with decoupled weight decay.

    As torch.optim.Muon(adjust_lr_fn="match_rms_adamw", nesterov=True), so that AdamW's learning
    rates fit. A group's `blocks` says into how many blocks of equally many rows its matrices are
    cut: queries, keys and values lie in one matrix, and each is orthogonalised by itself."""

    def __init__(self, params, lr: float | Tensor, weight_decay: float, momentum: float = 0.95):
        defaults = dict(lr=lr, weight_decay=weight_decay, momentum=momentum, blocks=1)
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            stacks = defaultdict(list)  # shape -> [(parameter, its update)]
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                self.state[p] = self.state[p] or {"momentum": torch.zeros_like(p)}
            grads, momenta = [p.grad for p in params], [self.state[p]["momentum"] for p in params]
            torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
            updates = torch._foreach_lerp(grads, momenta, group["momentum"])  # Nesterov
            for p, update in zip(params, updates):
                stacks[p.shape].append((p, update))
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            for (rows, columns), items in stacks.items():
                equal, changes = zip(*items)
                height = rows // group["blocks"]
                stack = orthogonalise(torch.cat(changes).view(-1, height, columns)).float()
                # An orthogonal matrix has entries of RMS 1/√(long side); AdamW's are about 0.2.
                stack = stack * (-group["lr"] * 0.2 * math.sqrt(max(height, columns)))
                torch._foreach_add_(equal, stack.reshape(-1, columns).split(rows))


def build_optimizers(
    model: nn.Module, name: str, decay: float, lambda_share: float = 1.0
) -> list[Optimizer]:
    """AdamW for everything, or ("muon") for all but the matrices of the encoder layers.

    Weight decay falls on matrices only, not on biases, norms, the CLS token, positions, λ vectors.
    The rate is zero until `set_rate`, of which the λ vectors get `lambda_share`."""
    device = next(model.parameters()).device
    matrices = {m.weight for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    groups = defaultdict(list)  # (by Muon?, decay, share of the rate, blocks) -> parameters
    for path, p in model.named_parameters():
        muon = name == "muon" and path.startswith("layers.") and p in matrices
        share = lambda_share if ".lambda_" in path and p not in matrices else 1.0
        # qkv is three square maps in one matrix (four in the second version of the Diff-ViT).
        blocks = p.size(0) // p.size(1) if path.endswith("qkv.weight") else 1
        groups[muon, decay if p in matrices else 0.0, share, blocks].append(p)

    by_adamw, by_muon = [], []
    for (muon, own, share, blocks), params in groups.items():
        # Each group's rate is a tensor: a CUDA graph could not see a Python number change.
        group = dict(params=params, lr=torch.zeros((), device=device), weight_decay=own)
        (by_muon if muon else by_adamw).append(group | dict(share=share, blocks=blocks))
    # On a GPU its step counters live there: see capture.py.
    adamw = AdamW(by_adamw, fused=True, capturable=device.type == "cuda")
    return [adamw, StackedMuon(by_muon, lr=0.0, weight_decay=decay)] if by_muon else [adamw]


def set_rate(optimizers: list[Optimizer], rate: float) -> None:
    """Gives every group its share of the rate, in place."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"].fill_(rate * group["share"])


def lr_factor(progress: float, warmup: float) -> float:
    """Linear warm-up to 1, then a cosine to 0; both arguments are shares of the training."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / max(1e-9, 1 - warmup)))
