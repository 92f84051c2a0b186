"""Keep the thread's signal stack when a library puts its own in place.

OpenVINO's CPU plugin gives the thread that loads it a signal stack (`sigaltstack`) and puts the
former one back when it goes. Two of them closed in the order they were opened leave a pointer to
freed memory, and the next signal that Python handles (Ctrl-C, the end of a child) kills the
process. So what was there before is put back at once.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    _fields_ = (
        ("base", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Put the calling thread's signal stack back afterwards. Does nothing outside Linux."""
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None)
    before = _Stack()
    known = libc.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            libc.sigaltstack(ctypes.byref(before), None)
