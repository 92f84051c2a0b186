"""Options that several commands have. Imports nothing but typer, so that --help comes at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

MODEL, TALK = "Model", "Messages"


def option(*names: str, panel: str, metavar: str | None = None, text: str) -> Any:
    """An option without a default to show, in a panel of the help."""
    return typer.Option(
        *names, help=text, metavar=metavar, rich_help_panel=panel, show_default=False
    )


def of_model(name: str, text: str, *short: str, metavar: str = "NAME") -> Any:
    """An option that says which model is run and how, with its default shown."""
    return typer.Option(*short, name, metavar=metavar, rich_help_panel=MODEL, help=text)


Model = Annotated[
    str,
    of_model("--model", "Bundle: embedded name, folder or hub id.", "-m", metavar="BUNDLE"),
]
Runtime = Annotated[str, of_model("--engine", "Runtime, as openvino; see nem-stream engines list.")]
Device = Annotated[str, of_model("--device", "cpu, cuda or cuda:N; auto takes a GPU where it can.")]
Precision = Annotated[
    str,
    of_model(
        "--precision", "fp32, fp16 (GPU), bf16; auto: best here. Calibrated: int8, fp8 (GPU)."
    ),
]
Calibrate = Annotated[
    Path | None,
    option(
        "--calibrate",
        panel=MODEL,
        metavar="PATH",
        text="Pictures or videos for int8 and fp8, to find ranges with.",
    ),
]
Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        metavar=" ",  # else as if a number had to follow
        rich_help_panel=TALK,
        show_default=False,
        help="Tell more; -vv everything, with tracebacks.",
    ),
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", rich_help_panel=TALK, help="Tell errors only.")
]
NoProgress = Annotated[
    bool, option("--no-progress", panel=TALK, text="No bar and no progress lines.")
]
