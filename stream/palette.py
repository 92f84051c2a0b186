"""Tables that tint a YUV frame by mask level: one entry per level 0..255, no float image.

Blending is affine, so it may be done on Y, U and V directly: out = (1 - a) frame + a colour, with
the colour converted once per level by the frame's own matrix and range. A table holds the level's
colour already times a ("premultiplied"), and 255 (1 - a) to multiply the frame by.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.colour import ColourTags, rgb_to_yuv_matrix

Colormap = Literal["inferno", "magma", "viridis", "cividis", "turbo", "hot"]
"""Colour maps whose lightness rises with the level, so they can be read without telling red from
green; `turbo` is the exception, for those who like it."""
COLORMAPS: tuple[Colormap, ...] = get_args(Colormap)


@dataclass(frozen=True, slots=True, eq=False)
class Tints:
    """What to do with a pixel of each mask level.

    Attributes:
        table: by level: share of the frame to keep, 255 = all, and Y, U and V to add; uint8
            (256, 4).
        changes: 1 where that changes a pixel, 0 where it leaves all as they are; uint8 (256,).
    """

    table: NDArray[np.uint8]
    changes: NDArray[np.uint8]

    def of(self, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The entries of levels (H, W), uint8 (H, W, 4)."""
        entries = self.table.view(np.uint32)[:, 0].take(levels)
        return entries.view(np.uint8).reshape(*levels.shape, 4)


@lru_cache(maxsize=64)
def heat_tints(colormap: Colormap, strength: float, tags: ColourTags) -> Tints:
    """Tint by `colormap`; opacity rises linearly from 0 at level 0 to `strength` at level 255."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    code = int(getattr(cv2, f"COLORMAP_{colormap.upper()}"))
    rgb = cv2.applyColorMap(levels, code)[:, 0, ::-1].astype(np.float64)
    opacity = strength * np.arange(256) / 255
    return _tints(rgb, opacity, tags)


@lru_cache(maxsize=64)
def dim_tints(strength: float, tags: ColourTags) -> Tints:
    """Blend towards black: by `strength` at level 0, not at all at level 255."""
    opacity = strength * (1 - np.arange(256) / 255)
    return _tints(np.zeros((256, 3)), opacity, tags)


@lru_cache(maxsize=64)
def yuv(rgb: tuple[int, int, int], tags: ColourTags) -> tuple[int, int, int]:
    """One RGB colour (0..255) as the Y, U, V of a frame with these tags."""
    exact = rgb_to_yuv_matrix(tags) @ np.array([*rgb, 1.0])
    y, u, v = np.clip(np.rint(exact), 0, 255).astype(int)
    return int(y), int(u), int(v)


def _tints(rgb: NDArray[np.float64], opacity: NDArray[np.float64], tags: ColourTags) -> Tints:
    matrix = rgb_to_yuv_matrix(tags)
    planes = (rgb @ matrix[:, :3].T + matrix[:, 3]) * opacity[:, None]
    keep = 255 * (1 - opacity[:, None])
    table = np.clip(np.rint(np.hstack([keep, planes])), 0, 255).astype(np.uint8)
    changes = (table != (255, 0, 0, 0)).any(1).astype(np.uint8)
    return Tints(table, changes)
