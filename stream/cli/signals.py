"""Ctrl-C and SIGTERM: the first ends in good order, the second at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Self

FIRST = b"\nstopping: finishing the frames under way; once more to stop at once\n"
SECOND = b"\nstopped at once\n"


class Interrupts:
    """While open, the first SIGINT or SIGTERM calls `stop`, the second `abort`.

    A third finds the handlers of before, so that even a write hung on a dead disk can be ended.

    Args:
        stop: ends in good order.
        abort: ends at once.

    Attributes:
        number: of the first signal that came, or None.
    """

    def __init__(self, stop: Callable[[], None], abort: Callable[[], None]) -> None:
        self.number: int | None = None
        self._stop, self._abort = stop, abort
        self._before: dict[int, signal.Handlers] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _handle(self, number: int, _: FrameType | None) -> None:
        first = self.number is None
        # Not print: the handler may have interrupted a print, which can't be entered twice.
        os.write(2, FIRST if first else SECOND)
        if first:
            self.number = number
            self._stop()
        else:
            self._restore()
            self._abort()
