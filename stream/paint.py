"""Drawing on YUV 4:2:0 planes: the cheapest order of work that is still correct.

Tables are looked up at mask size, the small results are enlarged to the planes, and each plane
then costs one multiply and one add, all uint8. Every function returns new planes; those of `tint`
and `outline` lie in one buffer.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from nem.pictures import Picture, resize
from stream.frame import Plane, new_planes
from stream.memory import lent_room
from stream.palette import Tints

Planes: TypeAlias = tuple[Plane, Plane, Plane]
Levels = NDArray[np.uint8]
"""Mask levels 0..255, uint8 (S, S), stretched over the whole picture."""
LINE_SHARE, MIN_LINE = 1 / 240, 2
"""Width of an outline per picture height (3 pixels at 720p), and in pixels at least."""


def tint(planes: Planes, levels: Levels, tints: Tints) -> Planes:
    """Blend each pixel with the colour of its mask level; where no level changes any, copy.

    Where a mask value covers a sample of chroma or more, the 2x2 pixels of each share a level.
    """
    y, u, v = planes
    drawn = new_planes(*_size(y))
    part, rows, columns = _changed(levels, tints, y)
    inside = rows, columns
    luma = slice(2 * rows.start, 2 * rows.stop), slice(2 * columns.start, 2 * columns.stop)
    for plane, new, place in zip(planes, drawn, (luma, inside, inside), strict=True):
        _copy_around(plane, new, *place)
    if not part.size:
        return drawn
    tinted, fine = tints.of(part), is_fine(_size(y), levels)
    with lent_room(u.size) as room:
        size = _size(u[inside])
        large = room.enlarged(tinted, size) if fine else _split(_on_chroma(tinted, y[luma]))
        keep, add, add_u, add_v = large
        _blend(u[inside], keep, add_u, drawn[1][inside])
        _blend(v[inside], keep, add_v, drawn[2][inside])
        if fine:
            keep, add = room.squares(keep, add)
        else:
            keep, add = _split(resize(tinted[..., :2], _size(y[luma])))
        _blend(y[luma], keep, add, drawn[0][luma])
    return drawn


def is_fine(size: tuple[int, int], levels: Levels) -> bool:
    """Whether 2x2 pixels of a picture of this (height, width) are to share a level; see `tint`."""
    pairs = zip(size, levels.shape, strict=True)
    return all(side % 2 == 0 and side >= 2 * count for side, count in pairs)


def outline(
    planes: Planes,
    levels: Levels,
    threshold: int,
    strength: float,
    line: tuple[int, int, int],
    casing: tuple[int, int, int],
) -> Planes:
    """Draw the border of the region with levels >= `threshold`, a line within a wider casing.

    Args:
        planes: the picture.
        levels: mask levels.
        threshold: 0..255.
        strength: opacity of line and casing in [0, 1].
        line: Y, U, V of the line.
        casing: Y, U, V of the casing, which sets the line off from a picture of its colour.
    """
    y, u, _ = planes
    inside = (_on_chroma(levels, y) >= threshold).astype(np.uint8)
    found, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_TC89_L1)
    # Found on the chroma grid; sample i of it lies over luma pixels 2i and 2i + 1, and polylines
    # takes half pixels with shift=1: 2 (2i + 0.5) = 4i + 1.
    on_luma = [points * 4 + 1 for points in found]
    width = max(MIN_LINE, round(y.shape[0] * LINE_SHARE))

    def lines(plane: Plane, base: int, wide: float, narrow: float | None) -> Plane:
        on_chroma = plane is not y
        image = np.full(_size(plane), base, np.uint8)
        points, shift = (found, 0) if on_chroma else (on_luma, 1)
        for thickness, value in ((2 * width + 1, wide), (width, narrow)):
            if found and value is not None:
                thickness = max(1, (thickness + 1) // 2) if on_chroma else thickness
                cv2.polylines(image, points, True, value, thickness, cv2.LINE_AA, shift)
        return image

    keep = round(255 * (1 - strength))
    keeps = lines(y, 255, keep, None), *[lines(u, 255, keep, None)] * 2
    drawn = new_planes(*_size(y))
    for plane, kept, new, a, b in zip(planes, keeps, drawn, casing, line, strict=True):
        _blend(plane, kept, lines(plane, 0, strength * a, strength * b), new)
    return drawn


def side_by_side(left: Planes, right: Planes) -> Planes:
    """Two pictures of one size in one; an odd width is first evened by repeating the last column.

    Without that the right half would start in the middle of a chroma sample.
    """
    odd = left[0].shape[1] % 2
    y = np.hstack([_widen(left[0], odd), _widen(right[0], odd)])
    return y, np.hstack([left[1], right[1]]), np.hstack([left[2], right[2]])


def _blend(plane: Plane, keep: Plane, add: Plane, drawn: Plane) -> None:
    """What is kept of a plane plus what is added, into `drawn`."""
    cv2.multiply(plane, keep, drawn, scale=1 / 255)
    cv2.add(drawn, add, drawn)


def _changed(levels: Levels, tints: Tints, luma: Plane) -> tuple[Levels, slice, slice]:
    """The part of the mask beyond which no pixel changes; rows and columns of chroma it covers."""
    left, top, width, height = cv2.boundingRect(cv2.LUT(levels, tints.changes))
    if not width:
        return levels[:0], slice(0, 0), slice(0, 0)
    own_rows, rows = _span(top, top + height, levels.shape[0], luma.shape[0])
    own_columns, columns = _span(left, left + width, levels.shape[1], luma.shape[1])
    return levels[own_rows, own_columns], rows, columns


def _span(start: int, stop: int, count: int, pixels: int) -> tuple[slice, slice]:
    """Of `count` values those from `start` to `stop`, their neighbours, and samples of chroma.

    Widened to where values and samples begin together, so that it is enlarged as the whole would
    be; of an odd number of pixels it is the whole.
    """
    samples = (pixels + 1) // 2
    step = count if pixels % 2 else count // math.gcd(count, samples)
    start = max(0, (start - 1) // step * step)
    stop = min(count, -(-(stop + 1) // step) * step)
    return slice(start, stop), slice(start * samples // count, stop * samples // count)


def _copy_around(plane: Plane, drawn: Plane, rows: slice, columns: slice) -> None:
    """Copy all but these rows and columns."""
    for place in (
        np.s_[: rows.start],
        np.s_[rows.stop :],
        np.s_[rows, : columns.start],
        np.s_[rows, columns.stop :],
    ):
        drawn[place] = plane[place]


def _split(picture: Picture) -> list[Plane]:
    return [np.asarray(channel, np.uint8) for channel in cv2.split(picture)]


def _on_chroma(levels: Levels, y: Plane) -> Levels:
    """Enlarged to the chroma planes beside `y`: each sample lies over two pixels, also the last."""
    height, width = _size(y)
    if height % 2 or width % 2:
        whole = cv2.copyMakeBorder(
            resize(levels, _size(y)), 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE
        )
        levels = np.asarray(whole, np.uint8)
    return resize(levels, ((height + 1) // 2, (width + 1) // 2))


def _size(plane: Plane) -> tuple[int, int]:
    return plane.shape[0], plane.shape[1]


def _widen(plane: Plane, columns: int) -> Plane:
    return np.pad(plane, ((0, 0), (0, columns)), mode="edge") if columns else plane
