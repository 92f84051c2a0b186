"""Words for people: on stderr, one line each; stdout belongs to what was asked for."""

from __future__ import annotations

import logging
import os
import sys

from stream.errors import SinkError, UsageError
from stream.redact import redact
from stream.stdout import forget, refused

PROGRAM = "nem-stream"
OWN = ("nem", "engines", "stream")
"""The packages of the program."""


def start_console(*, quiet: bool, verbose: int = 0) -> Console:
    """The console of a command, with logging started.

    Raises:
        UsageError: both quiet and verbose.
    """
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other; give one")
    console = Console(-1 if quiet else verbose)
    console.start_logging()
    return console


def printable(text: str) -> str:
    """`text` with what steers a terminal spelled out: names and notes come from others' files."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def show(text: str) -> None:
    """Print a line of what was asked for on stdout.

    Raises:
        BrokenPipeError: its reader left.
        SinkError: it takes no more.
    """
    try:
        print(printable(text))
    except BrokenPipeError:
        raise
    except OSError as error:
        forget(sys.stdout)
        raise SinkError(refused("writing", error)) from error


class Console:
    """Prints to stderr as much as was asked for, without passwords of URLs.

    Args:
        verbosity: -1 errors only, 0 usual, 1 more, 2 everything, with tracebacks.
    """

    def __init__(self, verbosity: int = 0) -> None:
        self.verbosity = verbosity

    @property
    def interactive(self) -> bool:
        """True if a person at a terminal reads along."""
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def say(self, text: str) -> None:
        """Print unless quiet."""
        if self.verbosity >= 0:
            _print(text)

    def detail(self, text: str) -> None:
        """Print with -v."""
        if self.verbosity >= 1:
            _print(text)

    def error(self, text: str) -> None:
        """Print always, marked as an error."""
        mark = "error:"
        if self.interactive and not os.environ.get("NO_COLOR"):
            mark = f"\033[1;31m{mark}\033[0m"
        _print(text, f"{PROGRAM}: {mark} ")

    def start_logging(self) -> None:
        """Send what the packages log to stderr, from the level that was asked for."""
        levels = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}
        handler = logging.StreamHandler()
        handler.setFormatter(_Plain(named=self.verbosity > 0))
        logging.basicConfig(level=levels.get(self.verbosity, logging.DEBUG), handlers=[handler])


class _Plain(logging.Formatter):
    """Log lines that read as the program's own.

    Args:
        named: tell the logger's name of the program's packages, too.
    """

    def __init__(self, *, named: bool) -> None:
        super().__init__()
        self._named = named

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        named = self._named or record.name.partition(".")[0] not in OWN
        name = f"{record.name}: " if named else ""
        return _plain(f"{PROGRAM}: {record.levelname.lower()}: {name}{record.message}")


def _plain(text: str) -> str:
    return printable(redact(text))


def _print(text: str, lead: str = "") -> None:
    try:
        print(lead + _plain(text), file=sys.stderr, flush=True)
    except OSError:  # the terminal was closed, or who read the log left: no reason to end a run
        forget(sys.stderr)
