# LLM-assisted: prompts P3, P15, see report.md
"""The ViT of DINO, for looking at: its published weights load unchanged, key by key.

Written for this project, not copied (see dino/README.md). Parameter names are those of the
published checkpoints, which are timm's too. There is no dropout and no head: the backbones were
published without one, and nothing is trained here.

Papers: "Emerging Properties in Self-Supervised Vision Transformers" (arXiv 2104.14294);
"DINOv2" (arXiv 2304.07193) adds a LayerScale to each branch and has patches of 14 pixels.

Shapes: B batch, N patches, D embed_dim, H heads, d head_dim, p patch_size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """(B, 3, h, w) -> (B, N, D): one convolution whose stride is its kernel."""

    def __init__(self, patch_size: int, embed_dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention that always gives its weights: looking at them is the point."""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (embed_dim // num_heads) ** -0.5
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N+1, D) -> (B, N+1, D) and the attention (B, H, N+1, N+1)."""
        B, N1, D = x.shape
        qkv = self.qkv(x).reshape(B, N1, 3, self.num_heads, D // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, N+1, d)
        attention = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(B, N1, D)), attention


class LayerScale(nn.Module):
    """One learned factor per channel at the end of a residual branch (DINOv2)."""

    def __init__(self, embed_dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((embed_dim,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Mlp(nn.Module):
    def __init__(self, embed_dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm encoder layer; `ls1` and `ls2` are LayerScale in DINOv2, nothing in DINO."""

    def __init__(self, embed_dim: int, num_heads: int, layer_scale: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = Attention(embed_dim, num_heads)
        self.ls1 = LayerScale(embed_dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = Mlp(embed_dim, 4 * embed_dim)
        self.ls2 = LayerScale(embed_dim) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x))[0])
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """A ViT backbone whose positions stretch to any image size.

    Args:
        patch_size: p, side of a patch in pixels.
        img_size: side of the images it was trained on, whose positions the checkpoint holds.
        layer_scale: DINOv2's LayerScale in each residual branch.
    """

    def __init__(
        self,
        *,
        patch_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        img_size: int = 224,
        layer_scale: bool = False,
    ):
        super().__init__()
        self.patch_size = patch_size
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, (img_size // patch_size) ** 2 + 1, embed_dim))
        self.blocks = nn.ModuleList(
            [Block(embed_dim, num_heads, layer_scale) for _ in range(depth)]
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)

    def interpolate_pos_encoding(self, rows: int, columns: int) -> Tensor:
        """The learned positions (1, N+1, D), stretched to a grid of rows x columns patches.

        Bicubic, and with the original's added 0.1: it asks for a *factor* of (rows + 0.1) / side,
        once put in against rounding down. That factor moves the sampling points by up to 0.1 / rows
        of the grid (0.17 % at 60 rows), so only with it is attention the original's, to the pixel.
        """
        side = math.isqrt(self.pos_embed.shape[1] - 1)
        if (rows, columns) == (side, side):
            return self.pos_embed
        cls, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, D, side, side)
        factors = ((rows + 0.1) / side, (columns + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
        assert grid.shape[2:] == (rows, columns)
        return torch.cat([cls, grid.flatten(2).transpose(1, 2)], dim=1)

    def prepare_tokens(self, x: Tensor) -> Tensor:
        """Images (B, 3, h, w) -> tokens (B, N+1, D) with CLS and positions."""
        rows, columns = (s // self.patch_size for s in x.shape[-2:])
        if not rows or not columns:
            p, (height, width) = self.patch_size, x.shape[-2:]
            raise ValueError(
                f"expected an image of at least one {p} x {p} patch, got {height} x {width} pixels"
            )
        tokens = self.patch_embed(x)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], dim=1)
        return tokens + self.interpolate_pos_encoding(rows, columns)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, h, w) -> the CLS token's features (B, D)."""
        x = self.prepare_tokens(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]

    def get_last_selfattention(self, x: Tensor) -> Tensor:
        """Images (B, 3, h, w) -> the last layer's attention (B, H, N+1, N+1)."""
        x = self.prepare_tokens(x)
        for block in self.blocks[:-1]:
            x = block(x)
        last = self.blocks[-1]
        return last.attn(last.norm1(x))[1]


SIZES = {  # embed_dim, depth, num_heads
    "vit_tiny": (192, 12, 3),
    "vit_small": (384, 12, 6),
    "vit_base": (768, 12, 12),
}


def build(arch: str, patch_size: int) -> VisionTransformer:
    """A DINO backbone; with patches of 14 pixels a DINOv2 one: LayerScale, trained at 518."""
    if arch not in SIZES:
        raise ValueError(f"expected an arch of {', '.join(SIZES)}, got {arch!r}")
    embed_dim, depth, num_heads = SIZES[arch]
    v2 = patch_size == 14
    shape = dict(patch_size=patch_size, embed_dim=embed_dim, depth=depth, num_heads=num_heads)
    return VisionTransformer(**shape, img_size=518 if v2 else 224, layer_scale=v2)
