"""Where the maps of a timm model are made, and maps from the layouts that models work in.

A stage's output may be (N, C, H, W), (N, H, W, C) (Swin), or tokens (N, T, C), prefix tokens first
(ViT).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nem.backbone import Backbone
from nem.errors import ModelError


class Layout(NamedTuple):
    """How a stage lays out its output.

    Attributes:
        prefix: tokens before those of the picture (class token, registers).
        channels_last: four dimensions, the channels the last of them.
    """

    prefix: int
    channels_last: bool

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """A map (N, C, H, W), and the prefix tokens (N, P, C) or None."""
        if output.ndim == 4:
            return (output.permute(0, 3, 1, 2) if self.channels_last else output), None
        tokens = output[:, self.prefix :]
        n, count, channels = tokens.shape
        side = round(count**0.5)
        drawn = tokens.transpose(1, 2).reshape(n, channels, side, side)
        return drawn, (output[:, : self.prefix] if self.prefix else None)

    def join(self, drawn: Tensor, prefix: Tensor | None, ndim: int) -> Tensor:
        """The inverse of `split`, for an output of `ndim` dimensions."""
        if ndim == 4:
            return drawn.permute(0, 2, 3, 1) if self.channels_last else drawn
        tokens = drawn.flatten(2).transpose(1, 2)
        return tokens if prefix is None else torch.cat([prefix, tokens], 1)


def layout_of(backbone: Backbone) -> Layout:
    """The layout of a backbone's stages."""
    model: Any = backbone.model
    last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    return Layout(int(getattr(model, "num_prefix_tokens", 0)), last)


def stage_names(backbone: Backbone) -> list[str]:
    """Names of the modules whose outputs are the pyramid's maps, fine to coarse."""
    model: Any = backbone.model
    names = [str(info["module"]) for info in model.feature_info]
    return [names[index] for index in backbone.indices]


def find_stage(backbone: Backbone, name: str) -> nn.Module:
    """A module of the model by its name.

    Raises:
        ModelError: no such module.
    """
    try:
        return backbone.model.get_submodule(name)
    except AttributeError:
        raise ModelError(
            f"backbone {backbone.name}: no layer {name!r}; its stages are "
            f"{', '.join(stage_names(backbone))}"
        ) from None
