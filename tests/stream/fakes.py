"""Small fakes whose every step a test can hold, let go, or break."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from engines.base import Arrays, Engine, Frames
from nem.explanation import Aim, Explanation
from stream.colour import ColourTags
from stream.frame import Frame
from stream.sinks.base import Sink
from stream.sources.base import Source, SourceInfo
from tests.builders import make_frame

DEADLINE = 20.0
"""Seconds after which a test that waits for an event gives up."""

Hook = Callable[[int], None]


def nothing(_: int) -> None:
    """The hook that does nothing."""


def fail_at(index: int, error: Exception) -> Hook:
    """A hook that raises `error` at frame `index`."""

    def hook(i: int) -> None:
        if i == index:
            raise error

    return hook


class Gate:
    """A hook that waits at frame `index` until the test opens it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, index: int) -> None:
        if index == self.index:
            self.reached.set()
            assert self.opened.wait(DEADLINE), "the gate was never opened"


class FakeSource(Source):
    """`frames` numbered frames; `None` is endless. The hook runs before each."""

    def __init__(
        self, frames: int | None = 10, *, live: bool = False, hook: Hook = nothing
    ) -> None:
        super().__init__()
        self.info = SourceInfo(
            name="fake",
            live=live,
            width=64,
            height=48,
            fps_declared=Fraction(25),
            frames_declared=frames,
            time_base=Fraction(1, 25),
            colour=ColourTags(),
            codec="raw",
        )
        self.frames, self.hook = frames, hook
        self.closed = 0

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while self.frames is None or index < self.frames:
            self.hook(index)
            yield make_frame(index=index)
            index += 1

    def close(self) -> None:
        self.closed += 1


class FakeEngine(Engine):
    """Answers with a mask as bright as the frame; the hook gets the number of the run."""

    name = "test"

    def __init__(self, hook: Hook = nothing, *, batch: int = 1, calls: int = 1) -> None:
        super().__init__(
            device="cpu", precision="f32", input_size=(16, 16), names=("a", "b"), calls=calls
        )
        self.hook, self.runs, self.batch = hook, 0, batch
        self.counts: list[int] = []

    def _run(self, frames: Frames, aim: Aim, classes: np.ndarray | None) -> Arrays:
        self.hook(self.runs)
        self.runs += 1
        self.counts.append(len(frames))
        mask = (frames.mean(axis=3) / 255).astype(np.float32)
        scores = np.full((len(frames), 2), 0.5, np.float32)
        return Arrays(mask, scores, mask.mean(axis=2))

    def _close(self) -> None:
        pass


class MemorySink(Sink):
    """Keeps the index of what it got, and how it was closed."""

    def __init__(self, hook: Hook = nothing, *, stop_after: int | None = None) -> None:
        self.hook, self.stop_after = hook, stop_after
        self.indices: list[int] = []
        self.closed: list[bool] = []
        self.threads: set[str] = set()

    def write(self, frame: Frame, explanation: Explanation) -> None:
        self.hook(frame.index)
        self.threads.add(threading.current_thread().name)
        self.indices.append(frame.index)

    def stop_requested(self) -> bool:
        return self.stop_after is not None and len(self.indices) >= self.stop_after

    def close(self, *, whole: bool = True) -> None:
        self.closed.append(whole)


class FakeOverlay:
    """Hands the frame on after its hook."""

    def __init__(self, hook: Hook = nothing) -> None:
        self.hook = hook

    def __call__(self, frame: Frame, explanation: Explanation) -> Frame:
        self.hook(frame.index)
        return frame
