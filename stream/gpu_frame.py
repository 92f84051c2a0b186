"""A frame that stays on the GPU that decoded it, as long as all work on it can be done there."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from stream.frame import Frame, Plane, thinning
from stream.paint import Levels, Planes, is_fine
from stream.palette import Tints

if TYPE_CHECKING:
    from engines.surface import Surface


class GpuFrame(Frame):
    """A frame in a GPU's memory.

    Small pictures and samples are made there. `y`, `u` and `v` come down when one of them is
    asked for, and are kept: so this may be used as any frame.

    Args:
        surface: the picture.
        *facts: as `Frame.facts`.

    Raises:
        EngineError: by the planes and all methods: the GPU failed, or its memory ran out.
    """

    __slots__ = ("surface",)
    surface: Surface

    def __new__(cls, *_: object, **replaced: Any) -> Frame:  # type: ignore[misc]
        """Of all fields by name, as `dataclasses.replace` gives them: a plain frame."""
        return Frame(**replaced) if replaced else object.__new__(cls)

    def __init__(self, surface: Surface, *facts: object) -> None:
        object.__setattr__(self, "surface", surface)
        for field, fact in zip(fields(Frame)[3:], facts, strict=True):
            object.__setattr__(self, field.name, fact)

    def __getattr__(self, name: str) -> Plane:
        # Called for what is not set: the planes, until they are down.
        if name not in ("y", "u", "v"):
            raise AttributeError(f"{type(self).__name__} has no {name}")
        planes = dict(zip("yuv", self.surface.planes(), strict=True))
        for each, plane in planes.items():
            plane.flags.writeable = False
            object.__setattr__(self, each, plane)
        return planes[name]

    def __reduce__(self) -> tuple[type[Frame], tuple[object, ...]]:
        # Copied, or sent to another process: as a plain frame, brought down.
        return Frame, (self.y, self.u, self.v, *self.facts)

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.surface.size[1]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.surface.size[0]

    def _resized(self, size: tuple[int, int]) -> list[Plane]:
        return super()._resized(size) if size == self.surface.size else self.surface.small(size)

    def sample(self, lines: int) -> tuple[Plane, Plane, Plane]:
        """See `Frame.sample`; no more than that comes down."""
        steps = thinning(self.height, lines), thinning(self.height // 2, lines)
        y, u, v = self.surface.planes(steps)
        return y, u, v

    def tinted(self, levels: Levels, tints: Tints, label: Planes | None) -> GpuFrame:
        """A new frame, drawn on the GPU.

        Args:
            levels: mask levels, see `stream.paint.tint`.
            tints: what to do with a pixel of each.
            label: planes for the top left corner, or None.
        """
        tables = np.ascontiguousarray(tints.table.T)
        squares = is_fine(self.surface.size, levels)
        surface = self.surface.tinted(levels, tables, squares=squares)
        if label is not None:
            surface.paste(*label)
        return GpuFrame(surface, *self.facts)
