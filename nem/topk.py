"""The k most important pixels, chosen at random around a ranking: Ra-NEM's Gumbel top-k.

s = a + g with Gumbel noise g; the mask is 1 on the k largest s. Its gradient is that of the
relaxation sigmoid(s - threshold), with the threshold midway between the k-th and the next value
(the paper's A[k], read 0-based, is the next value itself and does not exist for k = d).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nem.errors import ArgumentError

TINY = 1e-6
"""Uniform numbers are kept this far from 0 and 1, where the Gumbel noise is infinite."""


def draw_counts(
    n: int, ks: int, pixels: int, generator: torch.Generator, *, stratified: bool = False
) -> Tensor:
    """`ks` counts of pixels per picture, int64 (n, ks), uniform on 1 .. pixels, with replacement.

    Args:
        n: pictures.
        ks: counts per picture; the paper's 6.
        pixels: d, all there are.
        generator: decides the device.
        stratified: one from each of `ks` equal ranges, which evens them out.
    """
    u = torch.rand(n, ks, generator=generator, device=generator.device)
    if stratified:
        u = (torch.arange(ks, device=u.device) + u) / ks
    return (u * pixels).long().clamp(max=pixels - 1) + 1


def gumbel_like(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Gumbel noise in float32, finite for any random number, also under autocast."""
    u = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=torch.float32)
    return -(-u.clamp(TINY, 1 - TINY).log()).log()


def topk_mask(
    logits: Tensor,
    k: Tensor,
    generator: torch.Generator | None = None,
    *,
    noise: bool = True,
    detach_threshold: bool = False,
    grid: int | None = None,
) -> Tensor:
    """A mask of exactly k ones per picture, hard forwards, soft backwards.

    Args:
        logits: the ranking a, (N, 1, H, W), unbounded.
        k: int64 (N,), 1 .. H * W; all pixels give a mask of ones without gradient.
        generator: of the noise, on the device of `logits`.
        noise: without it, the k largest logits are taken.
        detach_threshold: no gradient through the threshold.
        grid: choose among the means of grid x grid cells (k in proportion, rounded up) and
            enlarge: coherent patches, and a cheaper sort. None: pixels.

    Returns:
        (N, 1, H, W) in float32, also under autocast; equal values are taken in the order of pixels.

    Raises:
        ArgumentError: shapes, k or grid beyond what is said above.
    """
    _check(logits, k, grid)
    height, width = logits.shape[-2:]
    if grid is not None:
        cells = F.adaptive_avg_pool2d(logits.float(), grid)
        # Rounded up, k uniform on 1 .. H * W is uniform on 1 .. grid^2 where the cells are alike.
        share = -(-k * (grid * grid) // (height * width))
        chosen = topk_mask(cells, share, generator, noise=noise, detach_threshold=detach_threshold)
        return F.interpolate(chosen, size=(height, width), mode="nearest")
    with torch.autocast(logits.device.type, enabled=False):
        s = logits.float().flatten(1)
        if noise:
            s = s + gumbel_like(s, generator)
        count = s.shape[1]
        # By rank, never by comparison with the threshold: ties would give more than k.
        places = s.detach().argsort(dim=1, descending=True, stable=True)
        first = torch.arange(count, device=s.device) < k[:, None]
        hard = torch.zeros_like(s).scatter_(1, places, first.to(s.dtype))
        beside = places.gather(1, torch.stack([k - 1, k.clamp(max=count - 1)], 1))
        threshold = s.gather(1, beside).mean(1, keepdim=True)
        if detach_threshold:
            threshold = threshold.detach()
        away = s - threshold
        # sigmoid(away) but for a constant 1 above 0, where it would round to 1 with gradient 0.
        soft = torch.where(away > 0, -torch.sigmoid(-away), torch.sigmoid(away))
        partial = (k < count)[:, None].to(s.dtype)
        # The bracket is exactly 0, so the mask is exactly 0 or 1.
        mask = hard + partial * (soft - soft.detach())
    return mask.view_as(logits)


def _check(logits: Tensor, k: Tensor, grid: int | None) -> None:
    if logits.ndim != 4 or logits.shape[1] != 1:
        raise ArgumentError(f"logits {tuple(logits.shape)}: expected (N, 1, H, W), one channel")
    pixels = logits.shape[-2] * logits.shape[-1]
    if k.shape != logits.shape[:1] or k.is_floating_point():
        raise ArgumentError(
            f"k {tuple(k.shape)} of {k.dtype}: expected whole numbers ({len(logits)},), one for "
            "each picture"
        )
    if k.min() < 1 or k.max() > pixels:
        raise ArgumentError(
            f"k from {int(k.min())} to {int(k.max())}: allowed are 1 to {pixels}, all pixels"
        )
    if grid is not None and not 1 <= grid <= min(logits.shape[-2:]):
        raise ArgumentError(
            f"grid {grid}: allowed are 1 to {min(logits.shape[-2:])} cells per side, or None"
        )
