"""The single pass: a frozen backbone and a decoder on top of its pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nem.backbone import Backbone, Features
from nem.class_layers import Classes, tabulate_
from nem.decoder import build_decoder
from nem.explanation import Aim
from nem.layers import enlarge
from nem.smoothing import kernel_size, swna

SMOOTHED: tuple[Aim, ...] = ("class", "target")
"""Aims whose masks are averaged over neighbourhoods, see `nem.smoothing`."""


class Output(NamedTuple):
    """What one pass gives.

    Attributes:
        maps: by aim, in the model's order, (N, 1, S, S), S the input side. embedding, class and
            target are in [0, 1], 1 = important; ranking is unbounded, only its order counts.
        logits: (N, classes), or None for a model without a classifier.
        embedding: (N, D), the features before the classifier.
    """

    maps: dict[Aim, Tensor]
    logits: Tensor | None
    embedding: Tensor

    @property
    def mask(self) -> Tensor:
        """The map of the first aim."""
        return next(iter(self.maps.values()))


class NEM(nn.Module):
    """Neural explanation masks: backbone and decoder, run once each per batch.

    Args:
        backbone: the frozen model to be explained.
        kind: decoder kind, "lite" or "paper".
        aims: what the heads explain; the first one is the default.
        **kwargs: options of the decoder.
    """

    def __init__(
        self,
        backbone: Backbone,
        kind: str = "lite",
        aims: Sequence[Aim] = ("embedding",),
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder_kind, self.decoder_kwargs = kind, kwargs
        self.decoder = build_decoder(kind, backbone, aims, **kwargs)
        self.aims = self.decoder.aims
        self.kernel = kernel_size(backbone.input_size)

    def forward(self, x: Tensor, target: Tensor | None = None) -> Output:
        """Explain normalised pictures.

        Args:
            x: float (N, 3, S, S) with S = `backbone.input_size`.
            target: int64 (N,), the class the target head explains; below 0, or None, the most
                probable one.
        """
        return self.explain(self.backbone(x), x, target)

    def explain(
        self,
        features: Features,
        x: Tensor,
        target: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Output:
        """As `forward`, from what the backbone gave for `x`.

        `generator` is of the smoothing's random kernels in training, on the device of `x`.
        """
        size = self.backbone.input_size
        maps: dict[Aim, Tensor] = {}
        # Each map by itself, so that a runtime can leave out what no one asks for. In float32 also
        # under autocast: 16 bits are too coarse near 1.
        for aim, logits in self._draw(features, x, target).items():
            if aim in SMOOTHED:
                small = logits.float().sigmoid()
                maps[aim] = swna(small, self.kernel, generator, training=self.training, size=size)
            else:
                maps[aim] = enlarge(logits, size).float()
        if "embedding" in maps:
            maps["embedding"] = maps["embedding"].sigmoid()
        return Output({aim: maps[aim] for aim in self.aims}, features.logits, features.embedding)

    def mask_logits(self, x: Tensor) -> Tensor:
        """The first aim's map before the sigmoid, unbounded (N, 1, S, S)."""
        return enlarge(self._draw(self.backbone(x), x, None)[self.aims[0]], x.shape[-1])

    def _draw(self, features: Features, x: Tensor, target: Tensor | None) -> dict[Aim, Tensor]:
        classes = None
        if self.decoder.reads_classes:
            assert features.logits is not None
            decided, asked = features.logits.argmax(1), None
            if target is not None and "target" in self.aims:
                asked = torch.where(target < 0, decided, target)
            classes = Classes(self.backbone.class_rows(), features.logits, decided, asked)
        logits: dict[Aim, Tensor] = self.decoder(features.pyramid, x, classes)
        return logits

    def tabulate_(self) -> None:
        """Look up what depends on the class alone: for use only, where no weight changes."""
        if self.decoder.reads_classes:
            tabulate_(self.decoder, self.backbone.class_rows())
