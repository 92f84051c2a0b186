"""Signals that ask for an end: the first ends in good order, the second at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Self

from stream.stdout import forget

FIRST = b"\nstopping: finishing the frames under way; once more to stop at once\n"
SECOND = b"\nstopped at once\n"


def requests() -> tuple[signal.Signals, ...]:
    """SIGTERM, and SIGHUP of a terminal that is closed, where that is not ignored as by nohup."""
    hangup = getattr(signal, "SIGHUP", None)  # which Windows does not have
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return signal.SIGTERM, hangup


class Interrupts:
    """While open, SIGINT and `requests` end the run in an order that leaves nothing behind.

    Before `attach` a signal leaves the program, through all `with` blocks. After it the first
    calls `stop`, the second `abort`. A third finds the handlers of before, so that even a write
    hung on a dead disk can be ended.

    Attributes:
        number: of the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._stop: Callable[[], None] | None = None
        self._abort: Callable[[], None] | None = None
        self._before: dict[int, signal.Handlers] = {}

    def attach(self, stop: Callable[[], None], abort: Callable[[], None]) -> None:
        """From now on call these.

        Args:
            stop: ends in good order.
            abort: ends at once.

        Raises:
            SystemExit: a signal came before, and what ran then took the leaving for a failure.
        """
        if self.number is not None:
            raise SystemExit(128 + self.number)
        self._stop, self._abort = stop, abort

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, *requests()):
            self._before[number] = signal.signal(number, self._handle)  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _handle(self, number: int, _: FrameType | None) -> None:
        first = self.number is None
        self.number = number if first else self.number
        if self._stop is None or self._abort is None:
            raise SystemExit(128 + number)
        # Not print: the handler may have interrupted a print, which can't be entered twice.
        try:
            os.write(2, FIRST if first else SECOND)
        except OSError:  # the terminal was closed
            forget(sys.stderr)
        if first:
            self._stop()
        else:
            self._restore()
            self._abort()
