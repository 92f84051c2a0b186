"""Do masks hold still where the video does? numpy and OpenCV.

Masks are (T, H, W) in [0, 1], frames RGB uint8 (T, H, W, 3) of the same size, in order.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from nem.errors import ArgumentError

Masks = NDArray[np.float32]
Frames = NDArray[np.uint8]


LEAST_SIDE = 16
"""Two of the patches that DIS matches: OpenCV reads beyond flatter frames, and crashes."""


class Motion(NamedTuple):
    """Where each pixel of a frame was in the one before.

    Attributes:
        flow: float32 (H, W, 2), pixels (x, y) from a place in this frame to that in the last one.
        seen: bool (H, W), whether the place is inside the last frame and the flow back agrees; not
            so where something was uncovered.
    """

    flow: NDArray[np.float32]
    seen: NDArray[np.bool_]


def mean_change(masks: Masks) -> NDArray[np.float64]:
    """Mean absolute change from each mask to the next, (T - 1,), 0 to 1. Lower is steadier.

    Motion of the object counts as change; `warped_error` does without it.

    Raises:
        ArgumentError: not (T, H, W).
    """
    _check(masks)
    change: NDArray[np.float64] = np.abs(np.diff(masks.astype(np.float64), axis=0)).mean((1, 2))
    return change


def warped_error(masks: Masks, frames: Frames) -> NDArray[np.float64]:
    """Mean absolute difference of each mask from the last one moved along with the video, (T - 1,).

    The warping error of Lai et al. 2018 (eq. 8), on masks: 0 where the mask follows what it lies
    on. Places that `motion` has not seen before are left out; NaN where there are no others.

    Raises:
        ArgumentError: masks and frames of other shapes or counts, or below 16 x 16.
    """
    _check(masks)
    if frames.dtype != np.uint8 or frames.shape != (*masks.shape, 3):
        raise ArgumentError(
            f"frames {frames.dtype} {frames.shape}: expected RGB uint8 {(*masks.shape, 3)} for "
            f"masks {masks.shape}; resize them to the masks"
        )
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    errors = np.full(max(len(masks) - 1, 0), np.nan)
    for i in range(len(errors)):
        moved = motion(np.asarray(grey[i], np.uint8), np.asarray(grey[i + 1], np.uint8))
        if moved.seen.any():
            difference = np.abs(masks[i + 1] - warp(masks[i], moved.flow))
            errors[i] = difference[moved.seen].mean(dtype=np.float64)
    return errors


def motion(last: NDArray[np.uint8], this: NDArray[np.uint8]) -> Motion:
    """Dense flow by DIS (Kroeger et al. 2016) from one grey picture (H, W) back to the last one.

    A place counts as seen if the flow there and back ends within
    0.01 (|there|^2 + |back|^2) + 0.5 squared pixels of it (Sundaram et al. 2010, eq. 5).

    Raises:
        ArgumentError: pictures below 16 x 16.
    """
    if min(this.shape) < LEAST_SIDE:
        raise ArgumentError(
            f"frames of {this.shape[1]} x {this.shape[0]}: optical flow takes frames from "
            f"{LEAST_SIDE} x {LEAST_SIDE}; resize frames and masks to that or more"
        )
    back, there = _flow(this, last), _flow(last, this)
    returned = np.stack([warp(np.ascontiguousarray(there[..., i]), back) for i in (0, 1)], -1)
    gap = ((back + returned) ** 2).sum(-1)
    bound = 0.01 * ((back**2).sum(-1) + (returned**2).sum(-1)) + 0.5
    height, width = this.shape
    x, y = (places + back[..., i] for i, places in enumerate(_places(height, width)))
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return Motion(back, np.asarray(inside & (gap <= bound)))


def warp(plane: NDArray[np.float32], flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """The last plane (H, W) as it lies in this frame; linear, edges go on beyond the picture."""
    x, y = _places(*plane.shape)
    moved = cv2.remap(
        plane.astype(np.float32, copy=False), x + flow[..., 0], y + flow[..., 1],
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(moved, np.float32)


def _flow(of: NDArray[np.uint8], to: NDArray[np.uint8]) -> NDArray[np.float32]:
    # A fresh one each time: it would go on from what it found last.
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start = np.zeros((*of.shape, 2), np.float32)
    return np.asarray(finder.calc(of, to, start), np.float32)


def _places(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x, y


def _check(masks: Masks) -> None:
    if masks.ndim != 3:
        raise ArgumentError(f"masks {masks.shape}: expected (T, H, W), one per frame")
