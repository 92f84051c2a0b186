"""The quality gauge of a mask: does the model see in the kept part what it sees in the whole?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nem.config import Fill
from nem.data import normalise
from nem.masking import hide, random_like
from nem.model import NEM
from nem.pictures import squash


class Gauge(NamedTuple):
    """Per-picture figures, each (N,).

    Attributes:
        kept: cosine of the full and the kept embedding, the accuracy of NEM's appendix A.
        complement: cosine of the full and the hidden part's embedding.
        control: cosine of the full and a randomly placed part of the same values.
        area: mean of the mask, the complexity of NEM's appendix A.
    """

    kept: Tensor
    complement: Tensor
    control: Tensor
    area: Tensor


@torch.no_grad()
def gauge(
    model: NEM,
    x: Tensor,
    mask: Tensor | None = None,
    *,
    fill: Fill = "mean",
    generator: torch.Generator | None = None,
) -> Gauge:
    """Measure masks on the model they explain; four runs of the backbone.

    Args:
        model: the model, in eval mode.
        x: normalised pictures (N, 3, S, S).
        mask: (N, 1, S, S) in [0, 1]; default the model's own.
        fill: what replaces hidden pixels.
        generator: for noise and the control, on the device of `x`.
    """
    if mask is None:
        mask = model(x).mask
    embed = model.backbone.embed
    full = embed(x)
    return Gauge(
        kept=_cosine(full, embed(hide(x, mask, fill, generator))),
        complement=_cosine(full, embed(hide(x, 1 - mask, fill, generator))),
        control=_cosine(full, embed(hide(x, random_like(mask, generator), fill, generator))),
        area=mask.float().flatten(1).mean(1),
    )


@torch.no_grad()
def gauge_picture(
    model: NEM,
    picture: NDArray[np.uint8],
    mask: NDArray[np.float32],
    target: int | None = None,
    *,
    fill: Fill = "mean",
    seed: int = 0,
) -> dict[str, float]:
    """The gauge of one mask, from whatever method, on an RGB uint8 picture (H, W, 3).

    Args:
        model: the model.
        picture: of any size; squashed as in use.
        mask: (S, S) in [0, 1].
        target: the class that is explained, if one is.
        fill: what replaces hidden pixels.
        seed: of noise and control.

    Returns:
        Figures by the names of `Gauge`; with a target also its probability in the kept part,
        "alone".
    """
    backbone = model.backbone
    small = squash(picture, backbone.input_size)
    x = normalise(torch.from_numpy(small[None]), backbone.mean, backbone.std)
    generator = torch.Generator().manual_seed(seed)
    shown = torch.from_numpy(mask[None, None])
    found = gauge(model, x, shown, fill=fill, generator=generator)
    figures = {name: float(value) for name, value in found._asdict().items()}
    if target is not None:
        logits = backbone(hide(x, shown, fill, generator)).logits
        assert logits is not None
        figures["alone"] = float(logits.softmax(1)[0, target])
    return figures


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine in float64, so that equal embeddings give exactly 1; 0 if one of them is 0."""
    return torch.cosine_similarity(a.double(), b.double(), dim=1).float()
