"""The commands of `nem-stream`. What they do is in the modules beside this one."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.cli.console import PROGRAM
from stream.cli.explain_command import explain
from stream.cli.gallery_command import gallery
from stream.cli.other_commands import bundles, doctor, engines, export
from stream.cli.run_command import run
from stream.cli.train_command import train

app = typer.Typer(
    name=PROGRAM,
    help="Show what a frozen vision model looks at, on video.",
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run)
app.command()(explain)
app.command()(train)
app.add_typer(bundles, name="bundles")
app.add_typer(engines, name="engines")
app.add_typer(gallery, name="gallery")
app.command()(export)
app.command()(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"{PROGRAM} {version(PROGRAM)}")
        except PackageNotFoundError:
            print(f"{PROGRAM}, run from its source folder, not installed")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
