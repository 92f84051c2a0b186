"""Time stamps put in order with the least change, each change counted."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

FILLED = "missing time stamps filled in"
NUDGED = "time stamps moved to stay in order"
CONTINUED = "jumps back in time continued"
BACK = 1
"""Seconds that a track's stamps may go back before it is a new start of the clock."""


class Stamps:
    """Repairs the stamps of one stream, in its own time base.

    A missing stamp becomes the last one plus a frame. One before the last becomes the last, plus
    one tick if equal ones are not allowed. A jump back by more than `BACK` is a new start of the
    clock (a broadcast that wraps, files put end to end): from there on all stamps are shifted so
    that time goes on.

    Args:
        time_base: seconds per tick.
        fps: frames per second, or None where unknown (25 is used where a frame's length is
            needed and the frame doesn't tell).
        counts: where changes are counted.
        strict: no two stamps may be equal.

    Attributes:
        time_base: as given.
    """

    def __init__(
        self,
        time_base: Fraction,
        fps: Fraction | None,
        counts: Counter[str],
        *,
        strict: bool = True,
    ) -> None:
        self.time_base = time_base
        self._gap = int(strict)
        self._step = max(round(1 / ((fps or Fraction(25)) * time_base)), 1)
        self._back = BACK / time_base
        self._counts = counts
        self._shift = 0
        self._last: int | None = None

    def next(self, pts: int | None, duration: int | None = None) -> int:
        """The stamp to use for the next frame, in ticks.

        Args:
            pts: what the file says, or None.
            duration: length of the frame in ticks; None or 0 where unknown.
        """
        step = duration or self._step
        if pts is None:
            self._counts[FILLED] += 1
            stamp = 0 if self._last is None else self._last + step
        else:
            stamp = pts + self._shift
            if self._last is not None and stamp < self._last + self._gap:
                stamp = self._repair(stamp, self._last, step)
        self._last = stamp
        return stamp

    def _repair(self, stamp: int, last: int, step: int) -> int:
        if last - stamp > self._back:
            self._counts[CONTINUED] += 1
            self._shift += last + step - stamp
            return last + step
        self._counts[NUDGED] += 1
        return last + self._gap
