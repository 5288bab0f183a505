"""A transformer encoder over windows of bar features, with three classes at the end: down, flat, up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dataset import CLASSES


@dataclass(frozen=True, slots=True)
class Shape:
    """Width of the residual stream, attention heads, width of the feed-forward layer, number of layers."""

    width: int
    heads: int
    hidden: int
    layers: int


# Parameters with 8 features and a window of 32: 10,019; 202,883; 1,788,291; 12,633,091. Each row of the table of initial
# scales (under 1M, 1M to 10M, over 10M) has one.
SHAPES = {
    "tiny": Shape(32, 2, 64, 1),
    "small": Shape(64, 4, 256, 4),
    "medium": Shape(192, 6, 768, 4),
    "large": Shape(512, 8, 2048, 4),
}


class _Layer(nn.Module):
    """Attention and feed-forward, each normalised before and added after ("pre-norm", which trains without a long warm-up)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm_attention = nn.LayerNorm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)
        self.norm_hidden = nn.LayerNorm(shape.width)
        self.up = nn.Linear(shape.width, shape.hidden)
        self.down = nn.Linear(shape.hidden, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(self.norm_attention(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        hidden: Tensor = self.down(F.gelu(self.up(self.norm_hidden(x))))
        return x + hidden


class BarEncoder(nn.Module):
    """[batch, window, features] -> logits [batch, 3], read off at the newest bar."""

    def __init__(self, features: int, window: int, size: str) -> None:
        super().__init__()
        shape = SHAPES[size]
        self.embed = nn.Linear(features, shape.width)
        self.position = nn.Parameter(torch.randn(window, shape.width) * 0.02)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.position
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.norm(x[:, -1]))
        return logits


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
