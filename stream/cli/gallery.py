"""`nem-stream gallery`: keep pictures as the model sees them, and find those that look alike."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines import open_engine
from nem.bundle import Bundle, list_bundles, open_bundle
from nem.errors import DataError, reason_of
from nem.examples import nearest, simplex
from nem.gallery import Gallery, read_gallery
from nem.gallery_build import Embed, build_gallery, pictures_below
from nem.pictures import Picture, read_image
from stream.cli.console import PROGRAM, Console, printable, show
from stream.cli.progress import open_progress
from stream.errors import SourceError, UsageError
from stream.sinks.partial import PartialFile

SUFFIX = ".gallery.safetensors"
LISTED = 20
"""Skipped files that are named; -v names all."""


def write_gallery(
    folder: Path,
    out: Path | None,
    *,
    overwrite: bool,
    model: str,
    engine: str,
    device: str,
    progress: bool,
    console: Console,
) -> None:
    """Build the gallery of a folder and write it, whole or not at all.

    Args:
        folder: of pictures.
        out: file to write, or None for FOLDER.gallery.safetensors beside it.
        overwrite: an existing file may be replaced.
        model: bundle name or path.
        engine: see `engines.open_engine`.
        device: likewise.
        progress: tell of the progress.
        console: where to tell of it.

    Raises:
        SourceError: no such folder, or no readable picture in it.
        SinkError: the file exists or can't be written.
        BundleError, EngineError, OptionError: see `engines.open_engine`.
    """
    bundle = open_bundle(model)
    with _source_errors():
        pictures = pictures_below(folder)
    total, place = len(pictures), folder.resolve()
    out = out or place.with_name(place.name + SUFFIX)
    same = [path for path in pictures.values() if path.name == out.name]
    file = PartialFile(out, overwrite=overwrite, inputs=same)
    try:
        with (
            _source_errors(),
            _embedding(bundle, engine, device) as embed,
            open_progress(total, console, wanted=progress) as count,
        ):
            made = build_gallery(folder, embed, bundle, progress=lambda *_: count())
    except BaseException:
        file.discard()
        raise
    file.finish(made.to_bytes())
    _tell(made, file.path, console)


def compare(
    file: Path, image: Path, *, model: str | None, engine: str, device: str
) -> tuple[NDArray[np.float32], Gallery]:
    """The embedding (1, D) of a picture by the gallery's own model, and the gallery.

    Args:
        file: the gallery.
        image: the picture.
        model: the gallery's bundle, or None for the embedded bundle of its name.
        engine: see `engines.open_engine`.
        device: likewise.

    Raises:
        SourceError: one of both can't be read.
        UsageError: the gallery's bundle isn't an embedded one and none was named.
        BundleError: another bundle than the gallery's.
    """
    kept = open_gallery(file)
    name = model or kept.manifest.bundle
    # Only a name from the command line may lead to a folder or a hub.
    if model is None and name not in list_bundles():
        raise UsageError(f"{file} was built with bundle {name}; say where it is: --model BUNDLE")
    bundle = open_bundle(name)
    kept.check(bundle)
    picture = open_picture(image)
    with _embedding(bundle, engine, device) as embed:
        return embed(picture[None]), kept


def open_gallery(file: Path) -> Gallery:
    """A gallery; SourceError where it can't be read."""
    with _source_errors():
        return read_gallery(file)


def open_picture(file: Path) -> Picture:
    """A picture, RGB uint8 (H, W, 3); SourceError where it can't be read."""
    try:
        return read_image(file)
    except (OSError, ValueError) as error:
        absent = isinstance(error, FileNotFoundError)
        cure = "check the path" if absent else "check that a viewer shows it"
        raise SourceError(f"{file}: picture can't be read: {reason_of(error)}; {cure}") from None


def print_nearest(query: NDArray[np.float32], kept: Gallery, count: int, *, as_json: bool) -> None:
    """Print the `count` nearest examples, a line each: distance, weight, label, name."""
    found = nearest(query, kept.embeddings, min(count, len(kept)))
    columns = zip(found.indices[0], found.distances[0], found.weights[0], strict=True)
    rows = [(int(index), {"distance": apart, "weight": w}) for index, apart, w in columns]
    _print(kept, rows, as_json=as_json)


def print_mixture(
    query: NDArray[np.float32], kept: Gallery, count: int, *, as_json: bool, console: Console
) -> None:
    """Print the `count` largest shares of the best mixture, a line each: share, label, name."""
    found = simplex(query, kept.embeddings)
    shares, residual = found.weights[0], float(found.residuals[0])
    order = [int(i) for i in np.argsort(-shares, kind="stable")[:count] if shares[i] > 0]
    extra = {"residual": residual} if as_json else {}
    _print(kept, [(i, {"share": float(shares[i]), **extra}) for i in order], as_json=as_json)
    alone = nearest(query, kept.embeddings, 1).distances[0, 0]
    console.say(
        f"a mixture of {(shares > 0).sum()} comes to a distance of {residual:.4g}; the nearest one "
        f"alone is at {alone:.4g}"
    )


@contextmanager
def _embedding(bundle: Bundle, engine: str, device: str) -> Iterator[Embed]:
    """What embeds frames: an engine in f32, so that all machines embed alike."""
    with open_engine(bundle, engine, device, "f32") as opened:
        yield lambda frames: opened.run(frames).embedding


@contextmanager
def _source_errors() -> Iterator[None]:
    """Pictures or a gallery that can't be read are a source that can't be read."""
    try:
        yield
    except DataError as error:
        raise SourceError(str(error)) from None


def _tell(made: Gallery, out: Path, console: Console) -> None:
    skipped = made.manifest.skipped
    listed = skipped if console.verbosity > 0 else skipped[:LISTED]
    for one in listed:
        console.say(f"skipped: {one.name}: {one.reason}")
    if len(listed) < len(skipped):
        console.say(f"skipped: {len(skipped) - len(listed)} more; -v names all")
    use = shlex.join([PROGRAM, "gallery", "nearest", str(out), "IMAGE"])
    console.say(f"written: {out}, {len(made)} pictures, {len(skipped)} skipped; use it with {use}")


def _print(kept: Gallery, rows: list[tuple[int, dict[str, float]]], *, as_json: bool) -> None:
    """Print values, label and name of examples, a line each."""
    names, labels = kept.manifest.names, kept.manifest.labels
    width = max((len(printable(labels[index])) for index, _ in rows), default=0)
    for index, values in rows:
        if as_json:
            facts = {key: float(value) for key, value in values.items()}
            show(json.dumps({**facts, "label": labels[index], "name": names[index]}))
            continue
        numbers = "  ".join(f"{value:>10.4g}" for value in values.values())
        show(f"{numbers}  {printable(labels[index]):<{width}}  {names[index]}")
