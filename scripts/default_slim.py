"""Cut a smaller model out of a trained one, for `scripts/train_default --slim`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch_pruning
from torch import Tensor, nn

from nem.errors import ModelError
from scripts.default_backbone import BackboneConfig


class Cut(NamedTuple):
    """Weights of the smaller backbone, and which channels of each stage it has, in order."""

    state: dict[str, Tensor]
    kept: list[Tensor]


def cut_backbone(model: nn.Module, config: BackboneConfig, num_classes: int) -> Cut:
    """Weights for the backbone of `config`, taken from a larger timm ResNet with the same stem.

    Of each stage the last blocks go, which only add to what comes before them, and the channels
    with the smallest weights, together in all layers that share them (Fang et al. 2023, DepGraph).
    What is left computes something else than before and has to be trained.

    Args:
        model: unchanged.
        config: what is wanted.
        num_classes: of both.

    Raises:
        ModelError: `model` is no such ResNet, or is smaller somewhere.
    """
    model = copy.deepcopy(model).cpu().eval().requires_grad_(True)
    stages = [getattr(model, f"layer{i + 1}", None) for i in range(len(config.channels))]
    if not all(isinstance(stage, nn.Sequential) for stage in stages):
        raise ModelError(f"to cut {config.model} out of: expected a timm ResNet, without stages")
    shares: dict[nn.Module, float] = {}
    for stage, blocks, channels in zip(stages, config.layers, config.channels, strict=True):
        width = stage[-1].bn2.num_features
        if blocks > len(stage) or channels > width:
            raise ModelError(
                f"to cut {config.model} out of: a stage has {len(stage)} blocks of {width} "
                f"channels; asked are {blocks} of {channels}"
            )
        del stage[blocks:]
        shares[stage] = 1 - channels / width
    ends = [stage[-1].bn2 for stage in stages]
    gone: dict[nn.Module, list[int]] = {end: [] for end in ends}
    widths = [end.num_features for end in ends]
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        torch.zeros(1, 3, 64, 64),
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.0,
        pruning_ratio_dict=shares,
        ignored_layers=[*model.conv1.modules(), model.bn1, model.get_classifier()],
    )
    for group in pruner.step(interactive=True):
        for dependency, channels in group:
            if dependency.target.module in gone:
                gone[dependency.target.module] = list(channels)
        group.prune()
    fresh = config.build(num_classes)
    try:
        fresh.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise ModelError(
            f"to cut {config.model} out of: {' '.join(str(error).split())[:200]}"
        ) from None
    kept = [
        torch.tensor([i for i in range(width) if i not in gone[end]])
        for width, end in zip(widths, ends, strict=True)
    ]
    return Cut(fresh.state_dict(), kept)


def cut_decoder(
    state: Mapping[str, Tensor], stages: list[tuple[int, Tensor]], width: int
) -> dict[str, Tensor]:
    """Weights of a `lite` decoder of `width` for a backbone that was cut.

    Every axis tells by its length what it runs over, alone or one after the other.

    Args:
        state: of the decoder for the whole backbone.
        stages: of that backbone: how many channels, and which were kept.
        width: of the decoder that is wanted: of its channels those of the largest weights.

    Raises:
        ModelError: `state` is of another decoder, is narrower, or two of its axes are as long.
    """
    if "context.bias" not in state:
        raise ModelError("to cut a decoder: expected that of a bundle with the decoder lite")
    before = len(state["context.bias"])
    coarse_length, coarse = stages[-1]
    guided = 2 * len(stages)  # a factor and a shift for each level
    lengths = [length for length, _ in stages]
    lengths += [before, before + 1, 2 * before, coarse_length + guided * before]
    if width > before or len(set(lengths)) < len(lengths):
        raise ModelError(
            f"to cut a decoder of width {width} out of one of {before} for maps of "
            f"{[length for length, _ in stages]} channels: expected a larger one, and axes of "
            f"different lengths, found {lengths}"
        )
    weight = torch.zeros(before)
    for tensor in state.values():
        for axis in range(tensor.ndim) if tensor.ndim == 4 else ():
            if tensor.shape[axis] == before:
                share = tensor.float().square().transpose(0, axis).flatten(1).sum(1)
                weight += share / share.sum()
    trunk = weight.topk(width).indices.sort().values
    places = dict(stages) | {before: trunk}
    places[before + 1] = torch.cat([trunk, torch.tensor([before])])  # and the evidence
    places[2 * before] = torch.cat([trunk, trunk + before])
    places[coarse_length + guided * before] = torch.cat(
        [coarse, *(trunk + coarse_length + i * before for i in range(guided))]
    )
    cut: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for axis, length in enumerate(tensor.shape[:2]):  # what follows are sides of kernels
            if length in places:
                tensor = tensor.index_select(axis, places[length])
        if name.startswith("target.filter."):
            tensor = tensor * (len(coarse) / coarse_length)  # that layer takes their mean
        cut[name] = tensor
    return cut
