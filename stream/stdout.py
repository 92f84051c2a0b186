"""A stdout or stderr whose reader went away, or that takes no more."""

from __future__ import annotations

import os
from typing import TextIO


def forget(stream: TextIO) -> None:
    """Point stdout or stderr at nothing, so that nothing written to it later fails again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
