"""`nem-stream gallery`: its commands and options. Imports nothing but typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.cli.console import start_console
from stream.cli.shared import MODEL, Device, Model, NoProgress, Quiet, Runtime, Verbose, option

gallery = typer.Typer(
    help="Keep pictures as the model sees them; find those that look alike to it.",
    no_args_is_help=True,
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="Gallery, as build wrote it.")]
Image = Annotated[Path, typer.Argument(metavar="IMAGE", help="Picture to compare with it.")]
Count = Annotated[
    int, typer.Option("-k", "--count", metavar="N", min=1, help="Pictures to print at most.")
]
Json = Annotated[bool, option("--json", panel="Output", text="One JSON object per line.")]
Its = Annotated[
    str | None,
    option(
        "-m",
        "--model",
        panel=MODEL,
        metavar="BUNDLE",
        text="Bundle the gallery was built with, if it is not an embedded one.",
    ),
]


@gallery.command("build")
def build(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder of pictures; folders in it give them their labels."
        ),
    ],
    out: Annotated[
        Path | None,
        option(
            "-o",
            "--out",
            panel="Output",
            metavar="FILE",
            text="Gallery to write; default: DIR.gallery.safetensors beside DIR.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, option("--overwrite", panel="Output", text="Replace a file that exists.")
    ] = False,
    model: Model = "nem-tiny",
    engine: Runtime = "auto",
    device: Device = "auto",
    no_progress: NoProgress = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Look at every picture below a folder and keep what the model makes of it.

    [bold]nem-stream gallery build photos[/]  writes photos.gallery.safetensors

    The file holds embeddings and small pictures, no program, and names the
    model that made it. Pictures that can't be read are skipped and listed.
    """
    from stream.cli.gallery import write_gallery

    console = start_console(quiet=quiet, verbose=verbose)
    write_gallery(
        folder,
        out,
        overwrite=overwrite,
        model=model,
        engine=engine,
        device=device,
        progress=not no_progress,
        console=console,
    )


@gallery.command("nearest")
def nearest(
    file: File,
    image: Image,
    count: Count = 5,
    json: Json = False,
    model: Its = None,
    engine: Runtime = "auto",
    device: Device = "auto",
    verbose: Verbose = 0,
) -> None:
    """Print the pictures that look most like one to the model, nearest first.

    [bold]nem-stream gallery nearest photos.gallery.safetensors cat.jpg[/]

    Each line: distance between the embeddings, weight (1 / distance), label,
    name.
    """
    from stream.cli.gallery import compare, print_nearest

    start_console(quiet=False, verbose=verbose)
    query, kept = compare(file, image, model=model, engine=engine, device=device)
    print_nearest(query, kept, count, as_json=json)


@gallery.command("mix")
def mix(
    file: File,
    image: Image,
    count: Count = 5,
    json: Json = False,
    model: Its = None,
    engine: Runtime = "auto",
    device: Device = "auto",
    verbose: Verbose = 0,
) -> None:
    """Print which mixture of pictures comes nearest to one, for the model (SimplEx).

    [bold]nem-stream gallery mix photos.gallery.safetensors cat.jpg[/]

    Each line: share (all shares add up to 1), label, name. How far the mixture
    is from the picture goes to stderr; with --json it is in each line.
    """
    from stream.cli.gallery import compare, print_mixture

    console = start_console(quiet=False, verbose=verbose)
    query, kept = compare(file, image, model=model, engine=engine, device=device)
    print_mixture(query, kept, count, as_json=json, console=console)
