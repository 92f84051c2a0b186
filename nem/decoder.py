"""Decoders: the frozen backbone's pyramid in, one map of logits per head out.

`PaperDecoder` is the U-Net of NEM and draws at the input's size, of token maps at stride 4;
`LiteDecoder` draws at a coarser stride for a small part of the cost. Both take the pyramid fine to
coarse, compute one set of features for all heads, and give logits (N, 1, h, w) per head.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nem.backbone import Backbone
from nem.class_layers import Classes
from nem.errors import ModelError
from nem.explanation import Aim
from nem.guide import ClassGuide
from nem.heads import Decoder
from nem.layers import TOKEN_STRIDES, TokenPyramid, conv_block

PAPER_CHANNELS = (256, 128, 64, 32, 16)


class PaperDecoder(Decoder):
    """The U-Net decoder of NEM: double convolutions of 256, 128, 64, 32, 16 channels.

    From the coarsest map up, each block doubles the size (nearest), joins the map of that stride
    where the backbone has one, and applies [3x3 convolution, BatchNorm, SiLU] twice. On resnet50
    it has 9,012,945 parameters, 9,013,377 with `image_skip`. For token maps it stops at stride 4.

    Args:
        backbone: whose maps it reads.
        aims: what the heads explain.
        image_skip: join the picture itself at full size. Off by default: with it the mask can
            follow the picture and ignore the model.
        token_width: channels each token map of a ViT is reduced to.
    """

    def __init__(
        self,
        backbone: Backbone,
        aims: Sequence[Aim] = ("embedding",),
        *,
        image_skip: bool = False,
        token_width: int = 256,
    ) -> None:
        super().__init__(backbone, aims)
        size = self.size
        self.image_skip = image_skip
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
            inputs = width + skips.get(stride, 0)
            blocks.append(
                nn.Sequential(*conv_block(inputs, out, nn.SiLU), *conv_block(out, out, nn.SiLU))
            )
            self.sizes.append(-(-size // stride))
            self.strides.append(stride)
            width = out
        self.levels = strides
        self.blocks = nn.ModuleList(blocks)
        self.finish(backbone, width)

    def trunk(self, pyramid: list[Tensor], image: Tensor, classes: Classes | None) -> Tensor:
        """See `Decoder.trunk`; at full size, for token maps at stride 4."""
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
        return x


class LiteDecoder(Decoder):
    """A feature pyramid that draws at a coarse stride and is interpolated to the input size.

    Each map is reduced to `width` channels (1x1 convolution, BatchNorm). The coarsest also gets
    the mean of the whole map, so that every place knows what the picture shows. From there up,
    maps are doubled (nearest), added to the next finer one, and mixed by one dense 3x3
    convolution: few and wide operations, which run fast on a CPU. Lin et al. 2017 (FPN); stride
    4 as in Dabkowski and Gal 2017. With heads that explain classes, the row of the decided class
    guides it (`nem.guide`).

    Args:
        backbone: whose maps it reads.
        aims: what the heads explain.
        width: channels of the pyramid.
        stride: input pixels per mask pixel before interpolation: 2, 4 or 8; None: 4 or, where the
            maps are coarser, 8.
        guide: let the decided class guide; None: where there are such heads and the classifier is
            linear.
    """

    def __init__(
        self,
        backbone: Backbone,
        aims: Sequence[Aim] = ("embedding",),
        *,
        width: int = 64,
        stride: int | None = None,
        guide: bool | None = None,
    ) -> None:
        super().__init__(backbone, aims)
        if width < 1:
            raise ModelError(f"decoder width {width}: at least 1 is needed")
        self.tokens, channels, strides = _levels(backbone, width)
        allowed = [s for s in strides if s in (2, 4, 8)]
        if stride is None:
            stride = next((s for s in allowed if s >= 4), 4)
        if stride not in allowed:
            can = f"allows {allowed}" if allowed else f"has maps of strides {list(strides)} only"
            raise ModelError(
                f"decoder lite, stride {stride}: {backbone.name} {can}; or take the decoder paper"
            )
        self.first = strides.index(stride)
        self.context = nn.Conv2d(channels[-1], width, 1)
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width))
            for c in channels[self.first :]
        )
        self.mix = nn.ModuleList(
            nn.Sequential(nn.ReLU(), *conv_block(width, width, nn.ReLU)) for _ in self.lateral
        )
        if guide is None:
            guide = bool(set(aims) - {"embedding"}) and backbone.has_class_rows
        self.guide: ClassGuide | None = None
        if guide:
            dims = backbone.class_rows().shape[1]
            self.guide = ClassGuide(dims, channels[-1], width, len(self.lateral))
        self.finish(backbone, width, lead=guide)

    @property
    def reads_classes(self) -> bool:
        """See `Decoder.reads_classes`."""
        return self.guide is not None or super().reads_classes

    def trunk(self, pyramid: list[Tensor], image: Tensor, classes: Classes | None) -> Tensor:
        """See `Decoder.trunk`; the picture is not looked at."""
        maps = list((pyramid if self.tokens is None else self.tokens(pyramid))[self.first :])
        x: Tensor = self.context(maps[-1].mean((2, 3), keepdim=True))
        steps: Sequence[tuple[Tensor, Tensor] | None] = [None] * len(maps)
        if self.guide is not None:
            assert classes is not None
            coarse, steps = self.guide(classes.rows, classes.decided)
            maps[-1] = maps[-1] * coarse
        levels = zip(reversed(maps), reversed(self.lateral), reversed(self.mix), steps, strict=True)
        for depth, (features, lateral, mix, step) in enumerate(levels):
            if depth and x.shape[2:] != features.shape[2:]:
                x = F.interpolate(x, size=features.shape[2:], mode="nearest")
            x = lateral(features) + x
            x = mix(x if step is None else x * step[0] + step[1])
        return x


def build_decoder(
    kind: str, backbone: Backbone, aims: Sequence[Aim] = ("embedding",), **kwargs: Any
) -> Decoder:
    """A decoder for `backbone`.

    Args:
        kind: "lite" or "paper".
        backbone: whose channels, strides and input size it is made for.
        aims: what the heads explain.
        **kwargs: options of the class; an unknown one is refused.

    Raises:
        ModelError: unknown kind or option, or one the backbone can't serve.
    """
    kinds: dict[str, type[Decoder]] = {"lite": LiteDecoder, "paper": PaperDecoder}
    if kind not in kinds:
        raise ModelError(f"decoder {kind!r}: allowed are {', '.join(kinds)}")
    options = set(inspect.signature(kinds[kind]).parameters) - {"backbone", "aims"}
    if unknown := sorted(kwargs.keys() - options):
        raise ModelError(
            f"decoder {kind}: no option {', '.join(unknown)}; allowed are {sorted(options)}"
        )
    return kinds[kind](backbone, aims, **kwargs)


def _levels(
    backbone: Backbone, token_width: int
) -> tuple[TokenPyramid | None, tuple[int, ...], tuple[int, ...]]:
    """Token reducer (or None), channels and strides of the pyramid a decoder gets to see."""
    if backbone.is_pyramid:
        return None, backbone.channels, backbone.strides
    tokens = TokenPyramid(backbone.channels, token_width, backbone.input_size)
    return tokens, (token_width,) * len(TOKEN_STRIDES), TOKEN_STRIDES
