"""Stands in for a window."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np


class FakeScreen:
    """Shows nothing, remembers pictures, and presses the keys it was given, one per `poll`.

    Args:
        keys: characters; "." presses nothing, "X" closes the window.
        on_poll: called by each `poll` with its milliseconds.
    """

    def __init__(
        self, keys: Iterable[str] = (), on_poll: Callable[[int], None] | None = None
    ) -> None:
        self._keys = iter(keys)
        self._on_poll = on_poll
        self.shown: list[np.ndarray] = []
        self.polls: list[int] = []
        self.is_open = True

    def show(self, picture):
        self.shown.append(picture.copy())

    def poll(self, milliseconds):
        self.polls.append(milliseconds)
        if self._on_poll is not None:
            self._on_poll(milliseconds)
        key = next(self._keys, ".")
        if key == "X":
            self.is_open = False
        return (-1 if key in ".X" else ord(key)), self.is_open

    def close(self):
        self.is_open = False
