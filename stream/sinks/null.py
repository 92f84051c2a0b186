"""A sink that takes everything and keeps nothing: for timing, and for runs that only count."""

from __future__ import annotations

from nem.explanation import Explanation
from stream.frame import Frame
from stream.sinks.base import Sink


class NullSink(Sink):
    """Counts frames.

    Attributes:
        frames: taken so far.
    """

    def __init__(self) -> None:
        self.frames = 0

    def write(self, frame: Frame, explanation: Explanation) -> None:
        """Count the frame."""
        self.frames += 1

    def close(self, *, whole: bool = True) -> None:
        """Nothing to free."""
