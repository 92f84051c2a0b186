"""Settings of the whole process that several threads need changed for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Setting:
    """A setting of the whole process, changed as long as any thread needs it.

    Args:
        change: changes it and returns what puts it back.
    """

    def __init__(self, change: Callable[[], Callable[[], object]]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._needed = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Changed inside; at the end of the last who need it as it was before the first."""
        with self._lock:
            if not self._needed:
                self._restore = self._change()
            self._needed += 1
        try:
            yield
        finally:
            with self._lock:
                self._needed -= 1
                if not self._needed:
                    self._restore()
