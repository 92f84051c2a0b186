"""What a run did: frames in and out, drops by cause, time by stage, age of what was shown.

Each counter has one thread that writes it, so none needs a lock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Literal

AGES_KEPT = 4096
"""Ages of the newest frames kept for the percentiles: bounded memory on an endless camera."""

Ending = Literal["end", "stopped", "aborted"]


@dataclass(frozen=True, slots=True)
class StageReport:
    """Where the time of one stage went.

    Attributes:
        name: as "decode".
        frames: how many passed the stage.
        wall_ms: mean time per frame on the clock, waiting for its neighbours excluded.
        busy_ms: mean time per frame the stage's own thread was on a processor, hand-overs
            included.
    """

    name: str
    frames: int
    wall_ms: float
    busy_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """A finished run. `frames_in == frames_out + sum(drops.values())` always holds.

    Attributes:
        frames_in: frames the source gave to the pipeline.
        frames_out: frames that reached all sinks.
        drops: frames that did not, by cause.
        source_counts: what happened inside the source, by cause, as "bad packets skipped".
        seconds: from the start of the threads to the end of the last one.
        first_frame_seconds: from the start of the threads to the first frame written, or None.
        latency_p50_ms: median age (capture to written) of the newest frames; NaN without frames.
        latency_p95_ms: 95th percentile of the same.
        latency_p99_ms: 99th percentile of the same.
        stages: in the order the frames pass.
        ended: "end" of the source, "stopped" and drained, or "aborted" at once.
    """

    frames_in: int
    frames_out: int
    drops: Mapping[str, int]
    source_counts: Mapping[str, int]
    seconds: float
    first_frame_seconds: float | None
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    stages: tuple[StageReport, ...]
    ended: Ending

    @property
    def fps(self) -> float:
        """Frames out per second of the run."""
        return self.frames_out / self.seconds if self.seconds > 0 else 0.0


class StageTimer:
    """Times the body of a `with`, about one frame, on the clock; see also `on_thread` and `add`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._frames = 0
        self._wall = 0.0
        self._busy = 0.0
        self._began = 0.0
        self._lock = Lock()

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.add(1, time.perf_counter() - self._began, 0.0)

    @contextmanager
    def on_thread(self) -> Generator[None, None, None]:
        """Count the thread's processor time in this body, which holds all that are timed.

        Asked for once and not per frame: it is a system call, after which a busy machine likes to
        run another thread, and the one that waits holds Python's lock.
        """
        began = time.thread_time()
        try:
            yield
        finally:
            self.add(0, 0.0, time.thread_time() - began)

    def add(self, frames: int, wall: float, busy: float) -> None:
        """Count so many frames that took these seconds; from threads that work side by side, too.

        Args:
            frames: how many.
            wall: on the clock.
            busy: on a processor.
        """
        with self._lock:
            self._frames += frames
            self._wall += wall
            self._busy += busy

    def report(self) -> StageReport:
        """Means so far; zero before the first frame."""
        share = 1000 / max(1, self._frames)
        return StageReport(self.name, self._frames, self._wall * share, self._busy * share)


class Ages:
    """Ages of the newest frames, in seconds.

    Args:
        clock: seconds on the clock that stamped `Frame.captured_at`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ages: deque[float] = deque(maxlen=AGES_KEPT)

    def add(self, captured_at: float) -> None:
        """Note a frame captured at `captured_at` as written now."""
        self._ages.append(self._clock() - captured_at)

    def percentile_ms(self, percent: float) -> float:
        """The `percent`-th percentile in ms, by nearest rank; NaN without frames."""
        if not self._ages:
            return float("nan")
        ordered = sorted(self._ages)
        rank = round(percent / 100 * (len(ordered) - 1))
        return ordered[rank] * 1000
