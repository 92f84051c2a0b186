"""The command `nem-stream`. Entry point: `main`.

nem-stream clip.mp4            clip.nem.mp4 with its mask, beside it
nem-stream --camera 0          a window with what the model looks at
nem-stream demo|train|explain|gallery|bundles|engines|export|doctor
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; `sys.argv` by default.

    Returns:
        The exit code, see `stream.cli.errors`.
    """
    try:  # nothing was imported before, so that Ctrl-C at the start ends in a line too
        from stream.cli import entry
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("nem-stream: error: interrupted\n")
        return 130
    return entry.main(arguments)
