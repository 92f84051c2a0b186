"""Options that several commands have. Imports nothing but typer, so that --help comes at once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

MODEL, TALK = "Model", "Messages"

Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        rich_help_panel=TALK,
        show_default=False,
        help="Tell more; -vv everything, with tracebacks.",
    ),
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", rich_help_panel=TALK, help="Tell errors only.")
]


def option(*names: str, panel: str, metavar: str | None = None, text: str) -> Any:
    """An option without a default to show, in a panel of the help."""
    return typer.Option(
        *names, help=text, metavar=metavar, rich_help_panel=panel, show_default=False
    )


Model = Annotated[
    str,
    typer.Option(
        "-m",
        "--model",
        metavar="BUNDLE",
        rich_help_panel=MODEL,
        help="Bundle: embedded name, folder or hub id.",
    ),
]
Runtime = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        rich_help_panel=MODEL,
        help="Runtime, as openvino; see nem-stream engines list.",
    ),
]
NoProgress = Annotated[
    bool, option("--no-progress", panel=TALK, text="No bar and no progress lines.")
]
