"""Cameras through OpenCV: what was granted is said, what fails is said, nothing hangs."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.colour import ColourTags
from stream.errors import SourceError, SourceLost
from stream.frame import Frame, frame_from_rgb
from stream.sources.base import RESIZED, SourceInfo
from stream.sources.devices import Device, check_device, describe, open_capture
from stream.sources.modes import QUEUE, Capture, Granted, Wish
from stream.sources.pulled import PulledSource
from stream.sources.side_thread import SideThread, TimedOut

TIME_BASE = Fraction(1, 90000)
COLOUR = ColourTags("bt601", full_range=False)
FAILED = "camera reads without a picture"
OLD_SECONDS = 0.1
"""Age from which the first picture is not shown: it was taken to see that the camera works."""
RETRY_SECONDS = 0.02
STUCK_SECONDS = 0.5
"""A read that lasted longer when the camera is closed isn't waited for."""
RELEASE_SECONDS = 2.0
Picture = tuple[NDArray[np.uint8], float]


class CameraSource(PulledSource):
    """A live camera, read in a thread of its own so that a stuck driver can't stop the program.

    MJPG is asked for first, because over USB most cameras reach their full size and rate only
    with it, then size and rate. What the camera granted is in `info.notes`. Stamps come from the
    clock at the moment the picture arrived.

    Args:
        device: index, or device path as `/dev/video0`.
        wish: mode to ask for.
        opening: opens the device with OpenCV; another one for tests and special cameras.
        open_seconds: limit for opening, and again for the first picture.
        stall_seconds: limit without a picture after that.
        clock: seconds that never jump.

    Raises:
        SourceError: if it is absent, busy or forbidden, or gives no picture in time. Iteration
            raises `SourceLost` when it stops delivering.
    """

    def __init__(
        self,
        device: Device,
        *,
        wish: Wish | None = None,
        opening: Callable[[Device], Capture] | None = None,
        open_seconds: float = 10.0,
        stall_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._name = describe(device)
        if opening is None:
            check_device(device)
        self._clock = clock
        self._limit = stall_seconds
        self._index = 0
        self._last_pts = -1
        self._stuck = False
        self._capture: Capture | None = None
        self._ahead: Picture | None = None
        self._side = SideThread(f"nem-{self._name}")
        try:
            wish = wish or Wish()
            granted = self._open(opening or open_capture, device, wish, open_seconds)
            first = self._first(open_seconds)
        except BaseException:
            self._free()
            raise
        self._ahead = first
        self._began: float | None = None
        height, width = first[0].shape[:2]
        self._size = (width, height)
        self.info = SourceInfo(
            name=self._name,
            live=True,
            width=width,
            height=height,
            fps_declared=granted.fps,
            frames_declared=None,
            time_base=TIME_BASE,
            colour=COLOUR,
            codec=granted.codec.lower() or "raw",
            notes=(granted.sentence(self._size, wish),),
        )

    def _open(
        self, opening: Callable[[Device], Capture], device: Device, wish: Wish, limit: float
    ) -> Granted:
        def job() -> Granted | None:
            # Kept at once, so that a camera that opens after the limit is still released.
            self._capture = capture = opening(device)
            if not capture.isOpened():
                return None
            wish.ask(capture)
            return Granted.read(capture)

        try:
            granted = self._side.call(job, limit)
        except TimedOut:
            self._stuck = True
            raise SourceError(
                f"{self._name}: did not open within {limit:g} s; unplug it and plug it in again"
            ) from None
        except cv2.error as error:
            raise SourceError(f"{self._name}: can't be opened ({error})") from error
        if granted is None:
            raise SourceError(
                f"{self._name}: can't be opened, busy in another program or no camera; "
                "close that program, or try another one: nem-stream doctor lists them"
            )
        return granted

    def _first(self, limit: float) -> Picture:
        picture = self._next_picture(limit)
        if picture is None:
            raise SourceError(
                f"{self._name}: opened, but gave no picture within {limit:g} s; "
                "close other programs that use it, or try another index"
            )
        return picture

    def _read(self) -> Frame | None:
        picture = self._ahead or self._next_picture(self._limit)
        if self._ahead is not None and self._clock() - self._ahead[1] > OLD_SECONDS:
            # Others queued behind it while a model was loaded; on arrival they would pass as new.
            for _ in range(1 + QUEUE):
                picture = picture and self._next_picture(self._limit)
        self._ahead = None
        if self._closing.is_set():
            return None
        if picture is None:
            raise SourceLost(
                f"{self._name}: no picture for {self._limit:g} s after frame {self._index}; "
                "is it unplugged or asleep?"
            )
        bgr, at = picture
        if bgr.shape[1::-1] != self._size:
            self.counts[RESIZED] += 1
            bgr = np.asarray(cv2.resize(bgr, self._size), np.uint8)
        index, self._index = self._index, self._index + 1
        self._began = at if self._began is None else self._began
        self._last_pts = max(round((at - self._began) / TIME_BASE), self._last_pts + 1)
        return to_frame(bgr, index=index, pts=self._last_pts, captured_at=at)

    def _next_picture(self, limit: float) -> Picture | None:
        """The next picture and when it came; None if none came in `limit` s or on `close`."""
        deadline = self._clock() + limit
        while (left := deadline - self._clock()) > 0:
            try:
                picture = self._side.call(self._grab, left)
            except TimedOut:
                waited = left - (deadline - self._clock())
                self._stuck = not self._closing.is_set() or waited > STUCK_SECONDS
                return None
            if picture is not None:
                return picture
            self.counts[FAILED] += 1
            if self._closing.wait(RETRY_SECONDS):
                return None
        return None

    def _grab(self) -> Picture | None:
        assert self._capture is not None
        try:
            ok, bgr = self._capture.read()
        except cv2.error:
            return None
        at = self._clock()
        if not ok or bgr is None or bgr.size == 0:
            return None
        if bgr.ndim == 2:
            bgr = cv2.cvtColor(bgr, cv2.COLOR_GRAY2BGR)
        return np.asarray(bgr, np.uint8), at

    def _wake(self) -> None:
        self._side.give_up()

    def _free(self) -> None:
        self._ahead = None
        self._side.finish(self._release)
        # After its limit a driver isn't waited for again; its thread ends when the call does.
        self._side.join(0 if self._stuck else RELEASE_SECONDS)

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()


def to_frame(bgr: NDArray[np.uint8], *, index: int, pts: int, captured_at: float) -> Frame:
    """A frame of an OpenCV picture, BGR uint8 (H, W, 3); OpenCV's I420 is BT.601, limited."""
    height, width = bgr.shape[:2]
    if height % 2 or width % 2:  # I420 of OpenCV wants even sides
        return frame_from_rgb(
            np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8),
            index=index,
            pts=pts,
            time_base=TIME_BASE,
            captured_at=captured_at,
            colour=COLOUR,
        )
    flat = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420), np.uint8).reshape(-1)
    luma, chroma = height * width, height * width // 4
    half = (height // 2, width // 2)
    y = flat[:luma].reshape(height, width)
    u = flat[luma : luma + chroma].reshape(half)
    v = flat[luma + chroma :].reshape(half)
    return Frame(y, u, v, index, pts, TIME_BASE, captured_at, COLOUR)
