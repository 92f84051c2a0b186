"""One video frame: 8-bit YUV 4:2:0 planes, the time it belongs to, and how its colours are read.

Frames stay in YUV from decoder to encoder: half the bytes of RGB and no conversion passes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.colour import ColourTags, rgb_to_yuv_matrix, yuv_to_rgb_matrix
from stream.errors import UsageError
from stream.memory import frame_memory
from stream.shrink import shrink

Plane = NDArray[np.uint8]
Facts: TypeAlias = tuple[int, int, Fraction, float, ColourTags, int | None, str | None]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame as it travels from source to sink. Planes are read-only by agreement.

    Attributes:
        y: luma, uint8 (H, W); rows may be padded (any row stride, unit column stride).
        u: blue difference, uint8 ((H + 1) // 2, (W + 1) // 2).
        v: red difference, same shape as `u`.
        index: number of the frame in its source, from 0, without gaps in a file.
        pts: presentation time in units of `time_base`, strictly increasing.
        time_base: seconds per tick.
        captured_at: `time.monotonic()` when the frame was read, in seconds.
        colour: how the planes are to be read.
        duration: ticks that it is shown, None where the source doesn't tell.
        file: the picture's file; None where it is no file of its own.
    """

    y: Plane
    u: Plane
    v: Plane
    index: int
    pts: int
    time_base: Fraction
    captured_at: float
    colour: ColourTags = field(default_factory=ColourTags)
    duration: int | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        height, width = self.y.shape
        chroma = ((height + 1) // 2, (width + 1) // 2)
        if self.u.shape != chroma or self.v.shape != chroma:
            raise ValueError(
                f"frame {width}x{height}: chroma planes must be {chroma}, "
                f"got {self.u.shape} and {self.v.shape}"
            )

    def __repr__(self) -> str:
        return f"Frame({self.width}x{self.height}, index={self.index}, t={self.pts_seconds:.3f} s)"

    @property
    def facts(self) -> Facts:
        """All but the planes, in the order of the constructor."""
        times = self.pts, self.time_base, self.captured_at
        return self.index, *times, self.colour, self.duration, self.file

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.y.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.y.shape[0])

    @property
    def buffer(self) -> NDArray[np.uint8] | None:
        """The array (n,) of just these planes, in order, as of `new_planes`; None without one."""
        found = self.y.base
        if not isinstance(found, np.ndarray) or found.shape != (self.y.size + 2 * self.u.size,):
            return None
        place = _address(found)
        for plane in (self.y, self.u, self.v):
            if not plane.flags.c_contiguous or _address(plane) != place:
                return None
            place += plane.size
        return found

    @property
    def pts_seconds(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    def sample(self, lines: int) -> tuple[Plane, Plane, Plane]:
        """Y, U and V thinned out to about so many lines, each of its own."""
        steps = [thinning(len(plane), lines) for plane in (self.y, self.u, self.v)]
        y, u, v = (p[::n, ::n] for p, n in zip((self.y, self.u, self.v), steps, strict=True))
        return y, u, v

    def rgb(self, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """The picture as RGB uint8, (H, W, 3), or resized to `size` = (height, width).

        Each plane is brought to the size first, so a small picture of a large frame is cheap.

        Raises:
            UsageError: a side of less than a pixel.
        """
        height, width = size or (self.height, self.width)
        if min(height, width) < 1:
            raise UsageError(f"frame of size {size}: give (height, width), each from 1")
        planes = self._resized((height, width))
        rgb = cv2.transform(cv2.merge(planes), yuv_to_rgb_matrix(self.colour))
        return np.asarray(rgb, dtype=np.uint8)

    def _resized(self, size: tuple[int, int]) -> list[Plane]:
        """All planes in one size."""
        height, width = size
        own = size == (self.height, self.width)
        # In its own size chroma stays over its pairs of pixels, of which the last may be a half.
        chroma = (2 * self.u.shape[0], 2 * self.u.shape[1]) if own else size
        colours = (shrink(plane, chroma)[:height, :width] for plane in (self.u, self.v))
        return [shrink(self.y, size), *colours]


def new_planes(height: int, width: int) -> tuple[Plane, Plane, Plane]:
    """Planes of a frame, still to be filled, one after the other in a `Frame.buffer`."""
    half = (height + 1) // 2, (width + 1) // 2
    luma, chroma = height * width, half[0] * half[1]
    buffer = frame_memory(luma + 2 * chroma)
    y, u, v = buffer[:luma], buffer[luma:-chroma], buffer[-chroma:]
    return y.reshape(height, width), u.reshape(half), v.reshape(half)


def _address(array: NDArray[np.uint8]) -> int:
    return int(array.__array_interface__["data"][0])


def thinning(length: int, lines: int) -> int:
    """Every how manyth of `length` lines leaves about `lines`."""
    return max(1, length // lines)


def frame_from_rgb(
    rgb: NDArray[np.uint8],
    *,
    index: int,
    pts: int,
    time_base: Fraction,
    captured_at: float,
    colour: ColourTags | None = None,
    file: str | None = None,
) -> Frame:
    """Make a frame of an RGB picture, uint8 (H, W, 3); chroma is averaged over 2x2 pixels."""
    colour = colour or ColourTags()
    yuv = cv2.transform(rgb, rgb_to_yuv_matrix(colour))
    height, width = rgb.shape[:2]
    if height % 2 or width % 2:  # pairs to the end, else all averages drift
        yuv = cv2.copyMakeBorder(yuv, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    half = yuv.shape[1] // 2, yuv.shape[0] // 2
    y, u, v = (np.ascontiguousarray(yuv[..., i], np.uint8) for i in range(3))
    u, v = (np.asarray(cv2.resize(p, half, interpolation=cv2.INTER_AREA), np.uint8) for p in (u, v))
    y = y[:height, :width]
    return Frame(y, u, v, index, pts, time_base, captured_at, colour, file=file)
