"""What a process opened and those that it forks must not free.

OpenVINO would wait there for ever for its threads, of which a fork takes none along.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from typing import Protocol
from weakref import WeakSet


class Holder(Protocol):
    """Whoever holds such objects."""

    def forked(self) -> Iterable[object]:
        """Called in a forked process: the objects that are never to be freed there."""


_holders: WeakSet[Holder] = WeakSet()


def keep_in_children(holder: Holder) -> None:
    """From now on, until the holder is gone, forked processes never free what it holds."""
    _holders.add(holder)


def _keep() -> None:
    for holder in list(_holders):
        for held in holder.forked():
            # One reference that no one gives back, not even the interpreter at its end.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


if hasattr(os, "register_at_fork"):  # Windows forks nothing
    os.register_at_fork(after_in_child=_keep)
