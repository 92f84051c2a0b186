"""How many pictures a model may see at once. No torch."""

from __future__ import annotations

from typing import Any

from nem.errors import ArgumentError

_WORK = 32
"""A run without gradients needs at most this many times the memory of its pictures."""
_GRADIENT_WORK = 224
"""The same with what is kept for a gradient. Over timm's CNNs and ViTs at 224 pixels what is kept
is 37 (resnet18), 143 (resnet50), 123 (vit_base) to 217 (densenet121) times the picture."""


def pictures_per_run(x: Any, memory_mb: int, *, gradient: bool = False) -> int:
    """How many pictures fit in a bound of memory, at least 1.

    Args:
        x: pictures (N, 3, S, S), array or tensor of 4-byte values; only its shape is looked at.
        memory_mb: the bound in MiB, at least 1.
        gradient: whether a gradient through the model is taken.

    Raises:
        ArgumentError: a bound below 1.
    """
    if memory_mb < 1:
        raise ArgumentError(f"memory_mb {memory_mb}: at least 1 MiB is needed")
    _, channels, height, width = x.shape
    work = _GRADIENT_WORK if gradient else _WORK
    picture = int(channels * height * width) * 4 * work
    return max(1, (memory_mb << 20) // picture)
