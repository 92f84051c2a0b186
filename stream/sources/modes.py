"""Asking a camera for a mode, and saying which one it granted."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import cv2
from numpy.typing import NDArray


def exact_rate(fps: Fraction | float) -> Fraction:
    """`fps` as the fraction it stands for: 29.97 and 23.976 are 30000/1001 and 24000/1001."""
    exact = fps if isinstance(fps, Fraction) else Fraction(str(fps))
    broadcast = Fraction(round(exact * Fraction(1001, 1000)) * 1000, 1001)
    close = exact.denominator > 1 and broadcast > 0 and abs(broadcast - exact) < Fraction(1, 200)
    return broadcast if close else exact


class Capture(Protocol):
    """The part of `cv2.VideoCapture` that is used."""

    def isOpened(self) -> bool: ...  # noqa: N802, D102
    def set(self, propId: int, value: float, /) -> bool: ...  # noqa: N803, D102
    def get(self, propId: int, /) -> float: ...  # noqa: N803, D102
    def read(self) -> tuple[bool, NDArray[Any]]: ...  # noqa: D102
    def release(self) -> None: ...  # noqa: D102


QUEUE = 2
"""Pictures in the driver's queue: one is filled while another is read. With a single one the
driver has none to fill meanwhile and loses up to every second picture."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The mode asked for; None leaves the choice to the camera."""

    width: int | None = None
    height: int | None = None
    fps: Fraction | None = None

    def __str__(self) -> str:
        size = "" if self.width is None else f"{self.width}x{self.height}"
        rate = "" if self.fps is None else f"{float(self.fps):g} fps"
        return " at ".join(part for part in (size, rate) if part)

    def ask(self, capture: Capture) -> None:
        """Ask for MJPG first (sizes and rates depend on it), then a short queue, size and rate.

        The rate comes last: with each of the others OpenCV asks for a rate of its own again.
        """
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        capture.set(cv2.CAP_PROP_BUFFERSIZE, QUEUE)
        if self.width is not None and self.height is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self.width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self.height)
        if self.fps is not None:
            capture.set(cv2.CAP_PROP_FPS, float(self.fps))


@dataclass(frozen=True, slots=True)
class Granted:
    """What the camera says it delivers.

    Attributes:
        codec: four letters, as "MJPG"; empty if it doesn't say.
        fps: frames per second, or None if it doesn't say.
    """

    codec: str
    fps: Fraction | None

    @classmethod
    def read(cls, capture: Capture) -> Granted:
        """Ask the open camera."""
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        letters = bytes((code >> shift) & 0xFF for shift in (0, 8, 16, 24)) if code > 0 else b""
        codec = letters.decode("ascii", "ignore")
        rate = capture.get(cv2.CAP_PROP_FPS)
        # A USB camera counts 100 ns: of 30000/1001 it says 10000000/333667.
        fps = exact_rate(Fraction(rate).limit_denominator(1001)) if 0 < rate < 1000 else None
        return cls(codec if codec.isprintable() else "", fps)

    def sentence(self, size: tuple[int, int], wish: Wish) -> str:
        """What was granted for a wish; `size` = (width, height) of the first picture."""
        mode = Wish(*size, self.fps)
        asked = f" (asked for {wish})" if str(wish) and not self._meets(size, wish) else ""
        return f"camera granted {self.codec} {mode}".replace("  ", " ") + asked

    def _meets(self, size: tuple[int, int], wish: Wish) -> bool:
        return (wish.width is None or size == (wish.width, wish.height)) and (
            wish.fps is None or wish.fps == self.fps
        )
