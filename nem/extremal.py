"""Extremal perturbations: of all smooth masks of an area, the one that keeps most.

Fong et al. 2019. The paper holds the area by a penalty on the sorted mask (its equation 3), whose
weight has to fit the scale of what is kept. Here every mask has its area exactly: a smooth field,
from a coarse grid, goes through a sigmoid at the level that gives the area, and the sigmoid gets
steeper from step to step, so that grey masks don't pay. Tried with 25 steps of a trained resnet18
on two photographs, masks of 10 %, cut to black and white, kept a cosine of 0.8 this way and of 0.5
by the penalty.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, product

import torch
from torch import Tensor

from nem.backbone import Backbone
from nem.budget import pictures_per_run
from nem.errors import ArgumentError
from nem.explained import Explained, Of, check_pictures
from nem.masking import hide
from nem.method import Map
from nem.quiet import quiet

AREAS = (0.05, 0.1, 0.2, 0.4)
STEPS = 50
_SPREAD = 0.7
"""Deviation of the interpolation, in cells: as smooth as cells allow without ripples."""
_SOFT, _STEEP = 5.0, 20.0
"""Steepness of the sigmoid at the first and last step, per deviation of the field."""
_NOISE = 0.3
"""Deviation of the noise on the field at the first step, per deviation of the field; it ends at 0.
Without it the search would begin at an even grey, where the gradient of a model that does not mind
contrast is rounding alone."""


def extremal(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    of: Of = "embedding",
    areas: Sequence[float] = AREAS,
    steps: int = STEPS,
    grid: int = 14,
    seed: int = 0,
    memory_mb: int = 512,
) -> Map:
    """The mean, over areas, of the smooth masks of that area that keep most.

    What is kept is the cosine to the whole picture's embedding, or the log-probability of a class.
    Hidden pixels become the data mean.

    Args:
        backbone: the model.
        x: normalised pictures (N, 3, S, S).
        target: (N,) int64, the class with of="class"; below 0, or None, the most probable one.
        of: keep the "embedding", or a "class".
        areas: shares of the picture, each in (0, 1); a mask is sought for each.
        steps: of the search for each mask.
        grid: cells of the field per side: the smoothness.
        seed: of the noise that the search begins with.
        memory_mb: bound for a run.

    Returns:
        The map, in [0, 1].

    Raises:
        ArgumentError: pictures, target or options that don't fit.
        ModelError: a class is asked of a model without classes.
    """
    check_pictures(backbone, x)
    if not areas or not all(0 < area < 1 for area in areas):
        raise ArgumentError(f"areas {tuple(areas)}: shares between 0 and 1 are needed")
    if steps < 1 or not 2 <= grid <= x.shape[-1]:
        raise ArgumentError(
            f"steps {steps}, grid {grid}: at least 1 step and 2 to {x.shape[-1]} cells are needed"
        )
    what = Explained(backbone, of)
    part = pictures_per_run(x, memory_mb, gradient=True)
    with quiet(backbone, gradient=True):
        reference, first = what.references(x, target, part)
        jobs = product(range(len(x)), areas)
        found = []
        while some := list(islice(jobs, part)):
            index = torch.tensor([i for i, _ in some], device=x.device)
            area = torch.tensor([a for _, a in some], device=x.device)
            found.append(_search(what, x[index], reference[index], area, steps, grid, seed))
    masks = torch.cat(found)
    masks = masks.view(len(x), len(areas), *masks.shape[1:])
    runs = steps * len(areas)
    return Map(masks.mean(1), first + runs, runs)


def _search(
    what: Explained, x: Tensor, reference: Tensor, area: Tensor, steps: int, grid: int, seed: int
) -> Tensor:
    """The best mask of each picture and area, (N, S, S)."""
    weights = _weights(x.shape[-1], grid).to(x)
    field = x.new_zeros(len(x), grid, grid)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        done = step / max(1, steps - 1)
        # The same for all pictures and areas: a picture's mask doesn't depend on its batch.
        noise = torch.randn(1, grid, grid, generator=generator).to(x)
        tried = _standard(field) + _NOISE * (1 - done) * noise
        tried.requires_grad_()
        mask = _mask(tried, weights, area, _SOFT * (_STEEP / _SOFT) ** done)
        kept = _kept(what, hide(x, mask[:, None]), reference)
        (gradient,) = torch.autograd.grad(kept.sum(), tried)
        # Steps of one length sum up to the field, whose scale does not count: the search needs no
        # rate, settles as 1 / step, and leaves alone what makes no difference.
        length = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        field = field + gradient / length[:, None, None]
    return _mask(field, weights, area, _STEEP).detach()


def _kept(what: Explained, z: Tensor, reference: Tensor) -> Tensor:
    """How much of the whole picture is left in the masked one, (N,)."""
    outputs = what.outputs(z)
    if what.of == "embedding":
        return torch.cosine_similarity(outputs, reference, dim=1)
    return what.pick(outputs.log_softmax(1), reference)


def _mask(field: Tensor, weights: Tensor, area: Tensor, steep: float) -> Tensor:
    """Masks (N, S, S) whose means are `area`, of fields (N, grid, grid)."""
    z = steep * _standard(weights @ field @ weights.T)
    level = _level(z.detach(), area)[:, None, None]
    slope = torch.sigmoid(z.detach() - level)
    slope = slope * (1 - slope) + torch.finfo(z.dtype).tiny
    # The level follows the field, so that no direction of the gradient changes the area.
    moved = (slope * z).sum((1, 2), keepdim=True) / slope.sum((1, 2), keepdim=True)
    return torch.sigmoid(z - level - moved + moved.detach())


def _standard(field: Tensor) -> Tensor:
    """Mean 0 and deviation 1; 0 where it is even."""
    field = field - field.mean((1, 2), keepdim=True)
    return field / (field.square().mean((1, 2), keepdim=True) + 1e-12).sqrt()


def _level(z: Tensor, area: Tensor) -> Tensor:
    """The level (N,) with mean(sigmoid(z - level)) = area, by bisection."""
    # At these ends the mean is above and below any area that float32 can tell from 0 and 1.
    low, high = z.amin((1, 2)) - 20, z.amax((1, 2)) + 20
    for _ in range(30):
        middle = (low + high) / 2
        more = torch.sigmoid(z - middle[:, None, None]).mean((1, 2)) > area
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return (low + high) / 2


def _weights(size: int, grid: int) -> Tensor:
    """Smooth interpolation of `grid` cells to `size` pixels, (size, grid), rows sum to 1."""
    centre = (torch.arange(size) + 0.5) * (grid / size) - 0.5
    away = (centre[:, None] - torch.arange(grid)) / _SPREAD
    return torch.softmax(-(away**2) / 2, dim=1)
