# LLM-assisted: prompts P1, P5, see report.md
"""AdamW and Muon with a warm-up and a cosine, for the parameters of a ViT.

Muon (Jordan et al. 2024; torch.optim.Muon) replaces the momentum of a weight matrix by the nearest
orthogonal matrix, found by five Newton-Schulz steps, so that every direction moves at one speed.
torch's own Muon treats one matrix after the other, some thousand small kernels a step for a ViT.
The layers of a ViT have matrices of equal shapes, so here they are stacked and orthogonalised
together, at a small fraction of the launches; a test holds the result equal to torch's.
"""

import math
from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from cvassign.device import use_bf16

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of torch.optim.Muon
NS_STEPS = 5
OPTIMIZERS = ("adamw", "muon")
# Linear layers that are several maps in one, by name, and how many: each is orthogonalised by itself.
FUSED = {"qkv": 3}


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
    rates fit. A matrix that is listed in `fused` is cut into so many blocks of equally many rows
    (queries, keys, values), and each is orthogonalised by itself.

    Args:
        params: the weight matrices, each (out, in).
        fused: id(parameter) -> how many blocks; one if it is not listed.
    """

    def __init__(self, params, lr: float, weight_decay: float, fused: dict[int, int],
                 momentum: float = 0.95):  # fmt: skip
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))
        self.fused = fused

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            stacks = defaultdict(list)  # shape of one map -> [(parameter, its maps)]
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            momenta = [self._momentum(p) for p in params]
            torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
            updates = torch._foreach_lerp(grads, momenta, group["momentum"])  # Nesterov
            for p, update in zip(params, updates):
                maps = update.view(self.fused.get(id(p), 1), -1, p.size(1))
                stacks[maps.shape[1:]].append((p, maps))
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            for shape, items in stacks.items():
                stack = orthogonalise(torch.cat([maps for _, maps in items]))
                # An orthogonal matrix has entries of RMS 1/√(long side); AdamW's are about 0.2.
                stack = stack.float() * (-group["lr"] * 0.2 * math.sqrt(max(shape)))
                parts = stack.split([len(maps) for _, maps in items])
                torch._foreach_add_(
                    [p for p, _ in items], [d.reshape(p.shape) for (p, _), d in zip(items, parts)]
                )

    def _momentum(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        return state["momentum"]


def build_optimizers(model: nn.Module, name: str, lr: float, decay: float) -> list[Optimizer]:
    """AdamW for everything, or ("muon") for all but the matrices of the encoder layers.

    Weight decay falls on matrices only: biases, norms, the CLS token, positions and λ vectors are
    not what it is meant to keep small.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {OPTIMIZERS}, got {name!r}")
    matrices = {
        p: FUSED.get(path.rpartition(".")[2], 1)
        for path, module in model.named_modules()
        for p in (getattr(module, "weight", None),)
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }
    hidden = [
        p for n, p in model.named_parameters()
        if n.startswith("layers.") and p in matrices and name == "muon"
    ]  # fmt: skip
    taken = set(hidden)
    rest = [p for p in model.parameters() if p not in taken]
    groups = [
        dict(params=[p for p in rest if p in matrices], weight_decay=decay),
        dict(params=[p for p in rest if p not in matrices], weight_decay=0.0),
    ]
    on_gpu = next(model.parameters()).is_cuda  # its step counters live there: see train.py's graph
    optimizers: list[Optimizer] = [AdamW(groups, lr=lr, fused=True, capturable=on_gpu)]
    if hidden:
        fused = {id(p): matrices[p] for p in hidden}
        optimizers.append(StackedMuon(hidden, lr=lr, weight_decay=decay, fused=fused))
    return optimizers


def lr_factor(progress: float, warmup: float) -> float:
    """Linear warm-up to 1, then a cosine to 0; both arguments are shares of the training."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / max(1e-9, 1 - warmup)))
