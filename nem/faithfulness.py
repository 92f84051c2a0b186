"""Does the model change its mind where the map says so? Metrics by perturbation, in torch.

Maps, tensors or arrays, are (N, H, W) or (N, 1, H, W), larger = more important; only their order
counts for the curves. A hidden pixel is hidden in all channels. In normalised space 0 is the data
mean. Pixels of equal value come in an order drawn once from the seed, so a constant map stands for
a random order, and a picture's result does not depend on the others of its batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nem.errors import ArgumentError
from nem.masking import blur
from nem.scoring import Maps, Score, as_tensor, score_versions


class Curve(NamedTuple):
    """A score along the insertion or deletion of pixels.

    Attributes:
        fraction: (K,), share of the pixels that changed, 0 to 1.
        scores: (N, K), or (N, K, scores).
        auc: (N,), or (N, scores): area under the curve by the trapezoid rule.
    """

    fraction: Tensor
    scores: Tensor
    auc: Tensor


class Faithfulness(NamedTuple):
    """Areas under the curves, (N,) or (N, scores): insertion, deletion, and their difference."""

    insertion: Tensor
    deletion: Tensor
    faithfulness: Tensor


def insertion(
    score: Score,
    x: Tensor,
    maps: Maps,
    *,
    steps: int = 50,
    base: Tensor | None = None,
    seed: int = 0,
    memory_mb: int = 512,
) -> Curve:
    """Uncover pixels, most important first (RISE, Petsiuk et al. 2018). Higher is better.

    Args:
        score: what is watched, as `nem.scoring.class_score` gives it.
        x: pictures, normalised (N, C, H, W).
        maps: see the module's text.
        steps: equal steps from no pixel to all; no more than there are pixels.
        base: what covers them, broadcast to `x`; default the blurred pictures.
        seed: of the order among equal values.
        memory_mb: bound for the pictures seen at once and the model's work on them.

    Raises:
        ArgumentError: shapes that differ, values that are not finite, or no step.
    """
    start = blur(x) if base is None else _cover(base, x)
    return _curve(score, start, x, maps, steps, seed, memory_mb)


def deletion(
    score: Score,
    x: Tensor,
    maps: Maps,
    *,
    steps: int = 50,
    base: Tensor | None = None,
    seed: int = 0,
    memory_mb: int = 512,
) -> Curve:
    """Remove pixels, most important first (RISE, Petsiuk et al. 2018). Lower is better.

    As `insertion`; removed pixels take the value of `base`, default 0, the data mean.
    """
    end = _cover(0.0 if base is None else base, x)
    return _curve(score, x, end, maps, steps, seed, memory_mb)


def faithfulness(
    score: Score,
    x: Tensor,
    maps: Maps,
    *,
    steps: int = 50,
    base: Tensor | None = None,
    seed: int = 0,
    memory_mb: int = 512,
) -> Faithfulness:
    """Insertion from the blurred picture minus deletion to the data mean (Ra-NEM, section 4).

    Arguments as `insertion`; `base` is for both.
    """
    gained = insertion(score, x, maps, steps=steps, base=base, seed=seed, memory_mb=memory_mb).auc
    lost = deletion(score, x, maps, steps=steps, base=base, seed=seed, memory_mb=memory_mb).auc
    return Faithfulness(gained, lost, gained - lost)


def faithfulness_correlation(
    score: Score,
    x: Tensor,
    maps: Maps,
    *,
    runs: int = 100,
    subset_size: int = 224,
    base: Tensor | float = 0.0,
    seed: int = 0,
    memory_mb: int = 512,
) -> Tensor:
    """Correlation of the map's sum over random pixels with what their removal costs (N,).

    Bhatt et al. 2020, equation 4: -1 to 1, higher is better. 0 where either side never varies.

    Args:
        score: what is watched, one score, as `nem.scoring.class_score` gives it.
        x: pictures, normalised (N, C, H, W).
        maps: see the module's text; here the values count.
        runs: how many subsets, the same ones for each picture.
        subset_size: pixels removed at once.
        base: what they become.
        seed: of the subsets.
        memory_mb: as `insertion`.

    Raises:
        ArgumentError: as `insertion`, fewer than two runs, or a subset larger than the picture.
    """
    flat = _flat(maps, x)
    pixels = flat.shape[1]
    if runs < 2 or not 1 <= subset_size <= pixels:
        raise ArgumentError(
            f"runs {runs}, subset_size {subset_size}: expected at least 2 runs of 1 to {pixels} "
            "pixels"
        )
    places = _shuffled(pixels, runs, seed)[:, :subset_size]
    removed = torch.zeros(runs, pixels, dtype=torch.bool).scatter_(1, places, True).to(x.device)
    sums = flat.double() @ removed.double().T
    return _pearson(sums, _cost(score, x, removed.expand(len(x), -1, -1), base, memory_mb))


def faithfulness_estimate(
    score: Score,
    x: Tensor,
    maps: Maps,
    *,
    features_in_step: int = 896,
    base: Tensor | float = 0.0,
    seed: int = 0,
    memory_mb: int = 512,
) -> Tensor:
    """Correlation of the map's sum over pixels of like importance with their removal's cost (N,).

    Alvarez-Melis and Jaakkola 2018: the pixels in the map's order are cut into groups, and each
    group is removed alone. -1 to 1, higher is better. 0 where either side never varies.

    Args:
        score: what is watched, one score, as `nem.scoring.class_score` gives it.
        x: pictures, normalised (N, C, H, W).
        maps: see the module's text; here the values count.
        features_in_step: pixels per group; the last one may be smaller.
        base: what removed pixels become.
        seed: of the order among equal values.
        memory_mb: as `insertion`.

    Raises:
        ArgumentError: as `insertion`, or groups that leave fewer than two of them.
    """
    flat = _flat(maps, x)
    pixels = flat.shape[1]
    groups = -(-pixels // max(features_in_step, 1))
    if features_in_step < 1 or groups < 2:
        raise ArgumentError(
            f"features_in_step {features_in_step}: expected 1 to {pixels - 1} of {pixels} pixels"
        )
    group = _ranks(flat, seed) // features_in_step
    removed = group[:, None, :] == torch.arange(groups, device=x.device)[:, None]
    sums = (flat.double()[:, None, :] * removed).sum(2)
    return _pearson(sums, _cost(score, x, removed, base, memory_mb))


@torch.no_grad()
def _curve(
    score: Score, first: Tensor, then: Tensor, maps: Maps, steps: int, seed: int, memory_mb: int
) -> Curve:
    """From `first` to `then`, pixel by pixel in the map's order."""
    ranks = _ranks(_flat(maps, then), seed)
    pixels = ranks.shape[1]
    if steps < 1:
        raise ArgumentError(f"steps {steps}: expected at least 1")
    steps = min(steps, pixels)
    counts = torch.linspace(0, pixels, steps + 1, dtype=torch.float64).round().to(ranks)

    def changed(owner: Tensor, step: Tensor) -> Tensor:
        mask = ranks[owner] < counts[step, None]
        return torch.where(_planes(mask, then), then[owner], first[owner])

    scores = score_versions(score, changed, len(then), steps + 1, then, memory_mb)
    fraction = counts.double() / pixels
    auc = torch.trapezoid(scores.double().movedim(1, -1), fraction, dim=-1)
    return Curve(fraction.float(), scores, auc.float())


@torch.no_grad()
def _cost(score: Score, x: Tensor, removed: Tensor, base: Tensor | float, memory_mb: int) -> Tensor:
    """What the score loses by each removal: (N, R) for `removed` (N, R, H * W)."""
    base = _cover(base, x)

    def without(owner: Tensor, run: Tensor) -> Tensor:
        return torch.where(_planes(removed[owner, run], x), base[owner], x[owner])

    whole = score_versions(score, lambda owner, _: x[owner], len(x), 1, x, memory_mb)
    parts = score_versions(score, without, len(x), removed.shape[1], x, memory_mb)
    if parts.ndim != 2:
        raise ArgumentError(f"score: expected one per picture, got {tuple(parts.shape[2:])}")
    return whole.double() - parts.double()


def _cover(base: Tensor | float, x: Tensor) -> Tensor:
    """What hidden pixels become, of the shape of `x`."""
    base = torch.as_tensor(base, dtype=x.dtype, device=x.device)
    try:
        return base.expand_as(x)
    except RuntimeError:
        raise ArgumentError(
            f"base {tuple(base.shape)}: doesn't broadcast to pictures {tuple(x.shape)}"
        ) from None


def _flat(maps: Maps, x: Tensor) -> Tensor:
    """Maps as (N, H * W) on the device of `x`, checked against the pictures."""
    maps = as_tensor(maps)
    if maps.ndim == 4 and maps.shape[1] == 1:
        maps = maps[:, 0]
    if x.ndim != 4 or maps.shape != (len(x), *x.shape[2:]):
        raise ArgumentError(
            f"maps {tuple(maps.shape)}: expected (N, H, W) or (N, 1, H, W) for pictures "
            f"{tuple(x.shape)} (N, C, H, W)"
        )
    if not maps.isfinite().all():
        raise ArgumentError("maps: values that are not finite; a map of no evidence is all 0")
    return maps.detach().to(x.device).flatten(1)


def _ranks(flat: Tensor, seed: int) -> Tensor:
    """Place of each pixel in the map's order, 0 = most important, (N, H * W)."""
    shuffle = _shuffled(flat.shape[1], 1, seed)[0].to(flat.device)
    order = shuffle[flat[:, shuffle].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(flat.shape[1], device=flat.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def _shuffled(size: int, rows: int, seed: int) -> Tensor:
    """Random orders (rows, size), drawn on the CPU so that devices agree."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(size, generator=generator) for _ in range(rows)])


def _planes(mask: Tensor, x: Tensor) -> Tensor:
    return mask.view(-1, 1, *x.shape[2:])


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation along dimension 1, (N,); 0 where a side is constant up to rounding."""
    a, b = _standard(a), _standard(b)
    return (a * b).sum(1).float()


def _standard(a: Tensor) -> Tensor:
    """Rows with mean 0 and length 1; all 0 where they are constant up to rounding."""
    a = a / a.abs().amax(1, keepdim=True).clamp_min(1e-30)
    a = a - a.mean(1, keepdim=True)
    length = a.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-6, a / length.clamp_min(1e-6), 0.0)
