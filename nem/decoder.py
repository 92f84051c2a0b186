"""Decoders: the frozen backbone's pyramid in, one map of mask logits out.

`PaperDecoder` is the U-Net of NEM; `LiteDecoder` draws at a coarser stride for a small part of
the cost. Both take the pyramid fine to coarse and give logits (N, 1, S, S), S the input side.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nem.backbone import Backbone
from nem.errors import ModelError

PAPER_CHANNELS = (256, 128, 64, 32, 16)
TOKEN_STRIDES = (4, 8, 16, 32)


class TokenPyramid(nn.Module):
    """Makes a pyramid of a ViT's token maps, which all have the patch size as stride.

    Each map goes through its own 1x1 convolution to `width` channels and is resized to stride
    4, 8, 16 or 32, early blocks to fine strides. Bilinear by a factor of two down is the mean.
    """

    def __init__(self, channels: tuple[int, ...], width: int, input_size: int) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.sizes = [-(-input_size // stride) for stride in TOKEN_STRIDES]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Token maps, early to late, to maps of strides 4, 8, 16, 32, all `width` channels."""
        return [
            resize(reduce(tokens), size)
            for reduce, tokens, size in zip(self.reduce, maps, self.sizes, strict=True)
        ]


class PaperDecoder(nn.Module):
    """The U-Net decoder of NEM: double convolutions of 256, 128, 64, 32, 16 channels.

    From the coarsest map up, each block doubles the size (nearest), joins the map of that stride
    where the backbone has one, and applies [3x3 convolution, BatchNorm, SiLU] twice. On resnet50
    it has 9,012,945 parameters, 9,013,377 with `image_skip`. For token maps it stops at stride 4.

    Args:
        backbone: whose maps it reads.
        image_skip: join the picture itself at full size. Off by default: with it the mask can
            follow the picture and ignore the model.
        token_width: channels each token map of a ViT is reduced to.
    """

    def __init__(
        self, backbone: Backbone, *, image_skip: bool = False, token_width: int = 256
    ) -> None:
        super().__init__()
        size = backbone.input_size
        self.size, self.image_skip = size, image_skip
        self.tokens, channels, strides = _levels(backbone, token_width)
        if self.tokens is not None and image_skip:
            raise ModelError("image_skip: not for token maps, whose decoder stops at stride 4")
        skips = dict(zip(strides, channels, strict=True))
        if image_skip:
            skips[1] = skips.get(1, 0) + 3
        last = TOKEN_STRIDES[0] if self.tokens is not None else 1
        stride, width = strides[-1], channels[-1]
        blocks: list[nn.Module] = []
        self.sizes: list[int] = []
        self.strides: list[int] = []
        while stride > last:
            stride //= 2
            out = PAPER_CHANNELS[min(len(blocks), len(PAPER_CHANNELS) - 1)]
            blocks.append(nn.Sequential(
                *_conv(width + skips.get(stride, 0), out, nn.SiLU), *_conv(out, out, nn.SiLU)
            ))  # fmt: skip
            self.sizes.append(-(-size // stride))
            self.strides.append(stride)
            width = out
        self.levels = strides
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Conv2d(width, 1, 1)
        _initialise(self)

    def forward(self, pyramid: list[Tensor], image: Tensor) -> Tensor:
        """Mask logits (N, 1, S, S) of maps (fine to coarse) and the normalised picture."""
        maps = pyramid if self.tokens is None else self.tokens(pyramid)
        skips = dict(zip(self.levels, maps, strict=True))
        x = maps[-1]
        for block, size, stride in zip(self.blocks, self.sizes, self.strides, strict=True):
            skip = skips.get(stride)
            shape = (size, size) if skip is None else skip.shape[2:]
            parts = [F.interpolate(x, size=shape, mode="nearest")]
            if skip is not None:
                parts.append(skip)
            if stride == 1 and self.image_skip:
                parts.append(image)
            x = block(torch.cat(parts, 1) if len(parts) > 1 else parts[0])
        return enlarge(self.head(x), self.size)


class LiteDecoder(nn.Module):
    """A feature pyramid that draws at a coarse stride and is interpolated to the input size.

    Each map is reduced to `width` channels (1x1 convolution, BatchNorm). The coarsest also gets
    the mean of the whole map, so that every place knows what the picture shows. From there up,
    maps are doubled (nearest), added to the next finer one, and mixed by one dense 3x3
    convolution: few and wide operations, which run fast on a CPU. Lin et al. 2017 (FPN); stride
    4 as in Dabkowski and Gal 2017.

    Args:
        backbone: whose maps it reads.
        width: channels of the pyramid.
        stride: input pixels per mask pixel before interpolation: 2, 4 or 8.
    """

    def __init__(self, backbone: Backbone, *, width: int = 64, stride: int = 4) -> None:
        super().__init__()
        if width < 1:
            raise ModelError(f"decoder width {width}: at least 1 is needed")
        self.size = backbone.input_size
        self.tokens, channels, strides = _levels(backbone, width)
        allowed = [s for s in strides if s in (2, 4, 8)]
        if stride not in allowed:
            raise ModelError(f"decoder stride {stride}: {backbone.name} allows {allowed}")
        self.first = strides.index(stride)
        self.context = nn.Conv2d(channels[-1], width, 1)
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width))
            for c in channels[self.first :]
        )
        self.mix = nn.ModuleList(
            nn.Sequential(nn.ReLU(), *_conv(width, width, nn.ReLU)) for _ in self.lateral
        )
        self.head = nn.Conv2d(width, 1, 1)
        _initialise(self)

    def forward(self, pyramid: list[Tensor], image: Tensor) -> Tensor:
        """Mask logits (N, 1, S, S) of maps (fine to coarse); the picture is not looked at."""
        maps = (pyramid if self.tokens is None else self.tokens(pyramid))[self.first :]
        x = self.context(maps[-1].mean((2, 3), keepdim=True))
        levels = list(zip(maps, self.lateral, self.mix, strict=True))
        for depth, (features, lateral, mix) in enumerate(reversed(levels)):
            if depth and x.shape[2:] != features.shape[2:]:
                x = F.interpolate(x, size=features.shape[2:], mode="nearest")
            x = mix(lateral(features) + x)
        return enlarge(self.head(x), self.size)


def build_decoder(kind: str, backbone: Backbone, **kwargs: Any) -> nn.Module:
    """A decoder for `backbone`.

    Args:
        kind: "lite" or "paper".
        backbone: whose channels, strides and input size it is made for.
        **kwargs: options of the class; an unknown one is refused.

    Raises:
        ModelError: unknown kind or option, or one the backbone can't serve.
    """
    kinds: dict[str, type[nn.Module]] = {"lite": LiteDecoder, "paper": PaperDecoder}
    if kind not in kinds:
        raise ModelError(f"decoder {kind!r}: allowed are {', '.join(kinds)}")
    options = set(inspect.signature(kinds[kind]).parameters) - {"backbone"}
    if unknown := sorted(kwargs.keys() - options):
        raise ModelError(
            f"decoder {kind}: no option {', '.join(unknown)}; allowed are {sorted(options)}"
        )
    return kinds[kind](backbone, **kwargs)


def enlarge(x: Tensor, size: int) -> Tensor:
    """Bilinear interpolation of one channel, (N, 1, L, L) to (N, 1, size, size).

    The same numbers as `F.interpolate(align_corners=False)`, as two matrix products: on a single
    channel that operator leaves a CPU's vector lanes empty and costs more than any convolution.
    """
    length = x.shape[-1]
    if length == size:
        return x
    pixel = torch.arange(length, device=x.device)
    out = torch.arange(size, device=x.device)
    centre = ((out + 0.5) * (length / size) - 0.5).clamp(0, length - 1)
    weights = (1 - (centre[:, None] - pixel).abs()).clamp(min=0).to(x.dtype)
    return weights @ x @ weights.T


def resize(x: Tensor, size: int) -> Tensor:
    """Bilinear to (size, size); nothing is added to the graph when it has that size."""
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def _levels(
    backbone: Backbone, token_width: int
) -> tuple[TokenPyramid | None, tuple[int, ...], tuple[int, ...]]:
    """Token reducer (or None), channels and strides of the pyramid a decoder gets to see."""
    if backbone.is_pyramid:
        return None, backbone.channels, backbone.strides
    tokens = TokenPyramid(backbone.channels, token_width, backbone.input_size)
    return tokens, (token_width,) * len(TOKEN_STRIDES), TOKEN_STRIDES


def _conv(inputs: int, outputs: int, activation: type[nn.Module]) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), activation()]


def _initialise(decoder: nn.Module) -> None:
    """Kaiming-normal convolutions, zero biases, BatchNorm at 1 and 0."""
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
