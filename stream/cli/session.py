"""One run: open everything, run the pipeline, tell how it went."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from engines import Engine, choose_engine, open_engine, pick_aim
from nem.bundle import Bundle, open_bundle
from nem.explanation import Explanation
from stream.aim import AimDial
from stream.cli.console import Console
from stream.cli.entry import COMMANDS
from stream.cli.errors import OUTPUT
from stream.cli.options import (
    STDOUT,
    Options,
    check_encoder,
    engine_wishes,
    pick_batch,
    plan_outputs,
)
from stream.cli.progress import open_progress
from stream.cli.signals import Interrupts
from stream.dial import OverlayDial
from stream.errors import UsageError
from stream.frame import Frame
from stream.label import letters_ahead
from stream.pipeline import Pipeline
from stream.refine import Refiner
from stream.sinks import FileSink, ScoresSink, Sink, WindowSink
from stream.sinks.partial import SUFFIX as PARTIAL
from stream.sources import Source, SourceInfo, open_source
from stream.sources.base import counted
from stream.stats import Report
from stream.temporal import Smoother


def run_session(options: Options, console: Console) -> int:
    """Run as asked; returns the exit code of a run that ended without an error.

    Raises:
        StreamError, EngineError, BundleError: what went wrong, with the cure.
    """
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        source = stack.enter_context(_open_source(options))
        info = source.info
        video, show = plan_outputs(options, live=info.live, path=info.path)
        check_encoder(options, video)
        files = [file for file in (video, options.scores_file) if file is not None]
        watched = info.live or show
        batch = pick_batch(options, watched=watched)
        dial = OverlayDial(options.overlay, fixed_size=video is not None, keep=show)
        # Before the engine: an output that can't be written is told of at once.
        sinks = _open_sinks(options, info, video, dial if show else None, stack, console)
        draws = video is not None or show
        labels = draws and options.overlay.label
        with letters_ahead(info.height, info.width) if labels else nullcontext():
            bundle = open_bundle(options.model)
            engine = stack.enter_context(_open_engine(bundle, options, batch, watched, console))
        aim = AimDial(engine, options.explain, options.target)
        for sink in sinks:
            if isinstance(sink, WindowSink):
                sink.aim = aim
                sink.explain = partial(_explain, engine, aim)
                sink.refine = partial(Refiner, engine, bundle.manifest.mean)
        _say_first(options, info, engine, aim, video, show, console)
        said = _notes(sinks)
        for note in said:
            console.say(f"note: {note}")
        smooth = info.live if options.smooth is None else options.smooth
        pipeline = Pipeline(
            source,
            engine,
            sinks,
            overlay=dial if draws else None,
            smoother=Smoother() if smooth else None,
            aim=aim,
        )
        frames, seconds = info.frames_declared, info.seconds_declared
        # On a terminal the lines themselves tell how far it is, and a bar would break them.
        lines = options.scores == STDOUT and sys.stdout.isatty()
        wanted = options.progress and not lines
        progress = open_progress(frames, console, wanted=wanted, seconds=seconds)
        interrupts.attach(pipeline.stop, pipeline.abort)
        with progress as count:
            try:
                report = pipeline.run(count)
            except BaseException:
                for place in _written(files, cut=True):
                    console.say(f"kept: {place}")
                raise
    cut = report.ended != "end" and not (info.live and report.ended == "stopped")
    written = _written(files, cut)
    _say_last(report, [note for note in _notes(sinks) if note not in said], written, console)
    if not cut:
        return 0
    if interrupts.number is not None:
        return 128 + interrupts.number
    if written:  # the window was closed, or the reader of the scores left
        console.error(f"ended before {info.name} did: {'; '.join(written)}")
        return OUTPUT
    return 0


def describe_source(info: SourceInfo) -> str:
    """What is read, who decodes it, and how: all frames of a file, the newest of a camera."""
    rate = "" if info.fps_declared is None else f" {float(info.fps_declared):.4g} fps"
    policy = "live, newest frame" if info.live else "all frames"
    codec = info.codec if info.codec == "raw" else f"{info.codec} by {info.decoder}"
    return f"{info.name}: {codec}, {info.width}x{info.height}{rate}, {policy}"


def describe_report(report: Report) -> str:
    """Frames in, out and dropped by cause; speed; ages."""
    dropped = ", ".join(f"{count} {cause}" for cause, count in report.drops.items())
    line = f"{counted(report.frames_in, 'frames in')}, {report.frames_out} out, "
    line += f"dropped: {dropped}" if dropped else "0 dropped"
    line += f"; {report.fps:.1f} fps"
    if report.frames_out:
        ages = report.latency_p50_ms, report.latency_p95_ms, report.latency_p99_ms
        line += f", age p50/p95/p99 {'/'.join(f'{age:.0f}' for age in ages)} ms"
    return line


def _explain(engine: Engine, aim: AimDial, frame: Frame) -> Explanation:
    """One frame, by the aim of the moment."""
    return engine.run(frame.rgb(engine.frame_size)[None], *aim.asked)


def _open_source(options: Options) -> Source:
    place = options.source
    near = get_close_matches(place, COMMANDS, 1, 0.75) if place.isalpha() else []
    if near and not options.is_camera and not Path(place).exists():
        raise UsageError(f"{place}: no command and no file; did you mean nem-stream {near[0]}?")
    if options.is_camera and not place.isdecimal():
        place = str(Path("/dev") / place)
    return open_source(place, **options.wishes)


def _open_engine(
    bundle: Bundle,
    options: Options,
    batch: int | None,
    watched: bool,
    console: Console,
) -> Engine:
    """The engine asked for; what `auto` is here and why is told, as are builds that take long."""
    only = pick_aim(bundle.manifest.heads, options.explain, options.target)
    name, device = options.engine, options.device
    if name == "auto":
        choice = choose_engine(device)
        name, device = choice.engine, choice.device
        tell = console.say if choice.wanting else console.detail
        tell(f"note: engine auto is {name}: {choice.why}")
    return open_engine(
        bundle,
        name,
        device=device,
        precision=options.precision,
        calibration=options.calibrate,
        say=console.say,
        **engine_wishes(batch, only, watched=watched),
    )


def _open_sinks(
    options: Options,
    info: SourceInfo,
    video: Path | None,
    dial: OverlayDial | None,
    stack: ExitStack,
    console: Console,
) -> list[Sink]:
    """Open all outputs, a window if there is a dial for its keys.

    `stack` closes those that are open if something later fails.
    """
    sinks: list[Sink] = []
    inputs = info.pictures if info.path is None else (info.path,)
    if video is not None:
        width = info.width * (2 if options.overlay.style == "side" else 1)
        file = FileSink(
            video,
            copy_from=info.path,
            overwrite=options.overwrite,
            fps=info.fps_declared,
            size=(width, info.height),
            **options.encoder,
        )
        sinks.append(stack.enter_context(file))
    if options.scores is not None:
        scores = ScoresSink(options.scores, overwrite=options.overwrite, inputs=inputs)
        sinks.append(stack.enter_context(scores))
    if dial is not None:
        # A file that is only looked at plays at its own speed.
        paced = not info.live and video is None
        window = WindowSink(f"nem-stream {info.name}", dial=dial, paced=paced, say=console.say)
        sinks.append(stack.enter_context(window))
    return sinks


def _say_first(
    options: Options,
    info: SourceInfo,
    engine: Engine,
    aim: AimDial,
    video: Path | None,
    show: bool,
    console: Console,
) -> None:
    places = [] if video is None else [str(video)]
    if options.scores is not None:
        places.append("stdout" if options.scores == STDOUT else options.scores)
    if show:
        places.append("a window")
    runs = f"{options.model} on {engine.name} {engine.device} {engine.precision}"
    runs += f", explains {aim}"
    console.say(f"{describe_source(info)} | {runs} | to {', '.join(places)}")
    for note in info.notes:
        console.say(f"note: {note}")


def _say_last(
    report: Report, notes: Sequence[str], written: Sequence[str], console: Console
) -> None:
    for stage in report.stages:
        console.detail(
            f"{stage.name}: {stage.frames} x {stage.wall_ms:.2f} ms, busy {stage.busy_ms:.2f} ms"
        )
    for note in (*notes, *(counted(n, cause) for cause, n in report.source_counts.items())):
        console.say(f"note: {note}")
    console.say("; ".join([describe_report(report), *written]))


def _notes(sinks: Sequence[Sink]) -> list[str]:
    """What the sinks have to say so far."""
    return [note for sink in sinks for note in getattr(sink, "notes", ())]


def _written(files: Sequence[Path], cut: bool) -> list[str]:
    """Each file written with its size, under the name it really has."""
    told = []
    for file in files:
        path = file.with_name(file.name + PARTIAL) if cut else file
        if path.exists():
            size = f"{path.stat().st_size / 1e6:.1f} MB"
            told.append(f"{path} ({size}, cut short)" if cut else f"{path} ({size})")
    return told
