"""Time stamps put in order with the least change, each change counted."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")

FILLED = "missing time stamps filled in"
NUDGED = "time stamps moved to stay in order"
CONTINUED = "jumps back in time continued"
BACK = 1
"""Seconds that a track's stamps may go back before it is a new start of the clock."""
AHEAD = 2
"""Frames' lengths that a stamp may lie ahead without a doubt: one frame missing is nothing odd, and
of two neighbours that changed places either may be wrong."""


class Stamps(Generic[ItemT]):
    """Repairs the stamps of one stream, in its own time base.

    A missing stamp becomes the last one plus a frame. One before the last becomes the last, plus
    one tick if equal ones are not allowed. A jump back by more than `BACK` is a new start of the
    clock (a broadcast that wraps, files put end to end): from there on all stamps are shifted so
    that time goes on.

    Whether a jump is meant, the next stamp tells, so a frame whose stamp jumps waits for it. If the
    next goes on from the stamp before the jump, the one between is damage and is put between the
    two. Else it is a gap or a new start, as it is without a next. What stands before the first is
    the file's start.

    Args:
        time_base: seconds per tick.
        fps: frames per second, or None where unknown (25 is used where a frame's length is
            needed and the frame doesn't tell).
        counts: where changes are counted.
        start: where the file begins, all its tracks counted, in microseconds; None where unknown.
        strict: no two stamps may be equal.
        waits: False for a stream with long gaps, as of subtitles: none of it waits.

    Attributes:
        time_base: as given.
    """

    def __init__(
        self,
        time_base: Fraction,
        fps: Fraction | None,
        counts: Counter[str],
        *,
        start: int | None = None,
        strict: bool = True,
        waits: bool = True,
    ) -> None:
        self.time_base = time_base
        self._gap = int(strict)
        self._step = max(round(1 / ((fps or Fraction(25)) * time_base)), 1)
        self._back = int(BACK / time_base)  # compared at every frame
        self._counts = counts
        self._start = None if start is None else round(start / 1_000_000 / time_base)
        self._waits = waits
        self._shift = 0
        self._last: int | None = None
        self._held: tuple[ItemT, int, int] | None = None

    def take(
        self, item: ItemT, pts: int | None, duration: int | None = None
    ) -> list[tuple[ItemT, int]]:
        """The frames that are ready, in order, with the stamps to use in ticks.

        Args:
            item: the next frame.
            pts: what the file says, or None.
            duration: length of the frame in ticks; None or 0 where unknown.
        """
        step = duration or self._step
        ready = self._release(pts)
        if pts is not None and self._waits and self._jumps(pts + self._shift, step):
            self._held = item, pts, step
        else:
            ready.append((item, self._next(pts, step)))
        return ready

    def flush(self) -> list[tuple[ItemT, int]]:
        """What waits, at the end of the stream."""
        return self._release(None)

    def _release(self, following: int | None) -> list[tuple[ItemT, int]]:
        if self._held is None:
            return []
        (item, pts, step), self._held = self._held, None
        stamp = None if following is None else self._between(pts, following + self._shift, step)
        if stamp is None:
            return [(item, self._next(pts, step))]
        self._counts[NUDGED] += 1
        self._last = stamp
        return [(item, stamp)]

    def _jumps(self, stamp: int, step: int) -> bool:
        last = self._before(step)
        if last is None:
            return False
        back = self._last is not None and last - stamp > self._back
        return back or stamp - last > AHEAD * step

    def _between(self, pts: int, following: int, step: int) -> int | None:
        """Where a frame belongs whose stamp the next one shows to be damage, else None."""
        stamp, last = pts + self._shift, self._before(step)
        assert last is not None  # no jump without one
        if following <= last or last < stamp <= following:
            return None
        if self._last is None:
            return following - step  # a track may begin long after the file
        return max(min(last + step, following - self._gap), last + self._gap)

    def _before(self, step: int) -> int | None:
        if self._last is None and self._start is not None:
            return self._start - step
        return self._last

    def _next(self, pts: int | None, step: int) -> int:
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
