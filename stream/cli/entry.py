"""The command line from its arguments to the exit code of the process."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import NoReturn

from stream.cli.console import PROGRAM, Console
from stream.cli.signals import requests
from stream.heap import one_heap
from stream.stdout import forget, occupy, refused

VERBOSE_COMMANDS = ("run", "train", "explain", "gallery")
COMMANDS = (*VERBOSE_COMMANDS, "bundles", "engines", "export", "doctor")


def with_command(arguments: Sequence[str]) -> list[str]:
    """The arguments with `run` in front unless they begin with a command or --version.

    So `nem-stream clip.mp4` runs; a file called train is given as ./train.
    """
    if arguments and arguments[0] in (*COMMANDS, "--version"):
        return list(arguments)
    return ["run", *(arguments or ["--help"])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; `sys.argv` by default.

    Returns:
        The exit code, see `stream.cli.errors`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    occupy()
    if sys.stderr is None:  # closed before the start: then no one wants to hear
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process
    if arguments is None:
        one_heap()
        # Through all `with` blocks, as Ctrl-C, so that no half-written file is left.
        for number in requests():
            signal.signal(number, _terminate)
    loud = sum(len(a) - 1 if re.fullmatch("-v+", a) else a == "--verbose" for a in given)
    console = Console(loud)
    try:
        code = _run(given, console)
    except BaseException as error:  # noqa: BLE001 - the last door: a line and a code
        from stream.cli.errors import report

        code = report(error, console, has_verbose=with_command(given)[0] in VERBOSE_COMMANDS)
    return code if arguments is not None else _leave(code)


def _run(given: list[str], console: Console) -> int:
    import typer

    from stream.cli.app import app

    # The parser's own errors; its module differs between versions of typer.
    parser_error: type[Exception] = typer.BadParameter.__mro__[2]
    named, is_group = _named(given)
    incomplete = is_group and len(named) == len(given)
    # Help that was not asked for is no result.
    place = redirect_stdout(sys.stderr) if incomplete else nullcontext()
    try:
        with place:
            code = app(with_command(given), prog_name=PROGRAM, standalone_mode=False)
    except parser_error as error:
        message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
        if message:  # without one it is that a command is missing, and its help was printed
            asked, _ = _named(with_command(given))
            console.error(f"{message.rstrip('.')}; see {' '.join((PROGRAM, *asked))} --help")
        return 2
    if incomplete:
        return 2
    return code if isinstance(code, int) else 0


def _named(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The words that name a command, and whether one of its own is still to be named.

    Asked of the arguments: not every error of the parser knows the command.
    """
    import typer

    from stream.cli.app import app

    names, within = [], typer.main.get_command(app)
    for word in arguments:
        command = getattr(within, "commands", {}).get(word)
        if command is None:
            break
        names.append(word)
        within = command
    return names, hasattr(within, "commands")


def _terminate(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _leave(code: int) -> int:
    """The code, after stdout was flushed; ends the process if a thread is hung in a driver."""
    try:
        if sys.stdout is not None:  # None: it was closed before the start
            sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # that is: the reader left
            Console().error(refused("writing", error))
        forget(sys.stdout)
        code = code or 5
    if any(thread.name.startswith("nem-") for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(code)
    return code
