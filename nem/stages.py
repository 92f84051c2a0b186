"""Where the maps of a timm model are made, and maps from the layouts that models work in.

A stage's output may be (N, C, H, W), (N, H, W, C) (Swin), or tokens (N, T, C), prefix tokens first
(ViT).
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

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


def final_layout(backbone: Backbone) -> Layout:
    """The layout of what `forward_features` gives and `forward_head` takes, as timm tells it."""
    model: Any = backbone.model
    last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    return Layout(int(getattr(model, "num_prefix_tokens", 0)), last)


_LAYOUTS: WeakKeyDictionary[Backbone, dict[str, Layout]] = WeakKeyDictionary()


def layout_of(backbone: Backbone, layer: str | None = None) -> Layout:
    """The layout of a stage, found by comparing its output with its map in one run, and kept.

    Args:
        backbone: the model.
        layer: name of the stage; any other layer, and None, stands for the last stage; but a
            layer for itself where timm names a stage that is not there.

    Raises:
        ModelError: the stage gives no tensor, or places in an order of its own.
    """
    names = stage_names(backbone)
    level = names.index(layer) if layer in names else -1
    name = names[level]
    if layer is not None and not has_layer(backbone, name):
        name = layer
    known = _LAYOUTS.setdefault(backbone, {})
    if name not in known:
        known[name] = _find_layout(backbone, name, level)
    return known[name]


@torch.no_grad()
def _find_layout(backbone: Backbone, name: str, level: int) -> Layout:
    seen: list[Any] = []
    like = next(backbone.parameters())
    side, generator = backbone.input_size, torch.Generator().manual_seed(0)
    picture = torch.randn(1, 3, side, side, generator=generator)
    with find_stage(backbone, name).register_forward_hook(lambda *run: seen.append(run[-1])):
        drawn = backbone(picture.to(like)).pyramid[level]
    output = seen[-1] if seen else None
    found = _compare(output, drawn) if isinstance(output, Tensor) else None
    if found is None:
        raise ModelError(
            f"backbone {backbone.name}: its stage {name} lays its map out in a way of its own; "
            "take a method that needs no layer, as nem-u, relax or rise"
        )
    return found


def _compare(output: Tensor, drawn: Tensor) -> Layout | None:
    """The layout in which a stage's output is the map (1, C, H, W), or None."""
    height, width = drawn.shape[2:]
    guesses = [Layout(0, False), Layout(0, True)]
    if output.ndim == 3:
        prefix = output.shape[1] - height * width
        guesses = [Layout(prefix, False)] if prefix >= 0 and height == width else []
    found = {guess: guess.split(output)[0] for guess in guesses}
    found = {guess: values for guess, values in found.items() if values.shape == drawn.shape}
    for guess, values in found.items():
        if torch.equal(values, drawn):
            return guess
    for guess, values in found.items():
        # A norm may lie between the two; but the same values elsewhere are another order of places.
        same = torch.equal(values.flatten().sort().values, drawn.flatten().sort().values)
        return None if same else guess
    return None


def stage_names(backbone: Backbone) -> list[str]:
    """Names of the modules whose outputs are the pyramid's maps, fine to coarse."""
    model: Any = backbone.model
    names = [str(info["module"]) for info in model.feature_info]
    return [names[index] for index in backbone.indices]


def has_layer(backbone: Backbone, name: str) -> bool:
    """Whether the model has a module of this name."""
    return name in dict(backbone.model.named_modules())


def find_stage(backbone: Backbone, name: str) -> nn.Module:
    """A module of the model by its name.

    Raises:
        ModelError: no such module.
    """
    try:
        return backbone.model.get_submodule(name)
    except AttributeError:
        known = stage_names(backbone)
        told = f"its stages are {', '.join(known)}"
        if name in known:
            told = "though timm says so; name another"
            told += " layer, as norm" if has_layer(backbone, "norm") else ""
        raise ModelError(f"backbone {backbone.name}: no layer {name!r}; {told}") from None
