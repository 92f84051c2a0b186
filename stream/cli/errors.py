"""One place that turns an error into a line and an exit code.

0 done            3 source can't be opened or read    6 model, engine or bundle
1 internal error  4 live source lost                  129, 130, 143 cut short by a signal
2 usage           5 output, encoder, disk, display
"""

from __future__ import annotations

import errno
import logging
import traceback

from stream.cli.console import Console
from stream.errors import StreamError

INTERNAL, USAGE, OUTPUT, MODEL, INTERRUPTED = 1, 2, 5, 6, 130


def exit_code(error: BaseException) -> int:
    """The exit code an error ends the program with."""
    if isinstance(error, StreamError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError) or getattr(error, "errno", None) == errno.ENOSPC:
        return OUTPUT
    # Imported only now: whoever raised one of these has loaded it already.
    from engines.errors import EngineError, ExportError, OptionError
    from nem.errors import ArgumentError, DataError, MethodError, NemError, WriteError

    if isinstance(error, ArgumentError | DataError | MethodError | OptionError | PermissionError):
        return USAGE
    if isinstance(error, ExportError | WriteError):
        return OUTPUT
    return MODEL if isinstance(error, EngineError | NemError) else INTERNAL


def report(error: BaseException, console: Console, *, has_verbose: bool = True) -> int:
    """Tell of an error in one line, with -vv its traceback too; returns the exit code.

    A command without -v (`has_verbose` false) shows the traceback of an internal error at once.
    """
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        error = error.__context__  # typer's own answer to a closed stdout
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code  # who raised it has told why
    code = exit_code(error)
    traced = console.verbosity >= 2 or (code == INTERNAL and not has_verbose)
    if traced:
        traceback.print_exception(error)
    if code == INTERRUPTED:
        console.error("interrupted")
    elif isinstance(error, BrokenPipeError):
        logging.getLogger(__name__).debug("stdout was closed by its reader")
    elif code == INTERNAL:
        hint = "" if traced else "; run again with -vv for the traceback"
        console.error(f"internal error: {type(error).__name__}: {one_line(error)}{hint}")
    elif isinstance(error, PermissionError) and error.filename:
        console.error(f"{error.filename}: {error.strerror}; allow it, or give another path")
    else:
        console.error(one_line(error))
    return code


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
