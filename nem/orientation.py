"""The display matrix of a video: which of the eight upright positions its pictures need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import av
import cv2
import numpy as np
from av.buffer import Buffer
from av.sidedata.sidedata import Type
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored picture becomes upright: first transposed, then mirrored; by default as it is.

    Attributes:
        transpose: swap rows and columns.
        mirror_x: then left and right.
        mirror_y: then top and bottom.
    """

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def apply(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The upright plane or picture: what is given itself, or a new one."""
        if self.transpose:
            plane = np.asarray(cv2.transpose(plane), np.uint8)
        if self.mirror_x or self.mirror_y:
            code = -1 if self.mirror_x and self.mirror_y else int(self.mirror_x)
            plane = np.asarray(cv2.flip(plane, code), np.uint8)
        return plane

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return (height, width) if self.transpose else (width, height)


def _unnamed(cls: type[Type], value: int) -> Type:
    member = object.__new__(cls)
    vars(member).update(_name_=f"UNNAMED_{value}", _value_=value)
    return member


# FFmpeg knows side data that PyAV has no name for, as the EXIF of a JPEG, and PyAV would refuse
# to look at any of a frame's. They get a name that no one asks for.
if "_missing_" not in vars(Type):
    Type._missing_ = classmethod(_unnamed)  # type: ignore[assignment,method-assign]


def read_orientation(frame: av.VideoFrame) -> Orientation | None:
    """What the frame's display matrix asks for; None if it is no multiple of 90 degrees.

    The matrix is nine int32, row by row (libavutil/display.h): x' = a x + c y, y' = b x + d y
    with a, b = entries 0, 1 and c, d = entries 3, 4 in 16.16 fixed point.
    """
    data = cast(Buffer | None, frame.side_data.get("DISPLAYMATRIX"))
    if data is None:
        return Orientation()
    entries = np.frombuffer(memoryview(data), np.int32)
    a, b, c, d = (round(entries[i] / 65536) for i in (0, 1, 3, 4))
    straight, crossed = (abs(a), abs(d)), (abs(b), abs(c))
    if straight == (1, 1) and crossed == (0, 0):
        return Orientation(False, a < 0, d < 0)
    if straight == (0, 0) and crossed == (1, 1):
        return Orientation(True, c < 0, b < 0)
    return None
