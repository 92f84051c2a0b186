"""`nem-stream [run]`: its options. Imports nothing but typer."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.cli.console import start_console
from stream.cli.shared import (
    MODEL,
    Calibrate,
    Device,
    Model,
    NoProgress,
    Precision,
    Quiet,
    Runtime,
    Verbose,
    option,
)

INPUT, LOOK, OUTPUT = "Input", "Look", "Output"


def run(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="Video file, picture, folder, glob in quotes, or demo.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Argument(
            metavar="OUTPUT",
            help="Video to write, .mp4 or .mkv; none for no video. Default: clip.nem.mp4 beside "
            "clip.mp4; for live sources a window.",
            show_default=False,
        ),
    ] = None,
    source_: Annotated[
        str | None, option("-s", "--source", panel=INPUT, metavar="SOURCE", text="As SOURCE.")
    ] = None,
    camera: Annotated[
        str | None,
        option("--camera", panel=INPUT, metavar="N|PATH", text="Camera: number or device path."),
    ] = None,
    size: Annotated[
        str | None,
        option(
            "--size",
            panel=INPUT,
            metavar="WxH",
            text="Wanted of a camera, or of the demo (default: 1280x720).",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        option(
            "--fps",
            panel=INPUT,
            metavar="N",
            text="Wanted of a camera, or of the demo (default: 30) or pictures (25).",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        option(
            "--frames",
            panel=INPUT,
            metavar="N",
            text="Of the demo: stop after N frames; default: never.",
        ),
    ] = None,
    decode: Annotated[
        str | None,
        option(
            "--decode",
            panel=INPUT,
            metavar="NAME",
            text="Of a video file: cpu, cuda or auto; default: cpu.",
        ),
    ] = None,
    model: Model = "nem-tiny",
    engine: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            metavar="N",
            min=1,
            max=64,
            rich_help_panel=MODEL,
            show_default=False,
            help="Frames of a file computed at once; default: 4 on openvino, else 1.",
        ),
    ] = None,
    calibrate: Calibrate = None,
    explain: Annotated[
        str | None,
        option(
            "-e",
            "--explain",
            panel=LOOK,
            metavar="AIM",
            text="embedding, class, ranking or target; default: the bundle's first.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        option(
            "-t",
            "--target",
            panel=LOOK,
            metavar="NAME|N",
            text="Class to explain, by name or number, as nem-stream bundles show lists them; "
            "needs no --explain.",
        ),
    ] = None,
    style: Annotated[
        str,
        typer.Option(
            "--style", metavar="NAME", rich_help_panel=LOOK, help="heat, contour, dim or side."
        ),
    ] = "heat",
    colormap: Annotated[
        str,
        typer.Option(
            "--colormap",
            metavar="NAME",
            rich_help_panel=LOOK,
            help="inferno, magma, viridis, cividis, turbo or hot.",
        ),
    ] = "inferno",
    strength: Annotated[
        float,
        typer.Option(
            "--strength",
            metavar="SHARE",
            rich_help_panel=LOOK,
            help="Opacity of the mask, up to 1.",
        ),
    ] = 0.65,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", metavar="SHARE", rich_help_panel=LOOK, help="Mask level of the contour."
        ),
    ] = 0.5,
    label: Annotated[
        int,
        typer.Option(
            "--label",
            metavar="K",
            rich_help_panel=LOOK,
            help="Classes in the label line; 0 for none.",
        ),
    ] = 3,
    smooth: Annotated[
        bool | None,
        option(
            "--smooth/--no-smooth",
            panel=LOOK,
            text="Steady the mask over time; default: live sources only.",
        ),
    ] = None,
    output_: Annotated[
        str | None, option("-o", "--output", panel=OUTPUT, metavar="OUTPUT", text="As OUTPUT.")
    ] = None,
    overwrite: Annotated[
        bool, option("--overwrite", panel=OUTPUT, text="Replace an output that exists.")
    ] = False,
    scores: Annotated[
        str | None,
        option(
            "--scores", panel=OUTPUT, metavar="PATH|-", text="One JSON line per frame; - is stdout."
        ),
    ] = None,
    show: Annotated[
        bool | None,
        option(
            "--show/--headless",
            panel=OUTPUT,
            text="Open a window; default: live sources without output.",
        ),
    ] = None,
    codec: Annotated[
        str | None,
        option(
            "--codec",
            panel=OUTPUT,
            metavar="NAME",
            text="Video encoder, as h264_nvenc; auto takes a GPU's; default: libx264.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        option(
            "--preset",
            panel=OUTPUT,
            metavar="NAME",
            text="Speed of the encoder; default: ultrafast, of NVENC p4.",
        ),
    ] = None,
    crf: Annotated[
        float | None,
        option(
            "--crf",
            panel=OUTPUT,
            metavar="N",
            text="Quality, lower is better; default of libx264: 20, of its ultrafast qp 25.",
        ),
    ] = None,
    no_progress: NoProgress = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> int:
    """Draw on every frame of a video what a vision model looks at.

    [bold]nem-stream clip.mp4[/]          writes clip.nem.mp4 beside it
    [bold]nem-stream clip.mp4 out.mkv[/]  writes out.mkv
    [bold]nem-stream --camera 0[/]        opens a window
    [bold]nem-stream demo[/]              the same without a camera

    Sound and subtitles are copied. Ctrl-C finishes the frames under way and
    leaves a playable file; a second Ctrl-C stops at once.

    The word run can be left out. Other commands, each with --help:
    [bold]train explain gallery bundles engines export doctor[/]
    [bold]nem-stream --version[/]         prints the version
    """
    from stream.cli.options import Options, pick_places, read_wishes
    from stream.cli.session import run_session
    from stream.overlay import Overlay

    console = start_console(quiet=quiet, verbose=verbose)
    place, is_camera, video = pick_places(
        (source, output), source=source_, camera=camera, output=output_
    )
    encoder = {"codec": codec, "preset": preset, "crf": crf}
    options = Options(
        source=place,
        is_camera=is_camera,
        wishes=read_wishes(size, fps, frames, decode),
        output=video,
        scores=scores,
        show=show,
        overwrite=overwrite,
        model=model,
        engine=engine,
        device=device,
        precision=precision,
        batch=batch,
        calibrate=calibrate,
        explain=explain,
        target=target,
        overlay=Overlay(style, colormap, strength, threshold, label),  # type: ignore[arg-type]
        smooth=smooth,
        encoder={name: value for name, value in encoder.items() if value is not None},
        progress=not no_progress,
    )
    return run_session(options, console)
