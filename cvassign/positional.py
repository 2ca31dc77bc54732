# LLM-assisted: prompt P1, see report.md
"""The positional embeddings of assignment 1.3: none, learned 1-D, learned 2-D, sinusoidal.

Paper: arXiv 2010.11929 appendix D.4. Each module adds a vector to every token, the CLS token
first: (B, N+1, D) -> (B, N+1, D), where N = grid · grid patches in raster order."""

import math

import torch
from torch import Tensor, nn

INIT_STD = 0.02  # as BERT and the ViT code initialise their embeddings


class NoPosition(nn.Module):
    """No positional information: the encoder sees a bag of patches."""

    def __init__(self, grid: int, embed_dim: int):
        super().__init__()

    def forward(self, tokens: Tensor) -> Tensor:
        # In fp32, as the sum with a table is: under autocast the patches come in bf16, and the
        # residual stream would stay so, for this kind of position alone.
        return tokens.float()


class Learned1D(nn.Module):
    """One learned vector for each of the N + 1 places in the sequence (the ViT's default)."""

    def __init__(self, grid: int, embed_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(grid * grid + 1, embed_dim) * INIT_STD)

    def table(self) -> Tensor:
        """The vectors that are added, (N+1, D), CLS first."""
        return self.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.table()


class Learned2D(nn.Module):
    """An X set and a Y set of vectors of size D/2, concatenated (appendix D.4, point 3).

    The appendix does not say what the CLS token gets, which has no place in the grid: here it
    has a learned vector of its own, of size D."""

    def __init__(self, grid: int, embed_dim: int):
        super().__init__()
        if embed_dim % 2:
            raise ValueError(f"2-D positions need D/2 for each axis: embed_dim {embed_dim} is odd")
        self.x = nn.Parameter(torch.randn(grid, embed_dim // 2) * INIT_STD)
        self.y = nn.Parameter(torch.randn(grid, embed_dim // 2) * INIT_STD)
        self.cls = nn.Parameter(torch.randn(1, embed_dim) * INIT_STD)

    def table(self) -> Tensor:
        """The vectors that are added, (N+1, D), CLS first."""
        grid = len(self.x)
        columns = self.x.expand(grid, grid, -1)  # [row, column] -> X of the column
        rows = self.y.unsqueeze(1).expand(grid, grid, -1)  # [row, column] -> Y of the row
        return torch.cat([self.cls, torch.cat([columns, rows], dim=-1).flatten(0, 1)])

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.table()


class Sinusoidal(nn.Module):
    """Fixed sines and cosines of the place in the sequence (arXiv 1706.03762 section 3.5).

    PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(p / 10000^(2i/D)); CLS is p = 0."""

    def __init__(self, grid: int, embed_dim: int):
        super().__init__()
        if embed_dim % 2:
            raise ValueError(f"sines and cosines come in pairs: embed_dim {embed_dim} is odd")
        places = torch.arange(grid * grid + 1).unsqueeze(1)  # (N+1, 1)
        rates = torch.exp(torch.arange(0, embed_dim, 2) * (-math.log(10_000) / embed_dim))
        weight = torch.zeros(grid * grid + 1, embed_dim)
        weight[:, 0::2] = torch.sin(places * rates)
        weight[:, 1::2] = torch.cos(places * rates)
        self.register_buffer("weight", weight, persistent=False)

    def table(self) -> Tensor:
        """The vectors that are added, (N+1, D), CLS first."""
        return self.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.table()


POSITIONS = {
    "none": NoPosition,
    "learned_1d": Learned1D,
    "learned_2d": Learned2D,
    "sinusoidal": Sinusoidal,
}
