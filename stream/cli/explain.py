"""`nem-stream explain`: one picture, several methods, a panel to compare them."""

from __future__ import annotations

import importlib.util
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nem.bundle import Bundle, open_bundle
from nem.examples import nearest
from nem.explanation import AIM_OF, Explanation
from nem.gallery import read_gallery
from nem.pictures import read_image
from stream.cli.console import Console
from stream.errors import SourceError, UsageError
from stream.panel import Picture, Tile, draw_panel
from stream.sinks.partial import PartialFile
from stream.sources import open_source
from stream.sources.names import is_picture

if TYPE_CHECKING:
    from nem.model import NEM

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
NEAREST = 4
MASKED = ("relax", "u-relax", "umt-relax", "rise")
"""Methods that take a number of masks."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the options of `nem-stream explain` say; see `stream.cli.explain_command`."""

    image: str
    methods: tuple[str, ...]
    out: Path | None
    overwrite: bool
    at: float
    model: str
    target: str | None
    gallery: Path | None
    masks: int
    memory_mb: int
    seed: int


def explain_picture(request: Request, console: Console) -> int:
    """Run the methods and write the panel.

    Raises:
        UsageError: no or unknown methods, a wrong output name, or the extra is missing.
        SourceError: the picture can't be read.
        SinkError: the panel exists or can't be written.
        NemError: a method can't explain this model.
    """
    if importlib.util.find_spec("torch") is None:
        raise UsageError("explain needs torch, not installed: pip install 'nem-stream[eval]'")
    from nem.methods import method_names

    if request.methods == ("list",):
        print("\n".join(method_names()))
        return 0
    if not request.methods:
        raise UsageError("--methods: name at least one; --methods list names all")
    out = request.out or Path(request.image).with_suffix(".panel.png")
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {out}: name a picture: {', '.join(SUFFIXES)}")
    partial = PartialFile(out, overwrite=request.overwrite)
    try:
        bundle = open_bundle(request.model)
        picture = load_picture(request.image, request.at)
        tiles = _tiles(request, bundle, picture, console)
        done, data = cv2.imencode(out.suffix, draw_panel(picture, tiles)[..., ::-1])
        if not done:
            raise UsageError(f"--out {out}: OpenCV can't write {out.suffix}")
        try:
            partial.file.write(data.tobytes())
        except OSError as error:
            raise partial.failed(error) from error
    except BaseException:
        partial.discard()
        raise
    partial.finish()
    console.say(f"written: {out}")
    return 0


def load_picture(name: str, at: float) -> Picture:
    """A picture file, or the frame of a video that is shown at `at` seconds; RGB uint8.

    Raises:
        SourceError: neither, or the video ends before.
    """
    if is_picture(Path(name)):
        try:
            return read_image(Path(name))
        except (ValueError, OSError) as error:
            raise SourceError(f"{name}: can't be read: {error}") from None
    shown = None
    with closing(open_source(name)) as source:
        if source.info.live:
            raise SourceError(f"{name}: give a picture or a video file")
        for frame in source:
            if shown is not None and frame.pts_seconds > at:
                return np.asarray(shown.rgb(), np.uint8)
            shown = frame
            if frame.pts_seconds >= at:
                return np.asarray(frame.rgb(), np.uint8)
    if shown is None:
        raise SourceError(f"{name}: no frames")
    raise SourceError(f"{name}: ends at {shown.pts_seconds:.2f} s, --at asks for {at:g} s")


def _tiles(request: Request, bundle: Bundle, picture: Picture, console: Console) -> list[Tile]:
    from nem.bundle_io import load_model
    from nem.methods import check_method, explain

    for method in request.methods:
        check_method(method)
    model = load_model(bundle)
    tiles: list[Tile] = []
    first: Explanation | None = None
    for method in request.methods:
        options: dict[str, Any] = {"masks": request.masks} if method in MASKED else {}
        found = explain(
            method, model, picture, _target(request.target), seed=request.seed,
            memory_mb=request.memory_mb, **options,
        )  # fmt: skip
        first = first or found
        notes = _notes(model, picture, found)
        console.say(f"{method}: {', '.join(notes)}")
        tiles.append(Tile(method, notes, _visible(found.mask[0], method)))
    assert first is not None
    seen = [f"{name} {share:.0%}" for name, share in first.top(3)]
    tiles.insert(0, Tile(bundle.manifest.name, seen))
    if request.gallery is not None:
        tiles += _nearest(request.gallery, bundle, first)
    return tiles


def _target(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.isdecimal() else text


def _notes(model: NEM, picture: Picture, found: Explanation) -> list[str]:
    """Cost, area, and what is left of the model's view in the marked part."""
    from nem.gauge import gauge_picture

    fidelity = gauge_picture(model, picture, found.mask[0])
    time = f"{1000 * found.seconds:.0f} ms" if found.seconds < 10 else f"{found.seconds:.0f} s"
    runs = f"{found.forwards} forward" + (f", {found.backwards} back" if found.backwards else "")
    notes = [
        f"{time}: {runs}",
        f"area {fidelity['area']:.2f}, kept {fidelity['kept']:.2f}, "
        f"random {fidelity['control']:.2f}",
    ]
    if found.target is not None and found.names:
        notes.append(f"class {found.names[int(found.target[0])]}")
    return notes


def _visible(mask: NDArray[np.float32], method: str) -> NDArray[np.float32]:
    """The mask as it is, of slow methods with its few largest pixels cut to the rest's scale."""
    high = 1.0 if method in AIM_OF else max(float(np.quantile(mask, 0.995)), 1e-6)
    return np.asarray(np.minimum(mask / np.float32(high), 1), np.float32)


def _nearest(path: Path, bundle: Bundle, found: Explanation) -> list[Tile]:
    """The pictures of the gallery that look most alike to the model."""
    gallery = read_gallery(path)
    gallery.check(bundle)
    found_there = nearest(found.embedding, gallery.embeddings, min(NEAREST, len(gallery)))
    pairs = zip(found_there.indices[0], found_there.distances[0], strict=True)
    return [
        Tile(
            f"nearest {number}: {gallery.manifest.labels[place]}",
            (gallery.manifest.names[place], f"distance {distance:.2f}"),
            picture=gallery.thumbnail(int(place)),
        )
        for number, (place, distance) in enumerate(pairs, 1)
    ]
