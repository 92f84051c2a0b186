"""Do the pixels that a map calls important move the embedding more than any others would?

The consistency check of Crabbe & van der Schaar 2022 (Label-Free Explainability for Unsupervised
Models, section 4.1): cover the M most important pixels, and as many random ones. It was made for
maps per pixel: scattered pixels upset a CNN more than one region of their number, so smooth maps
(CAM, FORGrad) may stay below chance without being wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nem.attribution_rules import Baseline, baseline_of
from nem.backbone import Backbone
from nem.budget import pictures_per_run
from nem.errors import ArgumentError
from nem.explained import check_pictures, parts
from nem.scoring import Maps, as_tensor

FRACTIONS = (0.05, 0.1, 0.2, 0.5)


class LatentShift(NamedTuple):
    """How far covering pixels moves the embedding, ||f(x) - f(covered x)||.

    Attributes:
        important: (N, K) at each fraction of the pixels, the most important ones covered.
        random: (N, K), as many random ones covered, mean over draws.
        important_area: (N,), area under `important` from fraction 0, where it is 0, to the last.
        random_area: (N,), the same of `random`. A consistent map has the larger area.
    """

    important: Tensor
    random: Tensor
    important_area: Tensor
    random_area: Tensor


@torch.no_grad()
def latent_shift(
    backbone: Backbone,
    x: Tensor,
    maps: Maps,
    *,
    fractions: Sequence[float] = FRACTIONS,
    baseline: Baseline | Tensor = "blur",
    draws: int = 5,
    seed: int = 0,
    memory_mb: int = 512,
) -> LatentShift:
    """Cover the pixels with the largest magnitude in the map, and random ones.

    Args:
        backbone: the model.
        x: normalised pictures, float (N, 3, S, S).
        maps: (N, S, S), as in `nem.method.Map`.
        fractions: shares of the pixels to be covered, rising, in (0, 1].
        baseline: what covers them: "mean", "blur", or pictures that broadcast to `x`.
        draws: random orders of the pixels, the same for all pictures.
        seed: of those orders.
        memory_mb: bound for the memory of the pictures seen at once.

    Raises:
        ArgumentError: shapes, fractions or draws that don't fit.
    """
    check_pictures(backbone, x)
    size, maps = backbone.input_size, as_tensor(maps)
    if maps.shape != (len(x), size, size):
        raise ArgumentError(f"maps {tuple(maps.shape)}: expected {(len(x), size, size)}")
    rising = all(a < b for a, b in zip((0, *fractions), fractions, strict=False))
    if not fractions or not rising or fractions[-1] > 1 or draws < 1:
        raise ArgumentError(
            f"fractions {tuple(fractions)}, draws {draws}: expected shares of the pixels that "
            "rise in (0, 1], and at least 1 draw"
        )
    pixels = size * size
    # A stable order, so that tied pixels are covered alike everywhere.
    orders = [maps.to(x.device).abs().flatten(1).argsort(dim=1, descending=True, stable=True)]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        order = torch.randperm(pixels, generator=generator).to(x.device)
        orders.append(order.expand(len(x), -1))
    part, base = pictures_per_run(x, memory_mb), baseline_of(baseline, x)
    whole = _embed(backbone, x, part)
    shifts = x.new_empty(len(orders), len(fractions), len(x), dtype=torch.float64)
    for row, order in zip(shifts, orders, strict=True):
        rank = order.argsort(1)  # a permutation's inverse
        for place, fraction in enumerate(fractions):
            covered = (rank < round(fraction * pixels)).view(-1, 1, size, size)
            row[place] = (_embed(backbone, torch.where(covered, base, x), part) - whole).norm(dim=1)
    important, random = shifts[0].T, shifts[1:].mean(0).T
    at = torch.tensor([0.0, *fractions], dtype=torch.float64, device=x.device)

    def area(shift: Tensor) -> Tensor:
        return torch.trapezoid(torch.cat([torch.zeros_like(shift[:, :1]), shift], 1), at)

    return LatentShift(important, random, area(important), area(random))


def _embed(backbone: Backbone, x: Tensor, part: int) -> Tensor:
    return torch.cat([backbone.embed(p) for (p,) in parts(part, x)]).double()
