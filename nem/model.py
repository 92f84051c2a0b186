"""The single pass: a frozen backbone and a decoder on top of its pyramid."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from nem.backbone import Backbone
from nem.decoder import build_decoder


class Output(NamedTuple):
    """What one pass gives.

    Attributes:
        mask: (N, 1, S, S) in [0, 1], S the input side; 1 = kept = important.
        logits: (N, classes), or None for a model without a classifier.
        embedding: (N, D), the features before the classifier.
    """

    mask: Tensor
    logits: Tensor | None
    embedding: Tensor


class NEM(nn.Module):
    """Neural explanation masks: backbone and decoder, run once each per batch.

    Args:
        backbone: the frozen model to be explained.
        kind: decoder kind, "lite" or "paper".
        **kwargs: options of the decoder.
    """

    def __init__(self, backbone: Backbone, kind: str = "lite", **kwargs: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder_kind, self.decoder_kwargs = kind, kwargs
        self.decoder = build_decoder(kind, backbone, **kwargs)

    def forward(self, x: Tensor) -> Output:
        """Explain normalised pictures, float (N, 3, S, S) with S = `backbone.input_size`."""
        features = self.backbone(x)
        # In float32 also under autocast: 16 bits are too coarse near 1.
        mask = self.decoder(features.pyramid, x).float().sigmoid()
        return Output(mask, features.logits, features.embedding)

    def mask_logits(self, x: Tensor) -> Tensor:
        """The mask before the sigmoid, unbounded (N, 1, S, S)."""
        logits: Tensor = self.decoder(self.backbone(x).pyramid, x)
        return logits
