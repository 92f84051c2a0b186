"""Colour tags of a video and the YUV/RGB matrices that belong to them (ITU-R BT.601/709/2020)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Matrix = Literal["bt601", "bt709", "bt2020"]
LUMA_WEIGHTS: dict[Matrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}


@dataclass(frozen=True, slots=True)
class ColourTags:
    """How a frame's YUV values are to be read.

    Attributes:
        matrix: which luma weights.
        full_range: True for 0..255, False for 16..235 (luma) and 16..240 (chroma).
        primaries: FFmpeg's number of the colour primaries, carried to the output (2 = unknown).
        transfer: FFmpeg's number of the transfer function, carried to the output (2 = unknown).
    """

    matrix: Matrix = "bt709"
    full_range: bool = False
    primaries: int = 2
    transfer: int = 2


@cache
def rgb_to_yuv_matrix(tags: ColourTags) -> NDArray[np.float64]:
    """float64 (3, 4), read-only: [Y U V] = A @ [R G B 1], all in 0..255, as for `cv2.transform`."""
    kr, kb = LUMA_WEIGHTS[tags.matrix]
    kg = 1 - kr - kb
    luma = np.array([kr, kg, kb])
    cb = (np.array([0.0, 0.0, 1.0]) - luma) / (2 * (1 - kb))
    cr = (np.array([1.0, 0.0, 0.0]) - luma) / (2 * (1 - kr))
    y_scale, c_scale, y_base = (1.0, 1.0, 0.0) if tags.full_range else (219 / 255, 224 / 255, 16.0)
    rows = np.stack([luma * y_scale, cb * c_scale, cr * c_scale])
    return _kept(np.hstack([rows, np.array([[y_base], [128.0], [128.0]])]))


@cache
def yuv_to_rgb_matrix(tags: ColourTags) -> NDArray[np.float64]:
    """float64 (3, 4), read-only: [R G B] = A @ [Y U V 1], the inverse of `rgb_to_yuv_matrix`."""
    forward = rgb_to_yuv_matrix(tags)
    inverse = np.linalg.inv(forward[:, :3])
    return _kept(np.hstack([inverse, -inverse @ forward[:, 3:]]))


def _kept(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix.flags.writeable = False
    return matrix


MATRIX_NUMBERS: dict[int, Matrix] = {
    1: "bt709",
    4: "bt601",
    5: "bt601",
    6: "bt601",
    7: "bt709",
    9: "bt2020",
    10: "bt2020",
}
"""FFmpeg's (ITU-T H.273) matrix numbers. 4 (FCC) and 7 (SMPTE 240M) differ from the matrix named
by less than 0.02 in any weight."""


def matrix_by_size(height: int) -> Matrix:
    """The matrix of a video that doesn't state one: BT.601 below 720 lines, else BT.709."""
    return "bt601" if height < 720 else "bt709"
