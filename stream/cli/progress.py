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

LINE_SECONDS = 10.0
REDRAW_SECONDS = 0.1


class Progress(ABC):
    """Counts frames and tells of them now and then. Use as `with`; call once per frame.

    Args:
        total: frames the source claims to have, or None.
        every: seconds between two tellings.
        clock: seconds.
    """

    def __init__(self, total: int | None, *, every: float, clock: Callable[[], float]) -> None:
        self._total, self._every, self._clock = total, every, clock
        self._frames = 0
        self._began = self._told = clock()

    def __call__(self, _: object = None) -> None:
        """Count one frame."""
        self._frames += 1
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
        """Show `self._frames` of `self._total` at `fps`."""


class Lines(Progress):
    """One line every ten seconds: for logs and pipes."""

    def __init__(
        self, total: int | None, console: Console, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(total, every=LINE_SECONDS, clock=clock)
        self._console = console

    def _tell(self, fps: float) -> None:
        of = ""
        if self._total:
            of = f" of {self._total} ({100 * self._frames / self._total:.0f} %)"
        self._console.say(f"{self._frames} frames{of}, {fps:.1f} fps")


class Bar(Progress):
    """A bar that redraws itself in place, without a thread of its own."""

    def __init__(self, total: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__(total, every=REDRAW_SECONDS, clock=clock)
        columns = [TextColumn("{task.completed} frames"), BarColumn()]
        columns += [TextColumn("{task.fields[fps]:.1f} fps")]
        if total:
            columns += [TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn()]
        self._bar: RichProgress = Progress(
            *columns, console=RichConsole(stderr=True), auto_refresh=False, transient=True
        )
        self._task = self._bar.add_task("", total=total, fps=0.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _tell(self, fps: float) -> None:
        self._bar.update(self._task, completed=self._frames, fps=fps, refresh=True)


def open_progress(
    total: int | None, console: Console, *, wanted: bool
) -> AbstractContextManager[Callable[..., None]]:
    """The kind of progress that fits: a bar for a person, lines for a log, nothing if quiet."""
    if not wanted or console.verbosity < 0:
        return nullcontext(lambda *_: None)
    return Bar(total) if console.interactive else Lines(total, console)
