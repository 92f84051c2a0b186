"""What a method that needs many runs of the backbone gives; `nem.methods` lists them all."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Map(NamedTuple):
    """A map per picture, as `method(backbone, x, target, *, seed, memory_mb, ...)` returns it.

    Attributes:
        map: (N, S, S) float32, larger = more important; negative where the method has signs.
        forwards: runs of the backbone per picture.
        backwards: gradients through the backbone per picture.
        uncertainty: (N, S, S), where the method estimates one.
    """

    map: Tensor
    forwards: int
    backwards: int
    uncertainty: Tensor | None = None
