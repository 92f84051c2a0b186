"""What the C library knows of this process."""

from __future__ import annotations

import ctypes
import sys


class _Stack(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> int | None:
    """Address of this thread's signal stack, None without one or outside Linux."""
    if sys.platform != "linux":
        return None
    stack = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack.base
