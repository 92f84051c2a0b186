"""Hiding pixels of normalised pictures.

In normalised space 0 is the data mean, so a hidden pixel becomes the mean colour, not black.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nem.config import Fill
from nem.errors import ArgumentError
from nem.smoothing import PAPER_SIZE, gaussian, scaled_odd, separable

REPLACEMENTS = ("mean", "blur", "noise")
"""What Ra-NEM puts where pixels are hidden: 0, the data mean; the picture blurred; noise of the
picture's own mean and deviation."""

CELLS = 7
"""Cells per side of the field that deals out the places of `random_like`."""

BLUR_KERNEL, BLUR_SIGMA = 31, 10.0
"""Pixels of the blur at a side of 224."""


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

    Raises:
        ArgumentError: another fill.
    """
    if fill == "mean":
        return mask * x
    if fill != "noise":
        raise ArgumentError(f"fill {fill!r}: allowed are mean, noise")
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return mask * x + (1 - mask) * noise


def random_like(mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Masks with the very values of `mask` at random, smooth places: the control for a gauge.

    The values are dealt out in the order of a random field (uniform on a coarse grid,
    interpolated), so area, softness and binarity are those of `mask`, and only the place differs.

    Args:
        mask: (N, 1, H, W).
        generator: on the device of `mask`.

    Returns:
        Masks of the shape of `mask`.
    """
    n, _, height, width = mask.shape
    coarse = torch.rand(n, 1, CELLS, CELLS, generator=generator, device=mask.device)
    field = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    places = field.flatten(1).argsort(1)
    values = mask.flatten(1).sort(1).values
    return torch.empty_like(values).scatter_(1, places, values).view_as(mask)


def blur(x: Tensor) -> Tensor:
    """Gaussian blur of pictures (N, C, H, W), edges replicated.

    31 pixels and sigma 10 at a side of 224, in proportion to the longer side. Ra-NEM does not
    give them.
    """
    side = max(x.shape[-2:])
    half = scaled_odd(BLUR_KERNEL, side) // 2
    return separable(x, gaussian(half, BLUR_SIGMA * side / PAPER_SIZE)).to(x.dtype)


def noise_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Noise of each picture's own mean and deviation per channel, drawn anew for each pixel."""
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return noise * x.std((2, 3), keepdim=True) + x.mean((2, 3), keepdim=True)


def draw_kinds(
    n: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Places in `REPLACEMENTS`, uniform, int64 (n,), on the device of the generator."""
    return torch.randint(0, len(REPLACEMENTS), (n,), generator=generator, device=device)


def replacements(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """What takes the place of hidden pixels in Ra-NEM, one of `REPLACEMENTS` for each picture.

    Args:
        x: normalised pictures (N, C, H, W).
        generator: of the kinds and the noise, on the device of `x`.

    Returns:
        Pictures of the shape of `x`.
    """
    chosen = draw_kinds(len(x), generator, x.device).view(-1, 1, 1, 1)
    other = torch.where(chosen == REPLACEMENTS.index("blur"), blur(x), noise_like(x, generator))
    return other.masked_fill(chosen == REPLACEMENTS.index("mean"), 0)
