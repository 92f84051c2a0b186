"""`nem-stream explain`: one picture, several methods, a panel to compare them."""

from __future__ import annotations

import importlib.util
import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import find_class
from nem.bundle import Bundle, open_bundle
from nem.examples import nearest
from nem.explanation import AIM_OF, METHOD_OF, Explanation, class_names
from nem.gallery import Gallery
from nem.method_table import check_library, check_method, method_names, summary, takes_target
from nem.pictures import Picture, is_image
from nem.relax import KEEP, bound, span_of
from stream.cli.console import Console, show
from stream.cli.gallery import open_gallery, open_picture
from stream.errors import SourceError, UsageError
from stream.panel import Tile, draw_panel
from stream.sinks.partial import PartialFile
from stream.sources import open_source

if TYPE_CHECKING:
    from nem.config import Fill
    from nem.model import NEM

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
NEAREST = 4
BOUNDED = ("relax", "u-relax")
"""Methods whose map is RELAX's importance, of which the largest error is known."""
MASKED = (*BOUNDED, "umt-relax", "rise")
"""Methods that take a number of masks."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the options of `nem-stream explain` say; see `stream.cli.explain_command`."""

    image: str
    methods: tuple[str, ...] | None
    out: Path | None
    overwrite: bool
    at: float | None
    model: str
    target: str | None
    gallery: Path | None
    statistics: Path | None
    masks: int
    memory_mb: int
    seed: int


def explain_picture(request: Request, console: Console) -> int:
    """Run the methods and write the panel.

    Raises:
        UsageError: no or unknown methods, what they need is not given, a wrong output name, or
            the extra is missing.
        SourceError: the picture can't be read.
        SinkError: the panel exists or can't be written.
        NemError: a method can't explain this model.
    """
    if importlib.util.find_spec("torch") is None:
        raise UsageError("explain needs torch, not installed: pip install 'nem-stream[eval]'")
    if request.methods == ("list",):
        for name in method_names():
            show(f"{name:<20} {summary(name)}")
        return 0
    if request.methods == ():
        raise UsageError("--methods: name at least one; --methods list names all")
    if not request.image:
        raise UsageError("no picture; give one, as cat.jpg, or --methods list")
    out = request.out or Path(request.image).with_suffix(".panel.png")
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {out}: name a picture: {', '.join(SUFFIXES)}")
    inputs = [Path(request.image)] + ([request.gallery] if request.gallery else [])
    partial = PartialFile(out, overwrite=request.overwrite, inputs=inputs)
    try:
        _check_methods(request)
        bundle = open_bundle(request.model)
        picture = load_picture(request.image, request.at)
        gallery = None if request.gallery is None else open_gallery(request.gallery)
        if gallery is not None:
            gallery.check(bundle)
        tiles = _tiles(request, bundle, picture, gallery, console)
        done, data = cv2.imencode(out.suffix, draw_panel(picture, tiles)[..., ::-1])
        if not done:
            raise UsageError(f"--out {out}: OpenCV can't write {out.suffix}")
    except BaseException:
        partial.discard()
        raise
    partial.finish(data.tobytes())
    console.say(f"written: {out}")
    return 0


def load_picture(name: str, at: float | None) -> Picture:
    """A picture file, or the frame of a video that is shown at `at` seconds; RGB uint8.

    Raises:
        UsageError: a time in a picture, or one that is none.
        SourceError: neither, or the video ends before.
    """
    if at is not None and not 0 <= at < math.inf:
        raise UsageError(f"--at {at:g}: give the seconds from the beginning, from 0")
    if Path(name).is_dir():
        raise SourceError(f"{name}: is a folder; give one picture or video in it")
    if is_image(Path(name)):
        if at is not None:
            raise UsageError(f"--at {at:g}: {name} is a picture; leave it out")
        return open_picture(Path(name))
    shown, at = None, at or 0.0
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


def _check_methods(request: Request) -> None:
    """Refuse at once what would fail after minutes of slow methods."""
    methods = request.methods or ()
    for method in methods:
        check_method(method)
        check_library(method)
    if request.target is not None and methods and not any(map(takes_target, methods)):
        raise UsageError(
            f"--target {request.target}: of these methods none explains a class that is named; "
            "nemt-target, grad-cam, rise and others do"
        )
    if "iba" in methods and request.statistics is None:
        raise UsageError("iba needs to know normal pictures: give a folder with --statistics DIR")
    if "iba" not in methods and request.statistics is not None:
        raise UsageError("--statistics: only iba looks at them; leave it out")


def _tiles(
    request: Request, bundle: Bundle, picture: Picture, gallery: Gallery | None, console: Console
) -> list[Tile]:
    from nem.bundle_io import load_model
    from nem.methods import explain

    model = load_model(bundle)
    asked, backbone = request.target, model.backbone
    methods = request.methods or _usual_methods(model)
    names = class_names(backbone.classes, backbone.num_classes)
    number = None if asked is None else find_class(names, asked)
    own = _options(request, model)
    found: dict[str, Explanation] = {}
    notes: dict[str, list[str]] = {}
    # Fast ones first, so that what the model lacks for one is told of at once.
    for method in sorted(methods, key=lambda name: (name not in AIM_OF) + (name in MASKED)):
        options = own.get(method, {}) | {"seed": request.seed, "memory_mb": request.memory_mb}
        target = number if takes_target(method) else None
        found[method] = explain(method, model, picture, target, **options)
        notes[method] = _notes(model, bundle.manifest.fill, picture, found[method])
        console.say(f"{method}: {', '.join(notes[method])}")
    first = found[methods[0]]
    seen = [f"{name} {share:.0%}" for name, share in first.top(3)]
    tiles = [Tile(bundle.manifest.name, seen)]
    tiles += [Tile(m, notes[m], _visible(found[m].mask[0], m)) for m in methods]
    return tiles if gallery is None else [*tiles, *_nearest(gallery, first)]


def _usual_methods(model: NEM) -> tuple[str, ...]:
    """What is compared unless methods are named: the heads there are, and two slow methods."""
    heads = (METHOD_OF[aim] for aim in model.aims)
    methods = (*heads, "relax", *(("grad-cam",) if model.backbone.num_classes else ()))
    for method in methods:
        check_library(method)
    return methods


def _options(request: Request, model: NEM) -> dict[str, dict[str, Any]]:
    """What some methods take besides a picture and a class."""
    own: dict[str, dict[str, Any]] = {name: {"masks": request.masks} for name in MASKED}
    if request.statistics is not None:
        from nem.activations import folder_statistics

        found = folder_statistics(model.backbone, request.statistics, memory_mb=request.memory_mb)
        own["iba"] = {"statistics": found}
    return own


def _notes(model: NEM, fill: Fill, picture: Picture, found: Explanation) -> list[str]:
    """Cost, area, and what is left of the model's view in the marked part."""
    from nem.gauge import gauge_picture

    target = None if found.target is None else int(found.target[0])
    gauge = gauge_picture(model, picture, found.mask[0], target, fill=fill)
    time = f"{1000 * found.seconds:.0f} ms" if found.seconds < 10 else f"{found.seconds:.0f} s"
    runs = f"{found.forwards} forward" + (f", {found.backwards} back" if found.backwards else "")
    if found.method in BOUNDED:
        runs += f", +-{bound(found.forwards - 1, span=span_of(found.embedding), keep=KEEP):.2f}"
    notes = [
        f"{time}: {runs}",
        f"area {gauge['area']:.2f}, kept {gauge['kept']:.2f}, random {gauge['control']:.2f}",
    ]
    if target is not None and found.scores is not None:
        whole = found.scores[0, target]
        notes.append(f"{found.names[target]} {whole:.0%}, alone {gauge['alone']:.0%}")
    return notes


def _visible(mask: NDArray[np.float32], method: str) -> NDArray[np.float32]:
    """The mask as it is, of slow methods with its few largest pixels cut to the rest's scale."""
    high = 1.0 if method in AIM_OF else max(float(np.quantile(mask, 0.995)), 1e-6)
    return np.asarray(np.minimum(mask / np.float32(high), 1), np.float32)


def _nearest(gallery: Gallery, found: Explanation) -> list[Tile]:
    """The pictures of the gallery that look most alike to the model."""
    alike = nearest(found.embedding, gallery.embeddings, min(NEAREST, len(gallery)))
    pairs = zip(alike.indices[0], alike.distances[0], strict=True)
    return [
        Tile(
            f"nearest {number}: {gallery.manifest.labels[place]}".removesuffix(": "),
            (gallery.manifest.names[place], f"distance {distance:.2f}"),
            picture=gallery.thumbnail(int(place)),
        )
        for number, (place, distance) in enumerate(pairs, 1)
    ]
