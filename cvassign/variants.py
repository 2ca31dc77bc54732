# LLM-assisted: prompts P2, P13, see report.md
"""The attention modules by name: the assignment's two, and the controls of 2.2, each with one thing
of differential attention less, or the ViT's with one more; the last is the authors' second version.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from cvassign.attention import (
    MultiHeadAttention,
    MultiHeadDiffAttention,
    attention_weights,
    use_sdpa,
)


class NormedAttention(MultiHeadAttention):
    """The ViT's attention with differential attention's RMSNorm on each head's output."""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__(embed_dim, num_heads)
        self.norm = nn.RMSNorm(embed_dim // num_heads, eps=1e-5)

    def join(self, heads: Tensor) -> Tensor:
        return super().join(self.norm(heads.float()))


class DiffWithoutNorm(MultiHeadDiffAttention):
    """No RMSNorm on the heads; × (1 - λ_init) stays."""

    def __init__(self, embed_dim: int, num_heads: int, layer: int):
        super().__init__(embed_dim, num_heads, layer)
        self.norm = nn.Identity()


class DiffWithoutScale(MultiHeadDiffAttention):
    """No factor 1 - λ_init after the norm."""

    def join(self, heads: Tensor) -> Tensor:
        return self.proj(self.norm(heads.float()).transpose(1, 2).flatten(2))


class DiffConstantInit(MultiHeadDiffAttention):
    """λ_init = 0.8 in all layers, not a schedule over them (arXiv 2410.05258, table 6)."""

    def __init__(self, embed_dim: int, num_heads: int, layer: int):
        super().__init__(embed_dim, num_heads, layer)
        self.lambda_init.fill_(0.8)


class DiffFixedLambda(MultiHeadDiffAttention):
    """λ = λ_init for ever: the four vectors are not there."""

    def __init__(self, embed_dim: int, num_heads: int, layer: int):
        super().__init__(embed_dim, num_heads, layer)
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            delattr(self, name)

    def current_lambda(self) -> Tensor:
        return self.lambda_init


class DiffAttentionV2(nn.Module):
    """The authors' second version (Ye, Dong, Sun and Wei, January 2026).

    H heads of keys and values as in the ViT and two queries for each; λ is the sigmoid of a
    projection, one for each token and head. No norm, no λ_init. The second queries and λ's
    projection are D² + DH + 2D parameters more than the ViT's layer has."""

    def __init__(self, embed_dim: int, num_heads: int, layer: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 4 * embed_dim)  # both queries, keys, values
        self.lambda_proj = nn.Linear(embed_dim, num_heads)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, return_attention: bool = False):
        """(B, N, D) -> (B, N, D), and the signed maps A1 - λA2 (B, H, N, N) if asked for."""
        B, N, D = x.shape
        q1, q2, k, v = self.qkv(x).view(B, N, 4, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        lam = self.lambda_proj(x).sigmoid().transpose(1, 2).unsqueeze(-1)  # (B, H, N, 1)
        if return_attention or not use_sdpa(x):
            weights = attention_weights(q1, k) - lam * attention_weights(q2, k)
            heads = weights @ v
        else:
            kernel = F.scaled_dot_product_attention
            heads = kernel(q1, k, v) - lam * kernel(q2, k, v)
        out = self.proj(heads.transpose(1, 2).flatten(2))
        return (out, weights) if return_attention else out


# (embed_dim, num_heads, layer 1 ... L) -> module (B, N, D) -> (B, N, D)
ATTENTIONS = {
    # Ordinary attention is the same in every layer.
    "standard": lambda embed_dim, num_heads, layer: MultiHeadAttention(embed_dim, num_heads),
    "standard_norm": lambda embed_dim, num_heads, layer: NormedAttention(embed_dim, num_heads),
    "diff": MultiHeadDiffAttention,
    "diff_no_norm": DiffWithoutNorm,
    "diff_no_scale": DiffWithoutScale,
    "diff_constant_init": DiffConstantInit,
    "diff_fixed_lambda": DiffFixedLambda,
    "diff_v2": DiffAttentionV2,
}
