"""`nem-stream train`: its options. Imports nothing but typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.cli.console import start_console
from stream.cli.shared import Quiet, Verbose, option

THINGS, HOW, WHERE = "What", "How", "Where"


def train(
    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            metavar="NAME|BUNDLE",
            rich_help_panel=THINGS,
            help="timm model, or a bundle whose backbone is taken.",
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            "-d",
            "--data",
            metavar="PATH",
            rich_help_panel=THINGS,
            help="Folders of images or videos, or files.",
        ),
    ],
    more: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Further data.", show_default=False),
    ] = None,
    weights: Annotated[
        str | None,
        option(
            "--weights",
            panel=THINGS,
            metavar="FILE|timm|none",
            text="Weights of a timm model: fetched, from a file, or random; default: timm.",
        ),
    ] = None,
    decoder: Annotated[
        str, typer.Option(metavar="NAME", rich_help_panel=HOW, help="lite or paper.")
    ] = "lite",
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            rich_help_panel=HOW,
            help="nem-u, nemt, ra-nem, nemt-target: a head for each, the first is the default.",
        ),
    ] = "nem-u",
    loss: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=HOW,
            help="Of nem-u: intent, code, or printed (for tests only: gives grey masks).",
        ),
    ] = "intent",
    area_weight: Annotated[
        float,
        typer.Option(metavar="X", rich_help_panel=HOW, help="Of nem-u: more, smaller masks."),
    ] = 1.0,
    class_area_weight: Annotated[
        float,
        typer.Option(metavar="X", rich_help_panel=HOW, help="The same of nemt, nemt-target."),
    ] = 0.5,
    score: Annotated[
        str,
        typer.Option(
            metavar="NAME", rich_help_panel=HOW, help="Of nemt, nemt-target: softmax or logits."
        ),
    ] = "softmax",
    ks: Annotated[
        int,
        typer.Option(
            metavar="N",
            rich_help_panel=HOW,
            help="Of ra-nem: so many counts of kept pixels are tried per picture.",
        ),
    ] = 6,
    stratified: Annotated[
        bool,
        typer.Option("--stratified", rich_help_panel=HOW, help="Of ra-nem: even the counts out."),
    ] = False,
    detach_threshold: Annotated[
        bool,
        typer.Option(
            "--detach-threshold", rich_help_panel=HOW, help="Of ra-nem: no gradient through it."
        ),
    ] = False,
    deletion_weight: Annotated[
        float,
        typer.Option(metavar="X", rich_help_panel=HOW, help="Of ra-nem: the rest must fail."),
    ] = 0.0,
    grid: Annotated[
        int | None,
        option("--grid", panel=HOW, metavar="N", text="Of ra-nem: rank N x N cells, not pixels."),
    ] = None,
    fill: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=HOW,
            help="What is put in place of hidden pixels: mean or noise.",
        ),
    ] = "mean",
    input_size: Annotated[
        int | None,
        option("--input-size", panel=HOW, metavar="PX", text="Side of the input; default: timm's."),
    ] = None,
    epochs: Annotated[
        float, typer.Option(metavar="X", rich_help_panel=HOW, help="Times through the data.")
    ] = 10.0,
    max_steps: Annotated[
        int | None,
        option("--max-steps", panel=HOW, metavar="N", text="Stop after N steps at the latest."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=HOW, help="Pictures per pass.")
    ] = 32,
    accumulate: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=HOW, help="Passes per step.")
    ] = 4,
    every: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=HOW, help="Of a video each N-th frame.")
    ] = 10,
    memory_mb: Annotated[
        int,
        typer.Option(metavar="N", rich_help_panel=HOW, help="For decoded pictures and frames."),
    ] = 2048,
    precision: Annotated[
        str, typer.Option(metavar="NAME", rich_help_panel=HOW, help="32 or bf16.")
    ] = "32",
    accelerator: Annotated[
        str, typer.Option(metavar="NAME", rich_help_panel=HOW, help="auto, cpu or gpu.")
    ] = "auto",
    devices: Annotated[
        str, typer.Option(metavar="N|auto", rich_help_panel=HOW, help="Number of GPUs.")
    ] = "auto",
    workers: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=HOW, help="Processes that load data.")
    ] = 0,
    seed: Annotated[int, typer.Option(metavar="N", rich_help_panel=HOW, help="Of all chance.")] = 0,
    out: Annotated[
        Path | None,
        option(
            "-o",
            "--out",
            panel=WHERE,
            metavar="DIR",
            text="Checkpoints, pictures of masks, and the bundle; default: runs/MODEL-DECODER.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        option("--name", panel=WHERE, metavar="NAME", text="Of the bundle; default: that of DIR."),
    ] = None,
    resume: Annotated[
        bool,
        option(
            "--resume",
            panel=WHERE,
            text="Go on from the last checkpoint in DIR, with the settings it began with.",
        ),
    ] = False,
    no_progress: Annotated[
        bool, option("--no-progress", panel=WHERE, text="No progress bar.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> int:
    r"""Train an explainer for a frozen model, and write it as a bundle.

    [bold]nem-stream train --model resnet18 --data photos/ clip.mp4[/]

    Training never changes the model. Data needs no labels. Needs the extra:
    [bold]pip install 'nem-stream\[train]'[/]
    """
    from stream.cli.training import train_bundle

    console = start_console(quiet=quiet, verbose=verbose)
    settings = {
        "model": model,
        "data": (*data, *(more or ())),
        "weights": weights,
        "decoder": decoder,
        "methods": tuple(name.strip() for name in method.split(",")),
        "loss": loss,
        "class_area_weight": class_area_weight,
        "score": score,
        "ks": ks,
        "stratified": stratified,
        "detach_threshold": detach_threshold,
        "deletion_weight": deletion_weight,
        "grid": grid,
        "area_weight": area_weight,
        "fill": fill,
        "input_size": input_size,
        "epochs": epochs,
        "max_steps": max_steps,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "every": every,
        "memory_mb": memory_mb,
        "precision": precision,
        "accelerator": accelerator,
        "devices": devices,
        "workers": workers,
        "seed": seed,
        "resume": resume,
    }
    return train_bundle(settings, out=out, name=name, progress=not no_progress, console=console)
