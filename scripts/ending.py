"""How scripts begin and end: what they are given, and a line where something goes wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from tarfile import TarError
from typing import NoReturn

from engines.errors import EngineError
from nem.errors import NemError
from stream.errors import StreamError


def new_file(text: str) -> Path:
    """A file to be written, for argparse. Makes its folder, lest work is lost at the end."""
    path = Path(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def count(text: str, least: int = 1) -> int:
    """A number from `least`, for argparse."""
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{value}: must be at least {least}")
    return value


def repeats(text: str) -> int:
    """How often something is timed, for argparse: percentiles need two times."""
    return count(text, 2)


def launch(main: Callable[[], int | None]) -> NoReturn:
    """End the process with the status of `main`; an error that is no bug, and Ctrl-C, in a line."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except (EngineError, NemError, StreamError, OSError, TarError) as error:
        sys.exit(" ".join(str(error).split()))
