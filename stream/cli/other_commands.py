"""`bundles`, `engines`, `export` and `doctor`: their options. Imports nothing but typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stream.cli.console import start_console
from stream.cli.shared import (
    MODEL,
    Calibrate,
    Device,
    Model,
    Precision,
    Quiet,
    Runtime,
    of_model,
    option,
)

Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="Embedded name, folder or hub id.")]


def _of_frames(usual: str) -> Any:
    """The option that says for what frames something is made; `usual` is its default in words."""
    text = f"Size of the frames it takes; default: {usual}."
    return option("--frame", panel=MODEL, metavar="WxH", text=text)


bundles = typer.Typer(
    help="List, show and check bundles: models with their explainers.",
    no_args_is_help=True,
)
engines = typer.Typer(
    help="List the engines; build, verify or prune the compiled models they keep.",
    no_args_is_help=True,
)


@bundles.command("list")
def list_bundles() -> None:
    """List the embedded bundles, one per line."""
    from stream.cli.bundles import print_list

    print_list()


@bundles.command("show")
def show_bundle(bundle: Bundle) -> None:
    """Show what a bundle is: model, decoder, classes, training, figures."""
    from stream.cli.bundles import print_bundle

    print_bundle(bundle)


@bundles.command("check")
def check_bundle(bundle: Bundle) -> None:
    """Check a bundle: its files against its manifest, then one run of its graph."""
    from stream.cli.bundles import check

    check(bundle)


@engines.command("list")
def list_engines() -> None:
    """List all engines, and why one is unavailable."""
    from stream.cli.engines import print_engines

    print_engines()


@engines.command("build")
def build_engine(
    model: Model = "nem-tiny",
    engine: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    frame: Annotated[
        str | None,
        _of_frames("the model's own"),
    ] = None,
    batch: Annotated[
        int | None,
        option(
            "--batch",
            panel=MODEL,
            metavar="N",
            text="Frames computed at once; default: those that runs take.",
        ),
    ] = None,
    dynamic: Annotated[
        bool, option("--dynamic", panel=MODEL, text="Of TensorRT: also take fewer than --batch.")
    ] = False,
    calibrate: Calibrate = None,
    quiet: Quiet = False,
) -> int:
    """Compile a model ahead of time, so that the first run starts at once.

    Built is what runs open: of a camera or window all heads, of a file on a CPU
    the bundle's first head alone.

    A GPU's engine fits this very GPU, driver and TensorRT; it is built on the
    machine that runs it. Exit code 5 if it can't be kept.
    """
    from stream.cli.engines import build

    console = start_console(quiet=quiet)
    return build(model, engine, device, precision, frame, batch, dynamic, calibrate, console)


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


def export(
    format_: Annotated[
        str, typer.Option("--format", metavar="NAME", help="onnx, openvino or tensorrt.")
    ],
    output: Annotated[
        Path | None,
        typer.Argument(metavar="OUTPUT", help="File to write; default: the bundle's name."),
    ] = None,
    model: Model = "nem-tiny",
    precision: Annotated[
        str,
        of_model("--precision", "fp32, fp16 or, for tensorrt, bf16; auto: fp32, tensorrt: fp16."),
    ] = "auto",
    frame: Annotated[
        str | None,
        _of_frames("any; tensorrt, onnx fp16: the model's own"),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            "--batch",
            metavar="N",
            min=1,
            rich_help_panel=MODEL,
            show_default=False,
            help="Frames computed at once; default: any number, of one frame size 1.",
        ),
    ] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a model with its explainer as one file for another runtime.

    Frames in (RGB, uint8), maps out: resizing and normalising are inside. How
    to run it on edge devices is in docs/edge.md.
    """
    from stream.cli.engines import export_bundle

    console = start_console(quiet=quiet)
    export_bundle(model, output, format_, precision, frame, batch, overwrite, console)


def doctor() -> int:
    """Check what this machine can do: codecs, display, cameras, engines, bundles.

    The exit code is 0 if a video file can be explained here.
    """
    from stream.cli.doctor import examine

    return examine()
