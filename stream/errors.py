"""Errors of the stream; each carries the exit code the command line ends with.

    StreamError                 1
    ├── UsageError         (also ValueError)  2   options that can't be met
    ├── SourceError        (also OSError)     3   a source that can't be opened or read
    │   └── SourceLost                        4   a live source that went away
    └── SinkError          (also OSError)     5   output, encoder, disk, display

Engine and bundle errors end with 6 (see `stream.cli`).
"""

from __future__ import annotations


class StreamError(Exception):
    """Base of all errors raised by `stream`. The message says what to do about it."""

    exit_code = 1


class UsageError(StreamError, ValueError):
    """What was asked can't be done as asked."""

    exit_code = 2


class SourceError(StreamError, OSError):
    """A source can't be opened or read."""

    exit_code = 3


class SourceLost(SourceError):  # noqa: N818 - a state, as in exit code 4
    """A live source stopped delivering frames."""

    exit_code = 4


class SinkError(StreamError, OSError):
    """An output can't be opened or written."""

    exit_code = 5
