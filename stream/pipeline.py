"""Source to sinks: every frame of a file as fast as can be, the newest one of a camera.

Of a file the stages are shared by as many threads as there are cores (`stream.shared`), of a camera
each has a thread of its own (`stream.live`). Decoding also makes the small picture for the engine.
Of a file, sinks are served by these threads, too, one frame at a time and in order. Windows have to
be served on the caller's thread, encoders of a GPU on the one that opened it; so are the sinks
beside them, those of a camera, and whoever takes `frames`.

What is under way is bounded: of a file `FILE_FRAMES` frames (1.4 MB each at 720p), or as many as
keep the engine's runs in work. All memory that this takes is taken at the start (see
`stream.shared.FIRST_FRAMES`), so that it stays as it is after the first second.

The first error of any thread stops all others and is raised once, in the caller. `stop` lets no
more frames in and finishes those under way; `abort` throws them away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from threading import Lock
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from engines.base import Engine
from engines.cpu import usable_cores
from nem.explanation import Explanation
from nem.opencv import one_thread
from stream.aim import AimDial
from stream.channel import ChannelClosed
from stream.frame import Frame
from stream.live import LiveStages
from stream.shared import DRAWN_FRAMES, SharedStages
from stream.sinks.base import Sink, close_all
from stream.sources.base import Source
from stream.stats import Ages, Ending, Report, StageTimer
from stream.steps import Decoded, Item, Steps
from stream.worker import Crew

log = logging.getLogger(__name__)

FILE_FRAMES = 8
"""Frames of a file under way, where the engine does not take more at once."""
JOIN_SECONDS = 1.0
"""How long the threads get to end by themselves before the source is closed under them."""
HUNG_SECONDS = 1.0
"""How long they get after that before a thread hung in a driver is left behind."""
REPLACED = "replaced by a newer frame"
CUT_SHORT = "under way when the run was cut short"

Draw: TypeAlias = Callable[[Frame, Explanation], Frame]
Smooth: TypeAlias = Callable[[Frame, Explanation], Explanation]


class _Aborted(Exception):  # noqa: N818 - a wish, not an error
    """`abort` was called."""


@runtime_checkable
class _Window(Protocol):
    """A sink that has to be served on the caller's thread also while no frame comes."""

    def pump(self) -> None: ...


class Pipeline:
    """Explain the frames of one source. For one run; it owns and closes source and sinks.

    Args:
        source: open source.
        engine: open engine; stays open, it is the caller's.
        sinks: where drawn frames go, in this order.
        overlay: draws an explanation on a frame; None hands frames on untouched.
        smoother: steadies the explanations over time; None takes each as it is.
        aim: what is explained, looked at once per frame; None is the engine's default.
        clock: seconds, the clock of `Frame.captured_at`.
    """

    def __init__(
        self,
        source: Source,
        engine: Engine,
        sinks: Sequence[Sink] = (),
        *,
        overlay: Draw | None = None,
        smoother: Smooth | None = None,
        aim: AimDial | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._engine, self._sinks = source, engine, tuple(sinks)
        self._overlay, self._smoother, self._aim = overlay, smoother, aim
        self._frames: Iterator[Frame] | None = None
        self._stages: SharedStages | LiveStages | None = None
        self._crew = Crew(self._close_stages)
        self._timers = {name: StageTimer(name) for name in ("decode", "infer", "overlay", "encode")}
        self._windows = [sink for sink in self._sinks if isinstance(sink, _Window)]
        self._ages = Ages(clock)
        self._stopping = False
        self._used = False
        self._first_at: float | None = None
        self.frames_out = 0

    @property
    def frames_in(self) -> int:
        """Frames taken from the source so far."""
        return self._stages.taken if self._stages else 0

    @property
    def dropped(self) -> int:
        """Frames dropped so far because a newer one came."""
        return self._stages.dropped if self._stages else 0

    def stop(self) -> None:
        """Let no more frames in and finish those under way. Safe in a signal handler."""
        self._stopping = True
        if self._stages:
            self._stages.end()
        for sink in self._sinks:
            sink.interrupt()

    def abort(self) -> None:
        """End at once; frames under way are thrown away. Safe in a signal handler."""
        self._crew.stop(_Aborted())

    def run(self, on_frame: Callable[[Frame], None] | None = None) -> Report:
        """Run to the end of the source, to `stop`, `abort` or a sink's wish.

        Sinks are closed whole after the end of the source, and after `stop` of a live source;
        else not.

        Args:
            on_frame: called after each frame written, on the thread that wrote it.

        Raises:
            StreamError, EngineError: the first error of any stage.
        """
        began = time.perf_counter()

        def write(item: Item) -> None:
            frame, explanation = item
            for sink in self._sinks:
                sink.write(frame, explanation)
            self._written(frame)
            if on_frame is not None:
                on_frame(frame)
            if any(sink.stop_requested() for sink in self._sinks):
                self.stop()

        writing = Lock()

        def write_there(item: Item) -> None:
            with writing:
                if self._crew.error is not None:  # the sinks may be closed by now
                    raise ChannelClosed(self._crew.error)
                write(item)

        here = self._source.info.live or self._windows or self._engine.device != "cpu"
        timer = self._timers["encode"]
        whole = False
        try:
            with (
                closing(self._results(None if here else write_there)) as results,
                timer.on_thread() if here else nullcontext(),
            ):
                for item in results:
                    with timer:
                        write(item)
            ended = self._ended()
            whole = ended == "end" or (ended == "stopped" and self._source.info.live)
        finally:
            with writing:  # no sink is closed while one is at work
                close_all(self._sinks, whole=whole)
        return self._report(ended, began)

    def frames(self) -> Generator[Item, None, None]:
        """Frames and their explanations, in order, on the caller's thread; sinks are not used.

        Leaving early, closing the generator included, stops the threads and closes the source.

        Raises:
            StreamError, EngineError: the first error of any stage, after the threads ended.
        """
        yield from self._results(None)

    def _results(self, write: Callable[[Item], None] | None) -> Generator[Item, None, None]:
        """Run; what is not written is yielded."""
        if self._used:
            raise RuntimeError("pipeline: already run; build a new one for another run")
        self._used = True
        stages = self._stages = self._arrange(write)
        if self._crew.error is not None:  # aborted before
            stages.close(self._crew.error)
        with one_thread():
            stages.start(self._crew)
            try:
                while (item := stages.get(self._pump if self._windows else None)) is not None:
                    yield item
                    stages.written()
            except ChannelClosed:
                pass  # the crew knows why
            except BaseException as error:
                self._crew.stop(error)
                raise
            finally:
                self._end()
        first = self._crew.error
        if first is not None and not isinstance(first, _Aborted):
            raise first

    def _arrange(self, write: Callable[[Item], None] | None) -> SharedStages | LiveStages:
        draws = self._overlay is not None or self._smoother is not None
        draw = self._draw if draws else None
        steps = Steps(self._decode, self._infer, draw, write, self._timers)
        if self._source.info.live:
            return LiveStages(steps)
        batch, calls = self._engine.batch, self._engine.calls
        # Of a GPU, who runs the engine only waits for it.
        cores = usable_cores() + (self._engine.device != "cpu")
        threads = max(2, min(cores, len(steps.timers) - 1 + calls))
        # One for each run, and one that fills up where threads are left beside the runs.
        groups = calls + (threads > calls)
        limit = max(FILE_FRAMES, batch * groups + DRAWN_FRAMES)
        return SharedStages(steps, threads=threads, batch=batch, calls=calls, limit=limit)

    def _decode(self) -> Decoded | None:
        if self._stopping:
            return None
        if self._frames is None:
            self._frames = iter(self._source)
        frame = next(self._frames, None)
        return None if frame is None else (frame, frame.rgb(self._engine.frame_size)[None])

    def _infer(self, group: list[Decoded]) -> list[Item]:
        asked = (None, None) if self._aim is None else self._aim.asked
        frames, pixels = zip(*group, strict=True)
        found = self._engine.run(np.concatenate(pixels), *asked).split()
        return list(zip(frames, found, strict=True))

    def _draw(self, item: Item) -> Item:
        frame, explanation = item
        if self._smoother is not None:
            explanation = self._smoother(frame, explanation)
        return (self._overlay(frame, explanation) if self._overlay else frame), explanation

    def _close_stages(self, error: BaseException) -> None:
        self._stopping = True
        if self._stages:
            self._stages.close(error)
        for sink in self._sinks:
            sink.interrupt()

    def _pump(self) -> None:
        """Let the windows work while no frame comes."""
        for window in self._windows:
            window.pump()
        if any(sink.stop_requested() for sink in self._sinks):
            self.stop()

    def _end(self) -> None:
        hung = self._crew.join(JOIN_SECONDS)
        self._source.close()
        if hung:
            hung = self._crew.join(HUNG_SECONDS)
        if hung:
            log.warning("%s: did not stop; left behind: %s", self._source.info.name, hung)

    def _written(self, frame: Frame) -> None:
        self.frames_out += 1
        self._ages.add(frame.captured_at)
        if self._first_at is None:
            self._first_at = time.perf_counter()

    def _ended(self) -> Ending:
        if self._crew.error is not None:
            return "aborted"
        return "stopped" if self._stopping else "end"

    def _report(self, ended: Ending, began: float) -> Report:
        drops = {REPLACED: self.dropped} if self.dropped else {}
        if cut := self.frames_in - self.frames_out - self.dropped:
            drops[CUT_SHORT] = cut
        return Report(
            frames_in=self.frames_in,
            frames_out=self.frames_out,
            drops=drops,
            source_counts=dict(self._source.counts),
            seconds=time.perf_counter() - began,
            first_frame_seconds=None if self._first_at is None else self._first_at - began,
            latency_p50_ms=self._ages.percentile_ms(50),
            latency_p95_ms=self._ages.percentile_ms(95),
            latency_p99_ms=self._ages.percentile_ms(99),
            stages=tuple(t.report() for t in self._timers.values()),
            ended=ended,
        )
