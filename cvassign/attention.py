# LLM-assisted: prompts P1, P2, P15, see report.md
"""Scaled dot-product, multi-head and differential attention.

Papers: "Attention Is All You Need" (arXiv 1706.03762, eq. 1), "An Image is Worth 16x16 Words"
(arXiv 2010.11929, eqs. 5-8), "Differential Transformer" (arXiv 2410.05258, eqs. 1-3).

Every module has two paths that compute the same function. The *fused* path hands the work to
PyTorch's SDPA kernels, which never write the N x N weights to memory: it trains on a GPU, and
predicts. The *explicit* path is the formula of the paper and returns the weights: it is for
looking, and trains where it is the faster one (see `use_sdpa`). Tests hold the two equal.

Shapes: B batch, N tokens, D embed_dim, H heads, d head size (D / H)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAMBDA_STD = 0.1  # of the λ vectors at the start, as in microsoft/unilm, Diff-Transformer


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention(Q, K, V) = softmax(Q Kᵀ / √d) V, arXiv 1706.03762 eq. 1.

    Of queries q (..., N, d), keys k (..., M, d) and values v (..., M, dv) the output (..., N, dv)
    and the weights (..., N, M), whose rows sum to one."""
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        got = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise ValueError(f"expected q (..., N, d), k (..., M, d), v (..., M, dv); got {got}")
    weights = attention_weights(q, k)
    return weights @ v, weights


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √d) of queries (..., N, d) and keys (..., M, d): (..., N, M)."""
    # Divided by √d so that the scores keep unit variance whatever d is; else softmax saturates.
    # The queries are divided, N x d numbers, and not their N x N products with the keys.
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1)


def use_sdpa(x: Tensor) -> bool:
    """Whether PyTorch's fused kernel is the faster path for the tokens x (B, N, D).

    Not for training on a CPU: with the 17 to 65 tokens of a CIFAR-10 image the formula's N x N
    weights fit in the cache. In bf16 the kernel's backward pass then takes several times as long,
    in fp32 the two are level (`python -m cvassign.study.bench` measures it)."""
    return x.is_cuda or not torch.is_grad_enabled()


def head_size(embed_dim: int, num_heads: int) -> int:
    """The size d of a head; raises ValueError if the heads do not divide the embedding."""
    if num_heads < 1 or embed_dim % num_heads:
        raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
    return embed_dim // num_heads


class MultiHeadAttention(nn.Module):
    """Multi-head self-attention, arXiv 2010.11929 eqs. 5-8."""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        head_size(embed_dim, num_heads)  # raises if the heads do not divide the embedding
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)  # U_qkv, eq. 5: the three maps in one
        self.proj = nn.Linear(embed_dim, embed_dim)  # U_msa, eq. 8

    def forward(self, x: Tensor, return_attention: bool = False):
        """(B, N, D) -> (B, N, D), and the weights (B, H, N, N) if `return_attention`."""
        B, N, D = x.shape
        # (B, N, 3D) -> (3, B, H, N, d)
        q, k, v = self.qkv(x).view(B, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        if return_attention or not use_sdpa(x):
            heads, weights = scaled_dot_product_attention(q, k, v)
        else:
            heads, weights = F.scaled_dot_product_attention(q, k, v), None
        out = self.join(heads)
        return (out, weights) if return_attention else out

    def join(self, heads: Tensor) -> Tensor:
        """(B, H, N, d) -> (B, N, D): the heads side by side, then mixed by the projection."""
        return self.proj(heads.transpose(1, 2).flatten(2))


def lambda_init_of(layer: int) -> float:
    """λ_init = 0.8 - 0.6 exp(-0.3 (l - 1)), l = 1 ... L (arXiv 2410.05258, section 2.1)."""
    if layer < 1:
        raise ValueError(f"layers are counted from 1, got layer {layer}")
    return 0.8 - 0.6 * math.exp(-0.3 * (layer - 1))


class MultiHeadDiffAttention(nn.Module):
    """Multi-head differential attention, arXiv 2410.05258 eqs. 1-3.

    DiffAttn = (softmax(Q1 K1ᵀ/√d) - λ softmax(Q2 K2ᵀ/√d)) V, two maps a head and V of width 2d.

    Convention: `num_heads` is the number H, even, of the ViT that this module replaces. As in the
    authors' code the head size d = D / H stays and the number of heads is halved, so there are
    H / 2 differential heads, H softmax maps, and the same weights as in `MultiHeadAttention`
    but for 4 d numbers that make λ and 2 d of the norm. (timm instead takes H / 2 as its own
    `num_heads`.) `layer` is counted from 1. Images have no order in time: nothing is causal here.
    """

    def __init__(self, embed_dim: int, num_heads: int, layer: int):
        super().__init__()
        d = head_size(embed_dim, num_heads)
        if num_heads % 2:
            raise ValueError(f"differential attention pairs heads: num_heads {num_heads} is odd")
        self.num_heads = num_heads // 2
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2 = (
            nn.Parameter(torch.randn(d) * LAMBDA_STD) for _ in range(4)
        )
        self.norm = nn.RMSNorm(2 * d, eps=1e-5)  # one weight (2d,), shared by the heads
        self.proj = nn.Linear(embed_dim, embed_dim)
        # A tensor, so that torch.compile can share one graph among the layers: a Python number
        # that differs from layer to layer would be compiled for each. Not learned, not stored.
        self.register_buffer("lambda_init", torch.tensor(lambda_init_of(layer)), persistent=False)

    def current_lambda(self) -> Tensor:
        """λ = exp(λq1·λk1) - exp(λq2·λk2) + λ_init: one scalar a layer, shared by its heads."""
        # In fp32 even under autocast: the difference of two numbers near one loses digits.
        first = (self.lambda_q1.float() * self.lambda_k1.float()).sum().exp()
        second = (self.lambda_q2.float() * self.lambda_k2.float()).sum().exp()
        return first - second + self.lambda_init

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys (B, H/2, 2, N, d) and values (B, H/2, N, 2d) of the tokens (B, N, D)."""
        B, N, _ = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        # Head by head: the first 2d of the D columns are Q1 and Q2 of head 1, as in the authors'
        # code, so that a head's values, 2d columns too, lie at the same place.
        q, k = (t.view(B, N, self.num_heads, 2, -1).permute(0, 2, 3, 1, 4) for t in (q, k))
        return q, k, v.view(B, N, self.num_heads, -1).transpose(1, 2)

    def attention_maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The two softmax maps A1 and A2, each (B, H/2, N, N), and the scalar λ."""
        q, k, _ = self._split(x)
        maps = attention_weights(q, k)
        return maps[:, :, 0], maps[:, :, 1], self.current_lambda()

    def forward(self, x: Tensor, return_attention: bool = False):
        """(B, N, D) -> (B, N, D), and the signed maps A1 - λA2 (B, H/2, N, N) if asked for."""
        q, k, v = self._split(x)
        lam = self.current_lambda().to(v.dtype)
        if return_attention:
            maps = attention_weights(q, k)
            weights = maps[:, :, 0] - lam * maps[:, :, 1]  # subtracted after the softmax
            heads = weights @ v  # (B, H/2, N, 2d)
        elif use_sdpa(x):
            heads = self._fused(q, k, v, lam)
        else:
            # A1 V - λ A2 V: without a third N x N matrix, which costs more than a second product.
            (q1, q2), (k1, k2) = q.unbind(2), k.unbind(2)
            heads = attention_weights(q1, k1) @ v - lam * (attention_weights(q2, k2) @ v)
        out = self.join(heads)
        return (out, weights) if return_attention else out

    def join(self, heads: Tensor) -> Tensor:
        """(B, H/2, N, 2d) -> (B, N, D): each head normalised and scaled, then concatenated and
        mixed by the projection (eq. 3)."""
        # The norm brings every token's head output to one size; at λ near 1 it was the small size
        # of a contrast. × (1 - λ_init) then gives gradients the size that they have in an ordinary
        # Transformer (appendix G). In fp32 even under autocast, as the norm's weight is.
        heads = self.norm(heads.float()) * (1 - self.lambda_init)
        return self.proj(heads.transpose(1, 2).flatten(2))

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, lam: Tensor) -> Tensor:
        """(A1 - λA2) V = A1 V - λ A2 V by one SDPA call over all 2 · H/2 maps."""
        B, H, _, N, d = q.shape
        # Fused kernels want queries, keys and values of one width: zeros change no dot product,
        # and the scale is given, as it must not follow the padded width.
        q, k = (F.pad(t, (0, d)).reshape(B, 2 * H, N, 2 * d) for t in (q, k))
        v = v.unsqueeze(2).expand(B, H, 2, N, 2 * d).reshape(B, 2 * H, N, 2 * d)
        out = F.scaled_dot_product_attention(q, k, v, scale=1 / math.sqrt(d))
        first, second = out.view(B, H, 2, N, 2 * d).unbind(2)
        return first - lam * second
