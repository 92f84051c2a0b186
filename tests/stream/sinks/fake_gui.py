"""Stands in for the window functions of OpenCV."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class FakeGui:
    """Shows nothing, remembers pictures, and presses the keys it was given, one per `waitKey`.

    Args:
        keys: characters; "." presses nothing, "X" closes the window.
        on_wait: called by each `waitKey` with its milliseconds.
    """

    def __init__(self, keys: Iterable[str] = (), on_wait=None) -> None:
        self._keys = iter(keys)
        self._on_wait = on_wait
        self.shown: list[np.ndarray] = []
        self.sizes: list[tuple[int, int]] = []
        self.waits: list[int] = []
        self.is_open = False

    def namedWindow(self, title, flags):  # noqa: N802
        self.is_open = True

    def imshow(self, title, picture):
        self.shown.append(picture.copy())

    def resizeWindow(self, title, width, height):  # noqa: N802
        self.sizes.append((width, height))

    def waitKey(self, milliseconds):  # noqa: N802
        assert milliseconds > 0, "0 waits for ever"
        self.waits.append(milliseconds)
        if self._on_wait is not None:
            self._on_wait(milliseconds)
        key = next(self._keys, ".")
        if key == "X":
            self.is_open = False
        return -1 if key in ".X" else ord(key)

    def getWindowProperty(self, title, prop):  # noqa: N802
        return 1.0 if self.is_open else 0.0

    def destroyWindow(self, title):  # noqa: N802
        self.is_open = False
