"""RISE: which pixels make the class probable? Petsiuk et al. 2018.

The picture is seen through random masks; a pixel is important if the class stays probable whenever
the pixel is kept.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from nem.backbone import Backbone
from nem.budget import pictures_per_run
from nem.errors import ArgumentError, ModelError
from nem.explained import check_pictures, targets
from nem.method import Map
from nem.moments import WeightedMoments
from nem.quiet import quiet
from nem.rise_masks import RandomMasks

MASKS = 1000
Normalise = Literal["masks", "keep"]
"""By what sums are divided: how much the pixel really was kept, or what is expected of it."""


def rise(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    seed: int = 0,
    memory_mb: int = 512,
    masks: int = MASKS,
    grid: int = 7,
    keep: float = 0.5,
    normalise: Normalise = "masks",
) -> Map:
    """The expected probability (softmax) of the class where a pixel is kept.

    Args:
        backbone: a model with classes.
        x: normalised pictures (N, 3, S, S).
        target: (N,) int64, the class; below 0, or None, the most probable one.
        seed: of the masks.
        memory_mb: bound for a run.
        masks: how many.
        grid: cells of a mask per side.
        keep: probability p that a cell is kept.
        normalise: "masks" divides sum(M s) by sum(M), so that a probability which does not depend
            on the mask gives a flat map; "keep" by N p, which is equation 6 of the paper and keeps
            the chance unevenness of the masks.

    Returns:
        The map, in [0, 1] for "masks"; its uncertainty is the weighted variance of the
        probability.

    Raises:
        ArgumentError: pictures, target or options that don't fit.
        ModelError: the model has no classes.
    """
    check_pictures(backbone, x)
    if backbone.num_classes == 0:
        raise ModelError(f"backbone {backbone.name}: no classes to explain; take relax")
    if normalise not in get_args(Normalise):
        raise ArgumentError(
            f"normalise {normalise!r}: allowed are {', '.join(get_args(Normalise))}"
        )
    if masks < 1:
        raise ArgumentError(f"{masks} masks: at least 1 is needed")
    random = RandomMasks(x.shape[-1], grid, keep, seed)
    part = pictures_per_run(x, memory_mb)
    moments = WeightedMoments()
    with quiet(backbone):
        classes, first = targets(backbone, x, target, part)
        for start in range(0, masks, part):
            made = random.tensors(start, min(start + part, masks), x.device)
            scores = [
                backbone.model(made * picture).softmax(1)[:, number]
                for picture, number in zip(x, classes.tolist(), strict=True)
            ]
            moments.add(made[:, 0], scores)
    found = moments.mean
    if normalise == "keep":
        found = found * moments.weight / (masks * keep)
    return Map(found.float(), first + masks, 0, moments.variance.float())
