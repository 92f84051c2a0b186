"""OpenCV's own threads, switched off while a pipeline runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_lock = threading.Lock()
_inside, _before = 0, 0


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV works in the thread that calls it; at the end of the last of these as it was before.

    Of small pictures its threads cost more than they bring. The number is the whole process's,
    and several pipelines may run and end in any order.
    """
    global _inside, _before
    with _lock:
        if not _inside:
            _before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                cv2.setNumThreads(_before)
