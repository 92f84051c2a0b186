"""Is a map steady under noise, and does it depend on the model at all? torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nem.backbone import Backbone
from nem.errors import ArgumentError
from nem.model import NEM


class Sensitivity(NamedTuple):
    """Change of the map per change of the picture, (N,): mean and largest over the samples."""

    average: Tensor
    maximum: Tensor


def sensitivity(
    explain: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    samples: int = 10,
    radius: float = 0.2,
    seed: int = 0,
) -> Sensitivity:
    """How far a map moves when its picture is slightly noisy (Yeh et al. 2019). Lower is better.

    ||e(x + d) - e(x)|| / ||x|| with d uniform in [-radius, radius] per value, Frobenius norms. The
    map's scale counts, so compare maps of one scale (`nem.metrics.min_max`).

    Args:
        explain: normalised pictures (N, C, H, W) to maps (N, ...), for a class that stays the same.
        x: the pictures.
        samples: how many noises, the same ones for each picture.
        radius: in normalised units.
        seed: of the noise.

    Raises:
        ArgumentError: no sample.
    """
    if samples < 1:
        raise ArgumentError(f"samples {samples}: expected at least 1")
    generator = torch.Generator().manual_seed(seed)
    clean = explain(x)
    size = x.flatten(1).double().norm(dim=1).clamp_min(1e-12)
    moved = []
    for _ in range(samples):
        noise = torch.empty(x.shape[1:]).uniform_(-radius, radius, generator=generator)
        change = (explain(x + noise.to(x)) - clean).flatten(1).double()
        moved.append(change.norm(dim=1) / size)
    every = torch.stack(moved)
    return Sensitivity(every.mean(0).float(), every.amax(0).float())


def mprt(
    explain: Callable[[Backbone], Tensor], backbone: Backbone, *, stages: int = 5, seed: int = 0
) -> Tensor:
    """Model parameter randomisation test (Adebayo et al. 2018). Lower is better.

    Spearman's correlation between the map of the model and the maps of the model with its weights
    lost, from the classifier downwards. 1 says that the map does not depend on the model. What is
    returned leaves out the model itself, whose 1 would only lift an average.

    Args:
        explain: the maps (N, ...) of the same pictures and classes for a given backbone; a slow
            method, or `lambda b: with_backbone(model, b)(x, target).maps[aim]`.
        backbone: the model.
        stages: of equally many layers, one more is lost in each, all in the last one.
        seed: of the random weights.

    Returns:
        (stages, N).

    Raises:
        ArgumentError: no stage, or more than the model has layers.
    """
    original = explain(backbone)
    return torch.stack(
        [spearman(original, explain(lost)) for lost in randomised(backbone, stages, seed)]
    )


def randomised(backbone: Backbone, stages: int = 5, seed: int = 0) -> Iterator[Backbone]:
    """Copies of a backbone that lost the weights of its last layers, more with each copy."""
    modules = backbone.named_modules()
    names = [name for name, layer in modules if list(layer.parameters(recurse=False))]
    if not 1 <= stages <= len(names):
        raise ArgumentError(f"stages {stages}: expected 1 to {len(names)}, the model's layers")
    lost = copy.deepcopy(backbone)
    device = next(lost.parameters()).device
    names.reverse()
    for stage in range(stages):
        first, last = (len(names) * (stage + i) // stages for i in (0, 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + stage)
            lost.cpu()  # so that the numbers don't depend on the device
            for name in names[first:last]:
                _reset(lost.get_submodule(name))
            lost.to(device)
        yield copy.deepcopy(lost)


def with_backbone(model: NEM, backbone: Backbone) -> NEM:
    """The same decoder on another backbone of the same architecture; `model` stays as it is."""
    rebuilt = copy.copy(model)
    # A shallow copy shares the dictionary of modules, and with it the assignment.
    rebuilt._modules = dict(model._modules)
    rebuilt.backbone = backbone
    return rebuilt


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Rank correlation of maps (N, ...), (N,); ties share their mean rank.

    Where both are constant, one stands for the other: 1. Where only one is: 0. NaN where a map has
    a NaN, which has no rank.
    """
    return torch.stack(
        [_spearman(r, s) for r, s in zip(a.flatten(1), b.flatten(1), strict=True)]
    ).float()


def _spearman(a: Tensor, b: Tensor) -> Tensor:
    if a.isnan().any() or b.isnan().any():
        return torch.tensor(torch.nan, dtype=torch.float64, device=a.device)
    ra, rb = _mean_ranks(a), _mean_ranks(b)
    size: Tensor = ra.norm() * rb.norm()
    if size == 0:
        return torch.as_tensor(1.0 if ra.norm() == rb.norm() else 0.0).to(size)
    correlation: Tensor = (ra * rb).sum() / size
    return correlation


def _mean_ranks(a: Tensor) -> Tensor:
    """Ranks less their mean; equal values share theirs."""
    _, place, count = torch.unique(a, return_inverse=True, return_counts=True)
    rank = count.cumsum(0).double() - (count - 1) / 2
    centred: Tensor = rank[place] - (len(a) + 1) / 2
    return centred


def _reset(layer: nn.Module) -> None:
    """Give one layer the weights of a new one."""
    again = getattr(layer, "reset_parameters", None)
    if callable(again):
        again()
        return
    for weights in layer.parameters(recurse=False):  # as a ViT's tokens and places
        mean, spread = weights.data.mean(), weights.data.std(unbiased=False)
        weights.data.normal_().mul_(spread).add_(mean)
