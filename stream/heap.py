"""The process's memory, kept small and steady over a long run."""

from __future__ import annotations

import ctypes
import sys

M_ARENA_MAX = -8
"""glibc's name for the number of heaps (`man mallopt`)."""


def one_heap() -> None:
    """All threads allocate from one heap; for a process of one's own, before its threads.

    glibc gives each thread a heap. Where threads share the stages of a file, each of them comes to
    hold free memory for everything: 80 MB more at 1080p, which never quite settles. Other systems
    are left as they are.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(M_ARENA_MAX, 1)
