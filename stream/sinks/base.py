"""The sink contract: takes annotated frames, ends whole or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from nem.explanation import Explanation
from stream.frame import Frame


class Sink(ABC):
    """Takes frames in order. The constructor opens and checks, before any frame is computed.

    A pipeline calls `write` on one thread at a time, but not always on the same one.
    """

    @abstractmethod
    def write(self, frame: Frame, explanation: Explanation) -> None:
        """Take one annotated frame and the explanation drawn on it (N = 1).

        Raises:
            SinkError: if it can't be shown or written.
        """

    def stop_requested(self) -> bool:
        """True once nobody wants more (a closed window, the key q, a closed pipe)."""
        return False

    def interrupt(self) -> None:  # noqa: B027 - most sinks never wait
        """End a wait inside `write` (a paused window). Safe in a signal handler."""

    @abstractmethod
    def close(self, *, whole: bool = True) -> None:
        """Finish and free. Closing twice is fine; only the first call counts.

        Args:
            whole: False when the run was cut short or failed: what was written stays readable,
                but never under the name of a finished output.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(whole=kind is None)


def close_all(sinks: Sequence[Sink], *, whole: bool) -> None:
    """Close all sinks, also after one of them failed; the first failure is raised."""
    if not sinks:
        return
    try:
        sinks[0].close(whole=whole)
    finally:
        close_all(sinks[1:], whole=whole)
