"""What the model makes of changed pictures, many versions of each, in parts that fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nem.backbone import Backbone
from nem.budget import pictures_per_run
from nem.errors import ArgumentError, ModelError

Maps: TypeAlias = Tensor | NDArray[np.floating[Any]]
"""What is judged: tensors, or arrays as `Explanation.mask`."""
Score = Callable[[Tensor, Tensor], Tensor]
"""What is watched: (pictures (M, C, H, W), owner (M,)) -> (M,), or (M, K) for K scores at once.
`owner` says of which picture of the batch each one is a version."""

_MOST = 64
"""More pictures per run gain nothing on a CPU."""


def class_score(backbone: Backbone, x: Tensor, target: Tensor | None = None) -> Score:
    """The probability (softmax) of a class.

    Args:
        backbone: the model, with classes.
        x: the whole pictures, normalised (N, 3, S, S).
        target: (N,) int64; below 0, or None, the most probable class of the whole picture.

    Raises:
        ModelError: the model has no classes.
        ArgumentError: a target that is no class.
    """
    both = class_and_embedding_score(backbone, x, target)
    return lambda pictures, owner: both(pictures, owner)[:, 0]


def embedding_score(backbone: Backbone, x: Tensor) -> Score:
    """The cosine between the embeddings of the changed and the whole picture."""
    whole = torch.cat([_embed(backbone, part) for part in torch.split(x, _MOST)])

    def score(pictures: Tensor, owner: Tensor) -> Tensor:
        return torch.cosine_similarity(_embed(backbone, pictures), whole[owner], dim=1)

    return score


def class_and_embedding_score(backbone: Backbone, x: Tensor, target: Tensor | None = None) -> Score:
    """`class_score` and `embedding_score` from the same runs of the model, (M, 2)."""
    if backbone.num_classes == 0:
        raise ModelError(
            f"backbone {backbone.name}: no classes to score; take embedding_score, or a model "
            "with a classifier"
        )
    parts = [_both(backbone, part) for part in torch.split(x, _MOST)]
    whole = torch.cat([embedding for _, embedding in parts])
    best = torch.cat([probabilities.argmax(1) for probabilities, _ in parts])
    chosen = best if target is None else torch.where(target.to(best) < 0, best, target.to(best))
    if int(chosen.max()) >= backbone.num_classes:
        raise ArgumentError(
            f"target {int(chosen.max())}: the model has classes 0 to {backbone.num_classes - 1}"
        )

    def score(pictures: Tensor, owner: Tensor) -> Tensor:
        probabilities, embedding = _both(backbone, pictures)
        probability = probabilities.gather(1, chosen[owner, None])[:, 0]
        return torch.stack(
            [probability, torch.cosine_similarity(embedding, whole[owner], dim=1)], dim=1
        )

    return score


def as_tensor(maps: Maps) -> Tensor:
    """The maps as a tensor, of an array a copy."""
    return maps if isinstance(maps, Tensor) else torch.tensor(maps)


def score_versions(
    score: Score,
    version: Callable[[Tensor, Tensor], Tensor],
    count: int,
    versions: int,
    x: Tensor,
    memory_mb: int,
) -> Tensor:
    """Scores of `versions` changed copies of each picture, in parts that fit.

    Args:
        score: what is watched.
        version: (owner (M,), number (M,)) -> pictures (M, C, H, W): the changed copies.
        count: pictures.
        versions: copies of each.
        x: the whole pictures, for their size and device.
        memory_mb: bound for the copies seen at once and the model's work on them.

    Returns:
        (count, versions), or (count, versions, K).
    """
    part = min(_MOST, pictures_per_run(x, memory_mb))
    scores = []
    for places in torch.split(torch.arange(count * versions, device=x.device), part):
        owner, number = places // versions, places % versions
        scores.append(score(version(owner, number), owner))
    flat = torch.cat(scores)
    return flat.view(count, versions, *flat.shape[1:])


@torch.no_grad()
def _embed(backbone: Backbone, pictures: Tensor) -> Tensor:
    return backbone.embed(pictures).double()


@torch.no_grad()
def _both(backbone: Backbone, pictures: Tensor) -> tuple[Tensor, Tensor]:
    features = backbone(pictures)
    assert features.logits is not None
    return features.logits.softmax(1).double(), features.embedding.double()
