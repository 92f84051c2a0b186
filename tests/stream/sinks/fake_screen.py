"""Stand-ins for a window and its clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from stream.sinks import WindowSink


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
        self.on_poll = on_poll
        self.shown: list[np.ndarray] = []
        self.polls: list[int] = []
        self.is_open = True

    def show(self, picture):
        self.shown.append(picture.copy())

    def poll(self, milliseconds):
        self.polls.append(milliseconds)
        if self.on_poll is not None:
            self.on_poll(milliseconds)
        key = next(self._keys, ".")
        if key == "X":
            self.is_open = False
        return (-1 if key in ".X" else ord(key)), self.is_open

    def close(self):
        self.is_open = False


class Clock:
    """Seconds that pass while the window waits, and by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds / 1000


def open_window(keys="", **options):
    """A window told `keys`, its screen, its clock, and the list of what it says."""
    clock = Clock()
    screen = FakeScreen(keys, clock.wait)
    said: list[str] = []
    sink = WindowSink(screen=screen, clock=clock, say=said.append, **options)
    return sink, screen, clock, said
