"""Source to sinks in four threads, one engine request at a time, all cores inside the engine.

    decode -> [4] -> infer -> [4] -> overlay -> [1] -> encode        files: full queues wait
    decode -> [newest] -> infer -> overlay -> encode                 cameras: the newest frame

decode (which also makes the small picture for the engine), infer and overlay have a thread of
their own; encode (all sinks) runs on the caller's thread, where windows have to be served and from
where `frames` yields. infer takes as many frames of a file at once as the engine computes
(`Engine.batch`), of a camera one.

The end of the sinks gives turns back, so what is under way is bounded: of a file `FILE_FRAMES`
frames (1.4 MB each at 720p), and two for each that the engine takes beyond one. As many are held
all the time, so that memory stays as it is after the first second. A camera drops frames at the
first hand-over only, before the model was run on them, and at most `LIVE_FRAMES` are between there
and the sinks: with a slow sink what it shows is not old.

The first error of any thread stops all others and is raised once, in the caller. `stop` lets no
more frames in and finishes those under way; `abort` throws them away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import repeat
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from engines.base import Engine, Frames
from nem.explanation import Explanation
from nem.opencv import one_thread
from stream.aim import AimDial
from stream.channel import Channel, ChannelClosed
from stream.frame import Frame
from stream.sinks.base import Sink, close_all
from stream.sources.base import Source
from stream.stats import Ages, Ending, Report, StageTimer
from stream.worker import Crew

log = logging.getLogger(__name__)

QUEUE_FRAMES = 4
"""Frames between two stages of a file: evens out their jitter; more gained nothing measured."""
FILE_FRAMES = 12
"""Frames of a file under way: a queue before the slowest stages, and one in each hand."""
LIVE_FRAMES = 2
"""Frames of a camera between the engine and the end of the sinks: one is written while the engine
works on the next. More would only be older when they are shown."""
JOIN_SECONDS = 1.0
"""How long the threads get to end by themselves before the source is closed under them."""
HUNG_SECONDS = 1.0
"""How long they get after that before a thread hung in a driver is left behind."""
REPLACED = "replaced by a newer frame"
CUT_SHORT = "under way when the run was cut short"

Item: TypeAlias = tuple[Frame, Explanation]
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
        live = source.info.live
        self._batch = 1 if live else engine.batch
        capacity = 1 if live else max(QUEUE_FRAMES, self._batch)
        self._decoded: Channel[tuple[Frame, Frames]] = Channel(capacity, newest=live)
        self._explained: Channel[Item] = Channel(capacity)
        # Without an overlay nothing stands between the engine and the caller. A drawn frame is a
        # copy, so there are few of them; with one, a small model waited for its encoder.
        self._drawn: Channel[Item] = Channel(1 if live else 2) if overlay else self._explained
        turns = LIVE_FRAMES if live else FILE_FRAMES + 2 * (self._batch - 1)
        self._turns: Channel[None] = Channel(turns)
        for _ in range(turns):
            self._turns.put(None)
        self._crew = Crew(self._close_channels)
        self._timers = {name: StageTimer(name) for name in ("decode", "infer", "overlay", "encode")}
        self._windows = [sink for sink in self._sinks if isinstance(sink, _Window)]
        self._ages = Ages(clock)
        self._stopping = False
        self._used = False
        self._first_at: float | None = None
        self.frames_in = 0
        self.frames_out = 0

    @property
    def dropped(self) -> int:
        """Frames dropped so far because a newer one came."""
        return self._decoded.dropped

    def stop(self) -> None:
        """Let no more frames in and finish those under way. Safe in a signal handler."""
        self._stopping = True
        self._decoded.close()
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
            on_frame: called on this thread after each frame written.

        Raises:
            StreamError, EngineError: the first error of any stage.
        """
        began = time.perf_counter()
        timer = self._timers["encode"]
        whole = False
        try:
            with closing(self.frames()) as frames, timer.on_thread():
                for frame, explanation in frames:
                    with timer:
                        for sink in self._sinks:
                            sink.write(frame, explanation)
                    self._written(frame)
                    if on_frame is not None:
                        on_frame(frame)
                    if any(sink.stop_requested() for sink in self._sinks):
                        self.stop()
            ended = self._ended()
            whole = ended == "end" or (ended == "stopped" and self._source.info.live)
        finally:
            close_all(self._sinks, whole=whole)
        return self._report(ended, began)

    def frames(self) -> Generator[Item, None, None]:
        """Frames and their explanations, in order, on the caller's thread; sinks are not used.

        Leaving early, closing the generator included, stops the threads and closes the source.

        Raises:
            StreamError, EngineError: the first error of any stage, after the threads ended.
        """
        if self._used:
            raise RuntimeError("pipeline: already run; build a new one for another run")
        self._used = True
        with one_thread():
            self._start("decode", self._decode)
            self._start("infer", self._infer)
            if overlay := self._overlay:
                self._start("overlay", lambda: self._draw(overlay))
            try:
                for item in self._drawn.items(self._pump if self._windows else None):
                    yield item
                    self._turns.put(None)
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

    def _start(self, stage: str, job: Callable[[], None]) -> None:
        self._crew.start(stage, self._timers[stage].on_thread()(job))

    def _decode(self) -> None:
        size = self._engine.frame_size
        try:
            frames = iter(self._source)
            for _ in repeat(None) if self._source.info.live else self._turns:
                if self._stopping:
                    break
                with self._timers["decode"]:
                    frame = next(frames, None)
                    if frame is None:
                        break
                    # Here and not beside the engine: its next input is ready when it is, which
                    # keeps all cores busy (measured: 150 instead of 120 fps on a small model).
                    pixels = frame.rgb(size)[None]
                self._decoded.put((frame, pixels))
                self.frames_in += 1
        finally:
            self._decoded.close()

    def _infer(self) -> None:
        timer = self._timers["infer"]
        # Of a camera: first a turn, then the frame that is the newest by then.
        turns = self._turns if self._source.info.live else repeat(None)
        try:
            for _, group in zip(turns, self._decoded.groups(self._batch), strict=False):
                timer.frames = len(group)
                with timer:
                    asked = (None, None) if self._aim is None else self._aim.asked
                    frames, pixels = zip(*group, strict=True)
                    whole = self._engine.run(np.concatenate(pixels), *asked)
                    found = whole.split()
                    if self._smoother is not None:
                        found = list(map(self._smoother, frames, found))
                for item in zip(frames, found, strict=True):
                    self._explained.put(item)
        finally:
            self._explained.close()

    def _draw(self, overlay: Draw) -> None:
        try:
            for frame, explanation in self._explained:
                with self._timers["overlay"]:
                    drawn = overlay(frame, explanation)
                self._drawn.put((drawn, explanation))
        finally:
            self._drawn.close()

    def _close_channels(self, error: BaseException) -> None:
        self._stopping = True
        for channel in (self._turns, self._decoded, self._explained, self._drawn):
            channel.close(error)
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
            stages=tuple(t.report() for t in self._timers.values()),
            ended=ended,
        )
