"""Stochastic weighted neighbourhood averaging (SWNA) of NEMt: masks without pixel-sized cheats.

Each pixel of a mask is averaged with its neighbours, with weights drawn anew in every forward pass
of the training, so a mask can't encode an adversarial pattern. In use the expected weights, a box,
take their place, so a picture always has the same mask. The published code stays random there,
wraps around the edges, and draws one kernel for a whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nem.errors import ArgumentError
from nem.layers import enlarge, interpolation

PAPER_KERNEL, PAPER_SIZE = 21, 224


def kernel_size(input_size: int) -> int:
    """The paper's 21 pixels at 224, in proportion: odd, at least 3."""
    return scaled_odd(PAPER_KERNEL, input_size)


def scaled_odd(pixels: int, input_size: int) -> int:
    """`pixels` at an input side of 224 in proportion: the nearest odd number, at least 3."""
    return max(3, 2 * (pixels * input_size // (2 * PAPER_SIZE)) + 1)


def swna(
    mask: Tensor,
    kernel: int = PAPER_KERNEL,
    generator: torch.Generator | None = None,
    training: bool = False,
    size: int | None = None,
) -> Tensor:
    """Average each pixel of a mask with its neighbours (NEMt, section 3).

    Belongs after sigmoid and upsampling. Beyond the edge the edge's pixels go on (replicate
    padding), so nothing leaks in from the opposite side.

    Args:
        mask: (N, C, H, W) in [0, 1], C masks of each picture; square where `size` is given.
        kernel: side of the square neighbourhood in pixels, odd. `kernel_size` scales it.
        generator: of the random weights, on the device of `mask`.
        training: draw weights for each mask: U(0, 1), divided by their sum. Otherwise all are
            their expected value, 1 / kernel^2: deterministic, and two matrix products.
        size: side to enlarge the masks to before (bilinear); without training that is part of the
            same two products.

    Returns:
        Masks of the shape of `mask`, or (N, C, size, size), in [0, 1]; float32 also under
        autocast, as 16 bits are too coarse near 1.

    Raises:
        ArgumentError: `kernel` is even or below 1, or `mask` has another shape.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise ArgumentError(f"kernel {kernel}: must be an odd number of pixels; add or take 1")
    if mask.ndim != 4:
        raise ArgumentError(f"mask {tuple(mask.shape)}: expected (N, C, H, W)")
    if training:
        with torch.autocast(mask.device.type, enabled=False):
            whole = mask.float() if size is None else enlarge(mask.float(), size)
            mean = _weighted(whole, kernel, generator)
    else:
        mean = separable(mask, [1 / kernel] * kernel, size)
    # Weights sum to 1 only up to rounding.
    return mean.clamp(0, 1)


def separable(x: Tensor, weights: Sequence[float], size: int | None = None) -> Tensor:
    """Correlate rows and columns with the same odd number of weights, edges replicated.

    Two products with band matrices into which the padding is folded: for one channel or three a
    CPU does them in a small part of the time of pooling or convolution, and they export as
    constants and matrix products.

    Args:
        x: (N, C, H, W).
        weights: of the neighbours along one axis, the pixel itself in the middle.
        size: side that a square `x` is enlarged to before, bilinear.

    Returns:
        float32 of the shape of `x`, or (N, C, size, size), also under autocast.
    """
    key = tuple(weights)
    rows = torch.tensor(_band(int(x.shape[2]), key, size), device=x.device)
    columns = torch.tensor(_band(int(x.shape[3]), key, size), device=x.device)
    # Asked first, because the context would be recorded in exported programs.
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return rows @ x.float() @ columns.mT
    return rows @ x.float() @ columns.mT


def _weighted(mask: Tensor, kernel: int, generator: torch.Generator | None) -> Tensor:
    """Each mask with weights of its own, as one convolution whose groups are the masks."""
    count = mask.shape[0] * mask.shape[1]
    weights = torch.rand(count, 1, kernel, kernel, generator=generator, device=mask.device)
    weights = weights / weights.sum((2, 3), keepdim=True)
    padded = F.pad(mask, (kernel // 2,) * 4, mode="replicate").flatten(0, 1)[None]
    return F.conv2d(padded, weights, groups=count).view_as(mask)


def gaussian(half: int, sigma: float) -> list[float]:
    """Weights of sum 1 for `separable`, of the places -half to half."""
    line = [math.exp(-0.5 * (place / sigma) ** 2) for place in range(-half, half + 1)]
    return [weight / sum(line) for weight in line]


@lru_cache(maxsize=64)
def _band(length: int, weights: tuple[float, ...], size: int | None) -> NDArray[np.float32]:
    """(size, length): row i holds the weights around i; those beyond an edge add up on it.

    Without `size` it is square. numpy, see `nem.layers.interpolation`.
    """
    side = length if size is None else size
    matrix = np.zeros((side, side))
    place = np.arange(side)[:, None]
    beside = np.clip(place + np.arange(len(weights)) - len(weights) // 2, 0, side - 1)
    np.add.at(matrix, (place, beside), np.asarray(weights))
    return (matrix @ interpolation(length, side)).astype(np.float32)
