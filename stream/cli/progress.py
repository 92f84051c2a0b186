"""Progress on stderr: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Self

from stream.cli.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from stream.frame import Frame

LINE_SECONDS = 10.0
REDRAW_SECONDS = 0.1


class Progress(ABC):
    """Counts frames and tells of them now and then. Use as `with`; call with each frame.

    How much is done goes by the number of frames where the source tells it, else by their time.

    Args:
        total: frames the source claims to have, or None.
        seconds: length the source claims, or None.
        every: seconds between two tellings.
        clock: seconds.
    """

    def __init__(
        self,
        total: int | None,
        seconds: float | None,
        *,
        every: float,
        clock: Callable[[], float],
    ) -> None:
        self._total, self._seconds = total, seconds
        self._every, self._clock = every, clock
        self._frames = 0
        self._first: float | None = None
        self._share: float | None = 0.0 if total or seconds else None
        self._began = self._told = clock()

    def __call__(self, frame: Frame | None = None) -> None:
        """Count one frame."""
        self._frames += 1
        if self._total:
            self._share = self._frames / self._total
        elif self._seconds and frame is not None:
            self._first = frame.pts_seconds if self._first is None else self._first
            self._share = (frame.pts_seconds - self._first) / self._seconds
        if self._share is not None and self._share > 1:  # it claimed too little
            self._total = self._seconds = self._share = None
        now = self._clock()
        if now - self._told >= self._every:
            self._told = now
            self._tell(self._frames / (now - self._began))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @abstractmethod
    def _tell(self, fps: float) -> None:
        """Show `self._frames`, which are the `self._share` of all if that is known, at `fps`."""


class Lines(Progress):
    """One line every ten seconds: for logs and pipes."""

    def __init__(
        self,
        total: int | None,
        seconds: float | None,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(total, seconds, every=LINE_SECONDS, clock=clock)
        self._console = console

    def _tell(self, fps: float) -> None:
        of = f" of {self._total}" if self._total else ""
        if self._share is not None:
            of += f" ({self._share:.0%})".replace("%", " %")
        self._console.say(f"{self._frames} frames{of}, {fps:.1f} fps")


class Bar(Progress):
    """A bar that redraws itself in place, without a thread of its own."""

    def __init__(
        self,
        total: int | None,
        seconds: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        super().__init__(total, seconds, every=REDRAW_SECONDS, clock=clock)
        self._bar: RichProgress = Progress(
            TextColumn("{task.fields[frames]} frames"),
            BarColumn(),
            TextColumn("{task.fields[fps]:.1f} fps"),
            TaskProgressColumn("{task.percentage:.0f} %", text_format_no_percentage=""),
            TimeRemainingColumn(),
            console=RichConsole(stderr=True),
            auto_refresh=False,
            transient=True,
        )
        whole = None if self._share is None else 1.0
        self._task = self._bar.add_task("", total=whole, frames=0, fps=0.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _tell(self, fps: float) -> None:
        if self._share is None:
            self._bar.tasks[0].total = None
        self._bar.update(
            self._task, completed=self._share or 0.0, frames=self._frames, fps=fps, refresh=True
        )


def open_progress(
    total: int | None, console: Console, *, wanted: bool, seconds: float | None = None
) -> AbstractContextManager[Callable[..., None]]:
    """The kind of progress that fits: a bar for a person, lines for a log, nothing if quiet."""
    if not wanted or console.verbosity < 0:
        return nullcontext(lambda *_: None)
    return Bar(total, seconds) if console.interactive else Lines(total, seconds, console)
