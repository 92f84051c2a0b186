"""FORGrad: gradient maps without their high frequencies.

Muzellec et al. 2024, Saliency strikes back: How filtering out high frequencies improves white-box
explanations. Pooling and striding leave a pattern of the grid in gradients; it is noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nem import attribution
from nem.backbone import Backbone
from nem.errors import ArgumentError
from nem.explained import Of
from nem.method import Map

CUTOFF = 15.0
"""Cycles per picture side: what the authors' library takes for ImageNet pictures of 224 pixels."""

_METHODS: dict[str, Callable[..., Map]] = {
    "saliency": attribution.saliency,
    "integrated_gradients": attribution.integrated_gradients,
    "gradient_shap": attribution.gradient_shap,
    "smooth_grad": attribution.smooth_grad,
    "guided_backprop": attribution.guided_backprop,
}


def forgrad(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    of: Of = "embedding",
    method: str = "saliency",
    cutoff: float = CUTOFF,
    seed: int = 0,
    memory_mb: int = 512,
    options: Mapping[str, Any] | None = None,
) -> Map:
    """The map of a gradient method, low-passed.

    The paper chooses the cutoff per model and method as the one with the best faithfulness on a
    validation set; see `nem.faithfulness` for the measure.

    Args:
        backbone: the model.
        x: normalised pictures, float (N, 3, S, S).
        target: (N,) int64, the class with of="class"; below 0, or None, the most probable one.
        of: explain the "embedding", or a "class".
        method: a gradient method of `nem.attribution`, by its name.
        cutoff: highest frequency kept, in cycles per side of the picture, in (0, S]; from
            S / sqrt(2) on all are kept.
        seed: of the method.
        memory_mb: bound for the memory of the pictures seen at once.
        options: further options of the method, as {"steps": 20} of integrated_gradients.

    Returns:
        The magnitude of the filtered map for maps without signs, as the authors' library; signed
        with {"reduce": "sum"}.

    Raises:
        ArgumentError: another method, a cutoff out of range, or what the method refuses.
    """
    if method not in _METHODS:
        raise ArgumentError(f"method {method!r}: FORGrad filters {', '.join(_METHODS)}")
    if not 0 < cutoff <= backbone.input_size:
        raise ArgumentError(
            f"cutoff {cutoff}: expected cycles per side in (0, {backbone.input_size}]"
        )
    more = dict(options or {})
    result = _METHODS[method](backbone, x, target, of=of, seed=seed, memory_mb=memory_mb, **more)
    filtered = low_pass(result.map, cutoff)
    if more.get("reduce", "abs") == "abs":
        filtered = filtered.abs()  # ringing may go below 0
    return result._replace(map=filtered)


def low_pass(maps: Tensor, cutoff: float) -> Tensor:
    """Remove the frequencies above `cutoff`: F^-1(F(map) * w), w a disk of that radius.

    Args:
        maps: (N, S, S) float32.
        cutoff: cycles per side.

    Returns:
        Maps of the same shape; their mean is unchanged.
    """
    size = maps.shape[-1]
    rows = torch.fft.fftfreq(size, 1 / size, device=maps.device)
    columns = torch.fft.rfftfreq(size, 1 / size, device=maps.device)
    keep = torch.hypot(rows[:, None], columns[None]) <= cutoff
    filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(maps) * keep, s=(size, size))
    return filtered
