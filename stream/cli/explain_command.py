"""`nem-stream explain`: its options. Imports nothing but typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.cli.console import start_console
from stream.cli.shared import Model, Quiet, Verbose, option

WHAT, HOW, WHERE = "What", "How", "Where"


def explain(
    image: Annotated[
        str | None,
        typer.Argument(metavar="IMAGE|VIDEO", help="Picture or video.", show_default=False),
    ] = None,
    methods: Annotated[
        str | None,
        option(
            "--methods",
            panel=WHAT,
            metavar="NAME,...",
            text="Side by side, in this order; --methods list names all, without a picture. "
            "Default: the bundle's heads, relax, grad-cam.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option(
            "-o",
            "--out",
            panel=WHERE,
            metavar="FILE",
            text="Panel to write, .png or .jpg; default: IMAGE.panel.png.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, option("--overwrite", panel=WHERE, text="Replace a file that exists.")
    ] = False,
    at: Annotated[
        float | None,
        option("--at", panel=WHAT, metavar="SECONDS", text="Time in a video; default: 0."),
    ] = None,
    model: Model = "nem-tiny",
    target: Annotated[
        str | None,
        option(
            "--target",
            panel=WHAT,
            metavar="NAME|N",
            text="Class to explain; default: the most probable one.",
        ),
    ] = None,
    gallery: Annotated[
        Path | None,
        option(
            "--gallery",
            panel=WHAT,
            metavar="FILE",
            text="Add the pictures of a gallery that look most like it to the model.",
        ),
    ] = None,
    statistics: Annotated[
        Path | None,
        option(
            "--statistics",
            panel=HOW,
            metavar="DIR",
            text="Pictures such as the model is used on, for iba.",
        ),
    ] = None,
    masks: Annotated[
        int,
        typer.Option(
            metavar="N", min=2, rich_help_panel=HOW, help="Random masks of relax, u-relax, rise..."
        ),
    ] = 3000,
    memory_mb: Annotated[
        int, typer.Option(metavar="N", min=1, rich_help_panel=HOW, help="For one run of pictures.")
    ] = 512,
    seed: Annotated[int, typer.Option(metavar="N", rich_help_panel=HOW, help="Of all chance.")] = 0,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> int:
    r"""Explain one picture by several methods, side by side.

    [bold]nem-stream explain cat.jpg --methods nem-u,relax,grad-cam[/]

    Under each map: its time and runs of the model (relax, u-relax: how far
    off so many masks may leave a pixel's mean cosine, with 99 % probability);
    the share of the picture it marks, how much of the model's features (cosine)
    that share alone keeps, and how much as large a share at random places; of a
    class its probability for the whole picture and for that share alone.
    --target goes to the methods that take one. Needs the extra:
    [bold]pip install 'nem-stream\[eval]'[/]
    """  # fmt: skip
    from stream.cli.explain import Request, explain_picture

    console = start_console(quiet=quiet, verbose=verbose)
    named = None if methods is None else tuple(m.strip() for m in methods.split(",") if m.strip())
    request = Request(
        image=image or "", methods=named, out=out, overwrite=overwrite, at=at, model=model,
        target=target, gallery=gallery, statistics=statistics, masks=masks, memory_mb=memory_mb,
        seed=seed,
    )  # fmt: skip
    return explain_picture(request, console)
