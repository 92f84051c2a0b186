"""The common half of all sources: one pass, and a close that any thread may call."""

from __future__ import annotations

from abc import abstractmethod
from threading import Event, Lock

from stream.frame import Frame
from stream.sources.base import Source


class PulledSource(Source):
    """A source read one frame at a time, by one thread at a time.

    Decoders and cameras are not thread-safe, so `close` never touches them while a frame is being
    read: it raises a flag and wakes the reader, and whoever leaves last frees them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._closing = Event()
        self._reading = Lock()
        self._freed = False

    def __iter__(self) -> PulledSource:
        """The source itself; see `Source.__iter__`."""
        return self

    def __next__(self) -> Frame:
        """The next frame.

        Raises:
            SourceError: if the source can't be read on.
            StopIteration: at the end and after `close`.
        """
        try:
            with self._reading:
                frame = None if self._closing.is_set() else self._read()
        except BaseException:
            self._closing.set()
            self._free_once()
            raise
        if frame is None:
            self._closing.set()
        if self._closing.is_set():
            self._free_once()
            raise StopIteration
        assert frame is not None
        return frame

    def close(self) -> None:
        """Free the source; safe from another thread while iterating, safe to call twice."""
        self._closing.set()
        self._wake()
        self._free_once()

    def _free_once(self) -> None:
        # A reader inside `_read` holds the lock; it comes here itself when it gets out.
        if self._reading.acquire(blocking=False):
            try:
                if not self._freed:
                    self._freed = True
                    self._free()
            finally:
                self._reading.release()

    @abstractmethod
    def _read(self) -> Frame | None:
        """The next frame, or None at the end."""

    @abstractmethod
    def _free(self) -> None:
        """Free everything; called once, never during `_read`."""

    def _wake(self) -> None:
        """Make a waiting `_read` return soon; called by `close`, maybe several times."""
