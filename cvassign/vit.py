# LLM-assisted: prompts P1, P2, P15, see report.md
"""The Vision Transformer (arXiv 2010.11929), with ordinary or differential attention.

image (B, 3, 32, 32) -> patch tokens (B, N, D) -> with CLS and positions (B, N+1, D)
-> L encoder layers -> LayerNorm -> CLS -> logits (B, 10)."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cvassign.attention import MultiHeadDiffAttention, head_size
from cvassign.positional import INIT_STD, POSITIONS
from cvassign.variants import ATTENTIONS

# The project's two models: a name for files and commands, the attention, a name for people.
KINDS = {"vit": ("standard", "ViT"), "diff": ("diff", "Diff-ViT")}


def check_whole_numbers(config) -> None:
    """Raises ValueError if a field of type int holds anything but a positive whole number; zero
    only where the default is zero."""
    for field in fields(config):
        value = getattr(config, field.name)
        if field.type is int and (type(value) is not int or value < min(1, field.default)):
            raise ValueError(f"{field.name} must be a positive whole number, got {value!r}")


@dataclass(frozen=True)
class ViTConfig:
    """The shape of a Vision Transformer; the defaults are those of assignment 1.1."""

    image_size: int = 32  # pixels a side; CIFAR-10 is never resized
    patch_size: int = 4  # pixels a side of a patch; (32 / 4)² = 64 tokens
    in_channels: int = 3
    num_classes: int = 10
    embed_dim: int = 192  # D, the width of a token
    depth: int = 6  # L, the number of encoder layers
    num_heads: int = 6  # H; differential attention makes H / 2 pairs of them
    mlp_ratio: float = 4.0  # hidden width of the MLP, in units of D
    position: str = "learned_1d"  # a key of positional.POSITIONS
    attention: str = "standard"  # a key of ATTENTIONS: the only difference of ViT and Diff-ViT
    drop_path: float = 0.0  # stochastic depth: the last layer's rate, growing linearly from 0

    def __post_init__(self) -> None:
        check_whole_numbers(self)
        if self.image_size % self.patch_size:
            sizes = f"image_size {self.image_size} is not divisible by patch_size"
            raise ValueError(f"{sizes} {self.patch_size}")
        head_size(self.embed_dim, self.num_heads)  # raises if the heads do not fit
        for what, known in (("position", POSITIONS), ("attention", ATTENTIONS)):
            if (value := getattr(self, what)) not in known:
                raise ValueError(f"{what} must be one of {tuple(known)}, got {value!r}")
        if not 0 < self.mlp_ratio < math.inf:
            raise ValueError(f"mlp_ratio must be positive, got {self.mlp_ratio}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {self.drop_path}")

    @property
    def kind(self) -> str:
        """ "ViT" or "Diff-ViT"; a variant counts as what it is a variant of."""
        return next(name for kind, name in KINDS.values() if self.attention.startswith(kind))

    @property
    def grid(self) -> int:
        """Patches a side."""
        return self.image_size // self.patch_size


class PatchEmbedding(nn.Module):
    """Cuts the image into patches and maps each to D numbers (eq. 1): E x_p + b."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        # A convolution whose stride is its kernel sees every patch once: it is exactly the
        # linear map of the flattened patch.
        p = config.patch_size
        self.proj = nn.Conv2d(config.in_channels, config.embed_dim, kernel_size=p, stride=p)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, N, D), patches in raster order."""
        return self.proj(images).flatten(2).transpose(1, 2)


def make_attention(config: ViTConfig, layer: int) -> nn.Module:
    """The attention module of layer 1 ... L that the configuration names."""
    return ATTENTIONS[config.attention](config.embed_dim, config.num_heads, layer)


class EncoderLayer(nn.Module):
    """One pre-norm encoder layer (eqs. 2 and 3): x + MSA(LN(x)), then x + MLP(LN(x))."""

    def __init__(self, config: ViTConfig, layer: int):
        super().__init__()
        D, hidden = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(D, eps=1e-6)
        self.attention = make_attention(config, layer)
        self.norm2 = nn.LayerNorm(D, eps=1e-6)
        # One GELU, between the two linear maps; none after the second.
        self.mlp = nn.Sequential(nn.Linear(D, hidden), nn.GELU(), nn.Linear(hidden, D))

    def forward(self, x: Tensor, gates=None, return_attention: bool = False, keep=None):
        """(B, N, D) -> (B, N, D), and the attention weights if `return_attention`.

        `gates` (2, B, 1, 1) are factors of the two residual branches (stochastic depth); only
        `keep` tokens, or all, go on after the attention."""
        branch = self.attention(self.norm1(x), return_attention)
        branch, weights = branch if return_attention else (branch, None)
        x, branch = x[:, :keep], branch[:, :keep]
        x = x + (branch if gates is None else gates[0] * branch)
        branch = self.mlp(self.norm2(x))
        x = x + (branch if gates is None else gates[1] * branch)
        return (x, weights) if return_attention else x


class VisionTransformer(nn.Module):
    """The Vision Transformer of arXiv 2010.11929 section 3.1."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        self.patch_embedding = PatchEmbedding(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.position = POSITIONS[config.position](config.grid, config.embed_dim)
        layers = range(1, config.depth + 1)
        self.layers = nn.ModuleList(EncoderLayer(config, layer) for layer in layers)
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.head = nn.Linear(config.embed_dim, config.num_classes)
        rates = torch.linspace(0, config.drop_path, config.depth)
        self.register_buffer("drop_rates", rates.view(-1, 1, 1, 1, 1), persistent=False)
        self.apply(self._init)
        nn.init.trunc_normal_(self.cls_token, std=INIT_STD)

    @staticmethod
    def _init(module: nn.Module) -> None:
        """Small normal weights and zero biases, as timm and DeiT initialise a ViT."""
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=INIT_STD)
            nn.init.zeros_(module.bias)

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, S, S) -> tokens (B, N+1, D): patches, CLS in front, positions added (eq. 1)."""
        expected = (self.config.in_channels, self.config.image_size, self.config.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"expected images (B, {expected}), got {tuple(images.shape)}")
        patches = self.patch_embedding(images)
        cls = self.cls_token.to(patches.dtype).expand(len(images), -1, -1)
        return self.position(torch.cat([cls, patches], dim=1))

    def _residual_gates(self, batch: int) -> Tensor | None:
        """Stochastic depth (arXiv 1603.09382): a branch is dropped for an image with the rate of
        its layer, else scaled by 1 / (1 - rate) so that its mean stays. (L, 2, B, 1, 1)."""
        if not self.training or self.config.drop_path == 0:
            return None
        shape = (self.config.depth, 2, batch, 1, 1)
        kept = torch.rand(shape, device=self.drop_rates.device) >= self.drop_rates
        return kept / (1 - self.drop_rates)

    def forward(self, images: Tensor, return_attention: bool = False):
        """Logits (B, num_classes) of normalised images (B, C, S, S); with `return_attention` also
        the weights of every layer, (L, B, H, N+1, N+1): for differential attention the signed maps
        A1 - λA2, one for each pair of heads."""
        x = self.embed(images)
        gates = self._residual_gates(len(x))
        maps = []
        for i, layer in enumerate(self.layers):
            gate = None if gates is None else gates[i].to(x.dtype)
            # Of the last layer's tokens only CLS is read: its MLP need not work on the others.
            keep = 1 if i == len(self.layers) - 1 else None
            if return_attention:
                x, weights = layer(x, gate, return_attention=True, keep=keep)
                maps.append(weights)
            else:
                x = layer(x, gate, keep=keep)
        logits = self.head(self.norm(x[:, 0]))  # y = LN(z_L^0), eq. 4; only CLS is read
        return (logits, torch.stack(maps)) if return_attention else logits

    def lambdas(self) -> list[float]:
        """λ of each layer as it is now; empty without differential attention."""
        modules = [layer.attention for layer in self.layers]
        diff = [m for m in modules if isinstance(m, MultiHeadDiffAttention)]
        return [m.current_lambda().item() for m in diff]


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def gflop_per_image(config: ViTConfig) -> float:
    """Billions of operations (multiplications and additions) of one image's forward pass, counted
    by torch in the matrix products; training takes three times as many."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # shapes, no numbers
        images = torch.empty(1, config.in_channels, config.image_size, config.image_size)
        VisionTransformer(config)(images)
    return counter.get_total_flops() / 1e9
