"""Mask-weighted mean and variance of scores, at every pixel, in one pass. Arrays or tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_TINY = 1e-12


class WeightedMoments:
    """What random masks say of each pixel of some pictures, from scores of the masked pictures.

    At a pixel of weight M in each mask and with scores s, `mean` is sum(M s) / sum(M) and
    `variance` is sum(M (s - mean)^2) / (sum(M) - 1). Chunks of masks are merged exactly (Chan et
    al. 1979), so neither their sizes nor their order matter. It does not know where scores come
    from; state is float64, numpy or torch as what is given.

    Attributes:
        weight: sum of the masks, (H, W); None before the first.
    """

    def __init__(self) -> None:
        self.weight: Any = None
        self._mean: Any = None
        self._squares: Any = None

    def add(self, masks: Any, scores: Sequence[Any]) -> None:
        """Take in a chunk of masks, the same for all pictures.

        Args:
            masks: (n, H, W) in [0, 1], array or tensor.
            scores: of each picture, its n scores, (n,), of the same kind.
        """
        m = as_float64(masks.reshape(len(masks), -1), like=masks)
        means, squares = [], []
        weight = m.sum(0)
        for s in scores:
            s = as_float64(s, like=masks)
            # Shifted by their mean, so that the difference of squares below loses no digits.
            shift = s.mean()
            s = s - shift
            off = (s @ m) / (weight + _TINY)
            means.append((shift + off) * (weight > 0))
            squares.append(((s * s) @ m - weight * off * off).clip(0))
        shape = masks.shape[1:]
        chunk = [[row.reshape(shape) for row in rows] for rows in (means, squares)]
        weight = weight.reshape(shape)
        if self.weight is None:
            self.weight, self._mean, self._squares = weight, *chunk
            return
        total = self.weight + weight
        share = weight / (total + _TINY)
        for i, (mean, square) in enumerate(zip(*chunk, strict=True)):
            step = mean - self._mean[i]
            self._mean[i] = self._mean[i] + step * share
            self._squares[i] = self._squares[i] + square + step * step * self.weight * share
        self.weight = total

    @property
    def mean(self) -> Any:
        """(N, H, W); 0 where no mask has kept a pixel."""
        return _stack(self._mean)

    @property
    def variance(self) -> Any:
        """(N, H, W), >= 0.

        The divisor is not let below half the weight: after a few masks sum(M) - 1 is near or below
        0 at many pixels. From a weight of 2 on it is the stated one.
        """
        half = self.weight / 2
        divisor = half + (half - 1).clip(0)
        return _stack(self._squares) / (divisor + _TINY)


def as_float64(value: Any, *, like: Any) -> Any:
    """`value` in float64, as an array or, on its device, a tensor, whichever `like` is."""
    if isinstance(like, np.ndarray):
        return np.asarray(value, np.float64)
    import torch

    return torch.as_tensor(value, dtype=torch.float64, device=like.device)


def as_float32(value: Any) -> Any:
    """An array or tensor in float32."""
    return value.astype(np.float32) if isinstance(value, np.ndarray) else value.float()


def _stack(rows: list[Any]) -> Any:
    if isinstance(rows[0], np.ndarray):
        return np.stack(rows)
    import torch

    return torch.stack(rows)
