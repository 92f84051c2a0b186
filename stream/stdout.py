"""A stdout whose reader went away, or that takes no more."""

from __future__ import annotations

import os
import sys


def forget_stdout() -> None:
    """Point stdout at nothing, so that the flush at exit does not fail a second time."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
