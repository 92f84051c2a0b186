"""`bundles`, `engines` and `doctor`: their options. Imports nothing but typer."""

from __future__ import annotations

from typing import Annotated

import typer

bundles = typer.Typer(
    help="List, show and check bundles: models with their explainers.",
    no_args_is_help=True,
)
engines = typer.Typer(
    help="List the engines; check or clear the compiled models they keep.",
    no_args_is_help=True,
)


@bundles.command("list")
def list_bundles() -> None:
    """List the embedded bundles, one per line."""
    from stream.cli.bundles import print_list

    print_list()


@bundles.command("show")
def show_bundle(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Embedded name, folder or hub id.")],
) -> None:
    """Show what a bundle is: model, decoder, training, figures, files."""
    from stream.cli.bundles import print_bundle

    print_bundle(name)


@bundles.command("check")
def check_bundle(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Embedded name, folder or hub id.")],
) -> None:
    """Check a bundle: its files against its manifest, then one run of its graph."""
    from stream.cli.bundles import check

    check(path)


@engines.command("list")
def list_engines() -> None:
    """List all engines, and why one is unavailable."""
    from stream.cli.engines import print_engines

    print_engines()


@engines.command("verify")
def verify_engines() -> int:
    """Check the compiled models kept on disk; exit code 6 if one is damaged."""
    from stream.cli.engines import verify

    return verify()


@engines.command("prune")
def prune_engines(
    days: Annotated[
        float, typer.Option(metavar="N", min=0, help="Keep what was used in the last N days.")
    ] = 30.0,
) -> None:
    """Delete compiled models that are damaged or long unused; they are made anew when needed."""
    from stream.cli.engines import prune

    prune(days)


def doctor() -> int:
    """Check what this machine can do: codecs, display, cameras, engines, bundles.

    The exit code is 0 if a video file can be explained here.
    """
    from stream.cli.doctor import examine

    return examine()
