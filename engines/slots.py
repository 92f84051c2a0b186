"""How many may be in a place at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Slots:
    """As a lock, but for `count` holders; who needs the place alone takes `all`.

    Args:
        count: holders at the same time, >= 1.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = threading.Semaphore(count)
        self._alone = threading.Lock()

    def __enter__(self) -> None:
        self._free.acquire()

    def __exit__(self, *_: object) -> None:
        self._free.release()

    @contextmanager
    def all(self) -> Iterator[None]:
        """Wait until all others are out, and keep them out."""
        with self._alone:
            for _ in range(self._count):
                self._free.acquire()
            try:
                yield
            finally:
                self._free.release(self._count)
