"""`nem-stream engines`: what runs here, and the compiled models kept on disk."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from engines import (
    Store,
    StoredEngine,
    available_engines,
    choose_engine,
    export_file,
    file_batch,
    list_stored,
    open_engine,
    prune_stored,
    verify_stored,
)
from engines.export_files import SUFFIXES, Format
from nem.bundle import open_bundle
from stream.cli.console import Console, show
from stream.cli.errors import MODEL, OUTPUT
from stream.cli.options import engine_wishes, read_size

DAY = 86_400


def print_engines() -> None:
    """Print each engine with "available" or what is in its way, then what is stored."""
    for engine in available_engines():
        show(f"{engine.name:<16} {engine.summary}: {engine.trouble or 'available'}")
    print_stored(list_stored())


def print_stored(entries: Sequence[StoredEngine]) -> None:
    """Print one line per compiled model: key, size, age, what it was built for."""
    show(f"stored: {len(entries)}, {sum(entry.size for entry in entries) / 1e6:.1f} MB")
    for entry in entries:
        what = entry.problem or (
            f"{_describe(entry.facts)}, {entry.size / 1e6:.1f} MB, used {_ago(entry.used_at)}"
        )
        show(f"  {entry.key[:12]}  {what}")


def _ago(used_at: float) -> str:
    """When that was, as "3 days ago"; clocks that differ a little are told nothing of."""
    days = (time.time() - used_at) / DAY
    return f"{max(days, 0):.0f} days ago" if days > -1 else "in the future, says this clock"


def _describe(facts: Mapping[str, str]) -> str:
    """What a compiled model is, as "nem-tiny on openvino cpu f32, batch 4, embedding alone"."""
    names = ("bundle", "engine", "precision", "batch")
    bundle, engine, precision, batch = (facts.get(name, "?") for name in names)
    device = facts.get("GPU") or facts.get("device", "?")
    frames = f" of {facts['frame']}" if "frame" in facts else ""
    alone = f", {facts['aims']} alone" if "aims" in facts else ""
    return f"{bundle} on {engine} {device} {precision}, batch {batch}{frames}{alone}"


def build(
    model: str,
    engine: str,
    device: str,
    precision: str,
    frame: str | None,
    batch: int | None,
    dynamic: bool,
    calibrate: Path | None,
    console: Console,
) -> int:
    """Open an engine, which compiles what the store lacks, and tell what it took.

    It is opened as runs open it: as live ones do, and as a file's where an engine compiles another
    model for those. With a batch above 1 only as a file's, which alone may have one.

    Returns:
        The exit code, 5 if what was compiled could not be kept; the log tells why.

    Raises:
        UsageError: `frame` isn't WIDTHxHEIGHT.
        BundleError, EngineError: see `engines.open_engine`.
    """
    size = None if frame is None else read_size("--frame", frame)[::-1]
    if engine == "auto":
        choice = choose_engine(device)
        engine, device = choice.engine, choice.device
        console.say(f"engine auto is {engine}: {choice.why}")
    bundle = open_bundle(model)
    heads = bundle.manifest.heads
    runs: list[dict[str, Any]] = [{"batch": 1 if batch is None else batch}]
    if file_batch(engine) > 1:  # and so it compiles for a file's head and calls, too
        kinds = (True, False) if batch in (None, 1) else (False,)
        runs = [engine_wishes(batch, heads[0], watched=watched) for watched in kinds]
    for wishes in runs:
        began = time.perf_counter()
        with open_engine(
            bundle, engine, device, precision, frame_size=size, dynamic=dynamic,
            calibration=calibrate, say=console.say, **wishes,
        ) as opened:  # fmt: skip
            seconds = time.perf_counter() - began
            what = f"{opened.name} {opened.device} {opened.precision}, batch {opened.batch}"
            alone = "" if opened.aims == heads else f", {' '.join(opened.aims)} alone"
            show(f"{what}{alone}: ready after {seconds:.1f} s")
    if Store().troubled:
        console.error("compiled, but not kept: each start would compile again")
        return OUTPUT
    return 0


def export_bundle(
    model: str,
    output: Path | None,
    format_: str,
    precision: str,
    frame: str | None,
    batch: int,
    overwrite: bool,
    console: Console,
) -> None:
    """Write the file and print the names of what was written.

    Raises:
        UsageError: `frame` isn't WIDTHxHEIGHT.
        BundleError, EngineError: see `engines.export_file`.
    """
    size = None if frame is None else read_size("--frame", frame)[::-1]
    bundle = open_bundle(model)
    kind = cast(Format, format_)  # another one is refused there
    suffix = SUFFIXES.get(kind, ("",))[-1]
    written = export_file(
        bundle,
        output or Path(f"{bundle.manifest.name}{suffix}"),
        kind,
        precision=precision,
        frame_size=size,
        batch=batch,
        overwrite=overwrite,
        say=console.say,
    )
    for path in written:
        show(str(path))


def verify() -> int:
    """Check all compiled models byte by byte; the exit code is 6 if one is damaged."""
    entries = verify_stored()
    print_stored(entries)
    damaged = sum(entry.problem is not None for entry in entries)
    show(f"{damaged} damaged; nem-stream engines prune removes them" if damaged else "all good")
    return MODEL if damaged else 0


def prune(days: float) -> None:
    """Delete compiled models not used for `days`, and damaged ones."""
    deleted = prune_stored(unused_days=days)
    show(f"{len(deleted)} files deleted")
