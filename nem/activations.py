"""What is normal at a layer: mean and deviation of each activation over pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nem.backbone import Backbone
from nem.budget import pictures_per_run
from nem.data import collect, normalise
from nem.errors import DataError, ModelError
from nem.explained import check_pictures, parts
from nem.pictures import files_below, is_image
from nem.stages import find_stage, stage_names

MIDDLE_STRIDE = 8
"""Pixels per place at the layers that Schulz et al. take in VGG-16 and ResNet-50."""


class Statistics(NamedTuple):
    """Mean and deviation of each activation of a layer.

    Attributes:
        layer: name of the timm model's module.
        mean, std: float32, of the layer's output without the batch.
        pictures: how many they come from.
    """

    layer: str
    mean: Tensor
    std: Tensor
    pictures: int


def middle_layer(backbone: Backbone) -> str:
    """The last stage of a stride of at most 8; in a ViT the block nearest the middle.

    The strides of a ViT's blocks are all one.
    """
    names = stage_names(backbone)
    if not backbone.is_pyramid:
        return names[len(names) // 2 - 1]
    fine = [index for index, stride in enumerate(backbone.strides) if stride <= MIDDLE_STRIDE]
    return names[fine[-1] if fine else 0]


@torch.no_grad()
def activation_statistics(
    backbone: Backbone, pictures: Tensor, *, layer: str | None = None, memory_mb: int = 512
) -> Statistics:
    """Run pictures through the model and take mean and deviation of a layer's activations.

    Args:
        backbone: the model.
        pictures: normalised, float (M, 3, S, S), such as the model is used on and not those to be
            explained. M is at least 2; the authors of IBA take 10 000, and warn below 1 000.
        layer: name of the timm model's module; default `middle_layer`.
        memory_mb: bound for the memory of the pictures seen at once.

    Raises:
        ArgumentError: pictures that don't fit the model.
        DataError: fewer than 2 pictures.
        ModelError: no such layer, or one whose output is not a single tensor.
    """
    check_pictures(backbone, pictures)
    if len(pictures) < 2:
        raise DataError("statistics of 1 picture: at least 2 are needed, 1000 or more are better")
    layer = layer or middle_layer(backbone)
    like = next(backbone.parameters())
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    with captured(backbone, layer) as seen:
        for (part,) in parts(pictures_per_run(pictures, memory_mb), pictures):
            backbone.embed(part.to(like))
            values = seen.pop().double()
            # Parts are merged exactly (Chan et al. 1979).
            own, total = values.mean(0), count + len(part)
            step = own - mean.to(own)
            squares = squares.to(own) + (values - own).square().sum(0)
            squares = squares + step.square() * (count * len(part) / total)
            mean = mean.to(own) + step * (len(part) / total)
            count = total
    return Statistics(layer, mean.float(), (squares / (count - 1)).sqrt().float(), count)


def folder_statistics(
    backbone: Backbone, folder: Path | str, *, most: int = 1000, memory_mb: int = 512
) -> Statistics:
    """`activation_statistics` of the pictures in a folder, searched to the bottom.

    Args:
        backbone: the model.
        folder: of pictures such as the model is used on.
        most: if there are more, as many, spaced evenly.
        memory_mb: bound for the memory of the pictures seen at once.

    Raises:
        DataError: fewer than 2 readable pictures.
    """
    paths = files_below(Path(folder), is_image)
    if len(paths) < 2:
        raise DataError(f"{folder}: {len(paths)} pictures found, at least 2 are needed")
    spaced = np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int)
    found = collect([paths[i] for i in spaced], backbone.input_size)
    pixels = torch.from_numpy(np.stack([found.pixels(i) for i in range(len(found))]))
    pictures = normalise(pixels, backbone.mean, backbone.std)
    return activation_statistics(backbone, pictures, memory_mb=memory_mb)


@contextmanager
def captured(backbone: Backbone, layer: str) -> Iterator[list[Tensor]]:
    """Within it, each run of the model appends the layer's output to the list."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: object) -> None:
        if not isinstance(output, Tensor):
            raise ModelError(
                f"backbone {backbone.name}: layer {layer} gives {type(output).__name__}, expected "
                f"one tensor; its stages are {', '.join(stage_names(backbone))}"
            )
        seen.append(output.detach().clone())  # the model may go on in place

    with find_stage(backbone, layer).register_forward_hook(keep):
        yield seen
