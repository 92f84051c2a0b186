"""A stdout or stderr that was closed, whose reader went away, or that takes no more."""

from __future__ import annotations

import os
from typing import TextIO


def occupy() -> None:
    """Open stdin, stdout and stderr onto nothing where they were closed before the start.

    Else the next file that is opened gets their number, and what is told is written into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def refused(what: str, error: OSError) -> str:
    """The line that tells of a stdout that takes no more, with what to do."""
    return f"stdout: {what} failed: {error.strerror}; make room, or send it elsewhere"


def forget(stream: TextIO) -> None:
    """Point stdout or stderr at nothing, so that nothing written to it later fails again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
