"""`nem-stream doctor`: what this machine can do, and what is in the way of what it can't."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from engines import Store, available_engines
from engines.errors import StoreError
from nem.bundle import list_bundles, open_bundle
from nem.errors import NemError
from stream.cli.console import show
from stream.cli.errors import MODEL, OUTPUT, one_line
from stream.errors import SinkError, SourceError, UsageError

PACKAGES = ("nem-stream", "numpy", "opencv-python", "av", "openvino", "torch", "timm")
DEFAULT_ENGINE = "openvino"
"""What `open_engine` takes on a CPU unless another is asked for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        subject: as "encoder libx264".
        good: whether it works.
        detail: what was found, or why it doesn't work and the cure.
        blocks: exit code if explaining a video file is impossible without it, else 0.
    """

    subject: str
    good: bool
    detail: str
    blocks: int = 0


def examine() -> int:
    """Look at everything and print it; 0 if a video file can be explained here."""
    code = 0
    for finding in findings():
        mark = "ok " if finding.good else "no "
        show(f"{mark} {finding.subject:<20} {finding.detail}")
        if not finding.good:
            code = code or finding.blocks
    show("a video file can be explained here" if not code else "a video file can't be explained")
    return code


def findings() -> Iterator[Finding]:
    """All findings, as they are made."""
    yield Finding("system", True, f"{platform.platform()}, Python {platform.python_version()}")
    yield from (_package(name) for name in PACKAGES)
    yield from (_decoder(name) for name in ("h264", "hevc", "av1"))
    yield _encoder()
    yield from _hardware()
    yield _display()
    yield from _cameras()
    yield from _engines()
    yield from _bundles()
    yield _cache()


def _package(name: str) -> Finding:
    try:
        return Finding(f"package {name}", True, version(name))
    except PackageNotFoundError:
        return Finding(f"package {name}", False, "not installed")


def _decoder(name: str) -> Finding:
    import av

    try:
        return Finding(f"decoder {name}", True, av.Codec(name, "r").long_name)
    except ValueError:
        return Finding(f"decoder {name}", False, "not in this FFmpeg")


def _encoder() -> Finding:
    from stream.sinks.encoder import choose_encoder

    try:
        choice = choose_encoder("libx264", None, None)
    except (UsageError, SinkError) as error:
        return Finding("encoder libx264", False, one_line(error), blocks=OUTPUT)
    options = ", ".join(f"{key} {value}" for key, value in choice.options.items())
    return Finding("encoder libx264", True, f"opens with {options}")


def _hardware() -> Iterator[Finding]:
    from stream.hardware import examine_hardware

    for name, trouble in examine_hardware():
        yield Finding(name, trouble is None, trouble or "works here")


def _display() -> Finding:
    from stream.sinks.screen import check_display

    try:
        check_display()
    except SinkError as error:
        return Finding("display", False, one_line(error))
    return Finding("display", True, os.environ.get("DISPLAY") or platform.system())


def _cameras() -> Iterator[Finding]:
    from stream.sources.camera import CameraSource
    from stream.sources.devices import cameras

    found = cameras()
    if not found:
        yield Finding("cameras", False, "found no /dev/video*; nem-stream demo needs none")
    for path, label in found:
        try:
            with CameraSource(path) as camera:
                info = camera.info
                yield Finding(path, True, f"{label} {info.codec} {info.width}x{info.height}")
        except SourceError as error:
            yield Finding(path, False, one_line(error))


def _engines() -> Iterator[Finding]:
    for engine in available_engines():
        blocks = MODEL if engine.name == DEFAULT_ENGINE else 0
        what = engine.trouble or engine.summary
        yield Finding(f"engine {engine.name}", engine.available, what, blocks)


def _bundles() -> Iterator[Finding]:
    names = list_bundles()
    if not names:
        yield Finding("bundles", False, "none embedded; pass --model FOLDER", blocks=MODEL)
    for name in names:
        try:
            manifest = open_bundle(name).manifest
        except NemError as error:
            yield Finding(f"bundle {name}", False, one_line(error), blocks=MODEL)
        else:
            model = f"{manifest.backbone.name} + {manifest.decoder.kind}"
            what = f"{model}, explains {', '.join(manifest.heads)}, files intact"
            yield Finding(f"bundle {name}", True, what)


def _cache() -> Finding:
    store = Store()
    try:
        store.prepare()
        if not os.access(store.folder, os.W_OK):
            raise StoreError("can't be written")
    except (OSError, StoreError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        return Finding("cache", False, f"{store.folder}: {reason}; every start compiles anew")
    return Finding("cache", True, str(store.folder))
