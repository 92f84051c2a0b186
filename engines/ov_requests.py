"""Requests by batch size: as many of each as there were calls at the same time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from engines.signal_stack import kept_signal_stack

SHAPES_KEPT = 4
"""Batch sizes kept in memory; each request holds the weights once more."""


class Requests:
    """Lends requests to callers.

    Each has a compiled model of its own: requests that share one are run by OpenVINO's threads and
    not by the caller's, who waits for those to wake up.

    Args:
        compiled: makes a model for so many frames.
    """

    def __init__(self, compiled: Callable[[int], Any]) -> None:
        self._compiled = compiled
        self._idle: OrderedDict[int, list[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[int]:
        """The batch sizes kept, the one used last at the end."""
        return iter(self._idle)

    def make(self, batch: int, count: int) -> Any:
        """Make so many for such a batch ahead of the calls, side by side; the last one's model."""
        if count == 1:
            made = [self._compiled(batch).create_infer_request()]  # the first call runs it
        else:
            with ThreadPoolExecutor(count) as pool:
                made = list(pool.map(self._ready, [batch] * count))
        self._idle.setdefault(batch, []).extend(made)
        return made[-1].get_compiled_model()

    def _ready(self, batch: int) -> Any:
        """One that has run, and so has its memory: calls may meet for the first time much later."""
        request = self._compiled(batch).create_infer_request()
        for tensor in request.input_tensors:
            tensor.data[:] = 0
        request.infer()
        return request

    @contextmanager
    def lent(self, batch: int) -> Iterator[Any]:
        """A request for so many frames that no one else has; made if there is none."""
        with self._lock:
            idle = self._idle.setdefault(batch, [])
            self._idle.move_to_end(batch)
            if not idle:
                self.make(batch, 1)
            request = idle.pop()
            if len(self._idle) > SHAPES_KEPT:
                with kept_signal_stack():  # freeing a compiled model replaces it, too
                    self._idle.popitem(last=False)
        try:
            yield request
        finally:
            idle.append(request)

    def held(self) -> list[Any]:
        """All idle requests."""
        return [request for some in self._idle.values() for request in some]

    def clear(self) -> None:
        """Let go of all."""
        self._idle.clear()

    def forked(self) -> None:
        """In a forked process: a thread of the parent may hold the lock."""
        self._lock = threading.Lock()
