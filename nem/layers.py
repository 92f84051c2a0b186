"""Pieces of decoders: interpolation, convolution blocks, a pyramid from token maps."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

TOKEN_STRIDES = (4, 8, 16, 32)


class TokenPyramid(nn.Module):
    """Makes a pyramid of a ViT's token maps, which all have the patch size as stride.

    Each map goes through its own 1x1 convolution to `width` channels and is resized to stride
    4, 8, 16 or 32, early blocks to fine strides. Bilinear by a factor of two down is the mean.
    """

    def __init__(self, channels: tuple[int, ...], width: int, input_size: int) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.sizes = [-(-input_size // stride) for stride in TOKEN_STRIDES]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Token maps, early to late, to maps of strides 4, 8, 16, 32, all `width` channels."""
        return [
            resize(reduce(tokens), size)
            for reduce, tokens, size in zip(self.reduce, maps, self.sizes, strict=True)
        ]


def enlarge(x: Tensor, size: int) -> Tensor:
    """Bilinear interpolation of few channels, (N, C, L, L) to (N, C, size, size).

    The same numbers as `F.interpolate(align_corners=False)`, as two matrix products: on one or two
    channels that operator leaves a CPU's vector lanes empty and costs more than any convolution.
    """
    length = x.shape[-1]
    if length == size:
        return x
    weights = torch.tensor(interpolation(length, size), dtype=x.dtype, device=x.device)
    return weights @ x @ weights.T


@lru_cache(maxsize=64)
def interpolation(length: int, size: int) -> NDArray[np.float64]:
    """The matrix (size, length) of linear interpolation between pixel centres, ends clamped.

    numpy, because a tensor made while a program is traced must not be kept.
    """
    centre = np.clip((np.arange(size) + 0.5) * (length / size) - 0.5, 0, length - 1)
    weights: NDArray[np.float64] = np.clip(1 - np.abs(centre[:, None] - np.arange(length)), 0, None)
    return weights


def resize(x: Tensor, size: int) -> Tensor:
    """Bilinear to (size, size); nothing is added to the graph when it has that size."""
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def conv_block(inputs: int, outputs: int, activation: type[nn.Module]) -> list[nn.Module]:
    """3x3 convolution, BatchNorm, activation: modules to be chained."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), activation()]
