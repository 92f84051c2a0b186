"""Memory that is used again from frame to frame.

The heap alone would go on growing by a frame now and then: what is freed there is a little smaller
than what is asked for next. Memory used a moment ago is also still in the caches.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]

KEPT_FRAMES = 4
"""As many as are drawn, wait and are written at the same time."""
KEPT_ROOMS = 2
"""One for each drawing at the same time."""


def frame_memory(size: int) -> NDArray[np.uint8]:
    """So many bytes, uint8 (size,), of any content; taken back when all views of it are gone."""
    try:
        memory = _frames.pop()
    except IndexError:
        memory = np.empty(size, np.uint8)
    if memory.size != size:
        memory = np.empty(size, np.uint8)
    lent = np.frombuffer(memory.data, np.uint8)  # what views refer to, not to `memory`
    weakref.finalize(lent, _take_back, memory).atexit = False
    return lent


def _take_back(memory: NDArray[np.uint8]) -> None:
    if len(_frames) < KEPT_FRAMES:
        _frames.append(memory)


class Room:
    """To enlarge the tints of a mask in, for pictures of so many samples of chroma.

    Args:
        samples: of one plane; 14 bytes for each are taken.

    Attributes:
        samples: as given.
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self._tints, self._planes, self._squares = (
            np.empty(4 * samples, np.uint8) for _ in range(3)
        )
        self._pairs = np.empty(2 * samples, np.uint8)

    def enlarged(self, tints: NDArray[np.uint8], size: tuple[int, int]) -> Sequence[Plane]:
        """Tints uint8 (H, W, 4) in a size (height, width) of no fewer pixels, as four planes.

        In one picture they are enlarged in a third less time than apart.
        """
        large = _in(self._tints, *size, 4)
        cv2.resize(tints, size[::-1], dst=large, interpolation=cv2.INTER_LINEAR)
        planes = _in(self._planes, 4, *size)
        cv2.split(large, list(planes))
        return list(planes)

    def squares(self, first: Plane, second: Plane) -> tuple[Plane, Plane]:
        """Two of these planes (H, W) with each value four times, as a square."""
        return self._squared(first, self._tints), self._squared(second, self._squares)

    def _squared(self, plane: Plane, memory: Plane) -> Plane:
        height, width = plane.shape
        pairs, squares = _in(self._pairs, height, width, 2), _in(memory, height, 4 * width)
        cv2.merge((plane, plane), pairs)
        cv2.repeat(pairs.reshape(height, 2 * width), 1, 2, squares)
        return squares.reshape(2 * height, 2 * width)


@contextmanager
def lent_room(samples: int) -> Iterator[Room]:
    """A room that no one else has; see `Room`."""
    try:
        room = _rooms.pop()
    except IndexError:  # all are lent
        room = Room(samples)
    if room.samples != samples:
        room = Room(samples)
    try:
        yield room
    finally:
        if len(_rooms) < KEPT_ROOMS:
            _rooms.append(room)


_frames: list[NDArray[np.uint8]] = []
_rooms: list[Room] = []


def _in(memory: NDArray[np.uint8], *shape: int) -> NDArray[np.uint8]:
    """An array that begins where `memory` does."""
    return memory[: math.prod(shape)].reshape(shape)
