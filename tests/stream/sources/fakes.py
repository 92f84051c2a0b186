"""A camera driver without a camera, and a clock that a test moves."""

from collections.abc import Iterable
from threading import Event

import cv2
import numpy as np

from tests.builders import counted_picture


class FakeClock:
    """Goes on by `step` seconds at every look."""

    def __init__(self, step: float = 0.01) -> None:
        self.now = 100.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class FakeCapture:
    """Acts as `cv2.VideoCapture`: gives `pictures`, then fails for ever.

    Args:
        pictures: BGR pictures; None is a failed read, an exception is raised.
        granted: properties the camera insists on, by OpenCV's number.
        opened: whether it opens.
        stuck_after: number of reads after which `read` blocks until `release_stuck` is set.
    """

    def __init__(
        self,
        pictures: Iterable[np.ndarray | Exception | None] = (),
        granted: dict[int, float] | None = None,
        *,
        opened: bool = True,
        stuck_after: int | None = None,
    ) -> None:
        self._pictures = iter(pictures)
        self._granted = granted or {}
        self._opened = opened
        self._stuck_after = stuck_after
        self._reads = 0
        self.asked: list[tuple[int, float]] = []
        self.released = 0
        self.stuck = Event()
        self.release_stuck = Event()

    def isOpened(self) -> bool:  # noqa: N802
        return self._opened

    def set(self, prop: int, value: float) -> bool:
        self.asked.append((prop, value))
        return True

    def get(self, prop: int) -> float:
        return self._granted.get(prop, dict(self.asked).get(prop, 0.0))

    def read(self):
        if self._reads == self._stuck_after:
            self.stuck.set()
            self.release_stuck.wait(10)
        self._reads += 1
        picture = next(self._pictures, None)
        if isinstance(picture, Exception):
            raise picture
        return picture is not None, picture

    def release(self) -> None:
        self.released += 1


def counted_bgr(count: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    return [
        cv2.cvtColor(counted_picture(i, width, height), cv2.COLOR_RGB2BGR) for i in range(count)
    ]
