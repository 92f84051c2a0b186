"""Hiding pixels of normalised pictures.

In normalised space 0 is the data mean, so a hidden pixel becomes the mean colour, not black.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nem.config import Fill


def hide(
    x: Tensor, mask: Tensor, fill: Fill = "mean", generator: torch.Generator | None = None
) -> Tensor:
    """Keep what the mask keeps: m * x + (1 - m) * v.

    Args:
        x: normalised pictures (N, 3, H, W).
        mask: (N, 1, H, W) in [0, 1], 1 = kept.
        fill: v is 0, the data mean ("mean": pixel scaling), or is drawn anew for each pixel
            from a normal distribution of the data's mean and deviation, which are 0 and 1 in
            normalised space ("noise": noise injection).
        generator: for the noise, on the device of `x`.

    Returns:
        Pictures of the shape of `x`.
    """
    if fill == "mean":
        return mask * x
    if fill != "noise":
        raise ValueError(f"fill {fill!r}: allowed are mean, noise")
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return mask * x + (1 - mask) * noise


def random_like(mask: Tensor, generator: torch.Generator | None = None, grid: int = 7) -> Tensor:
    """Masks with the very values of `mask` at random, smooth places: the control for a gauge.

    The values are dealt out in the order of a random field (uniform on a coarse grid,
    interpolated), so area, softness and binarity are those of `mask`, and only the place differs.

    Args:
        mask: (N, 1, H, W).
        generator: on the device of `mask`.
        grid: cells per side of the field.

    Returns:
        Masks of the shape of `mask`.
    """
    n, _, height, width = mask.shape
    coarse = torch.rand(n, 1, grid, grid, generator=generator, device=mask.device)
    field = torch.nn.functional.interpolate(
        coarse, size=(height, width), mode="bicubic", align_corners=False
    )
    places = field.flatten(1).argsort(1)
    values = mask.flatten(1).sort(1).values
    return torch.empty_like(values).scatter_(1, places, values).view_as(mask)
