"""The stages of a file, shared by as many threads as there are cores.

    decode -> [decoded] -> infer -> [explained] -> overlay -> [drawn] -> encode

A thread for each stage sleeps whenever a neighbour is slower, and wakes where the system puts it:
two wait for one core, for milliseconds, while the other is idle. Here each thread takes the next
thing that can be done, and sleeps only where there is none. Every stage takes the frames in their
order, one at a time; but for the engine, of which `calls` runs go on side by side and are put in
order again. What is furthest along comes first: writing, which one thread at a time can do, then
never falls behind, and few frames are under way, so that caches still hold them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from stream.channel import IDLE_SECONDS, ChannelClosed
from stream.steps import Decoded, Item, Steps
from stream.worker import Crew

T = TypeVar("T")

DRAWN_FRAMES = 2
"""Drawn frames that wait at most. Each is a copy; more were only ever held by chance."""
FIRST_FRAMES = 32
"""Until so many came, as many decoded frames are held as may ever be under way. By then a decoder
keeps as many more as it ever will, and has all memory it will ever ask for. Else it would ask for
the last of it at any time: large frames fill the bound once in thousands."""
LOOK_SECONDS = 1.0
"""How often the caller looks whether all is done, should a notice of it have been lost."""


class SharedStages:
    """What is under way of one file, and who does what next.

    Args:
        steps: what there is to do. Without `write`, frames are taken by `get`.
        threads: that share it.
        batch: frames that are explained at once.
        calls: runs of the engine at the same time.
        limit: frames under way at most.

    Attributes:
        taken: frames that came in.
        dropped: none.
    """

    dropped = 0

    def __init__(self, steps: Steps, *, threads: int, batch: int, calls: int, limit: int) -> None:
        self._steps, self._threads = steps, threads
        self._batch, self._calls, self._limit = batch, calls, limit
        self._decoded: deque[Decoded] = deque()
        self._explained: deque[Item] = deque()
        self._drawn: deque[Item] = deque() if steps.draw else self._explained
        self._ahead: dict[int, list[Item]] = {}  # explained before those that come before them
        self._begun = self._done = 0  # groups; those in `_ahead` are not done, but run no more
        self._under_way = self.taken = 0
        self._held: deque[Decoded] = deque(maxlen=limit)  # see `FIRST_FRAMES`
        self._busy: set[str] = set()
        self._more = True
        self._error: BaseException | None = None
        # Re-entrant: a signal handler may end or close this while its own thread is inside.
        lock = threading.RLock()
        self._work_there = threading.Condition(lock)
        self._result_there = threading.Condition(lock)

    def start(self, crew: Crew) -> None:
        """Start the threads."""
        for number in range(self._threads):
            crew.start(f"file-{number}", self._work)

    def get(self, idle: Callable[[], object] | None = None) -> Item | None:
        """The next drawn frame; None after the last one.

        With a step to write: waits until all is written, and gives None.

        Args:
            idle: called every `IDLE_SECONDS` while waiting, on this thread.

        Raises:
            ChannelClosed: after `close`.
        """
        while True:
            with self._result_there:
                if self._error is not None:
                    raise ChannelClosed(self._error)
                if self._drawn and not self._steps.write:
                    item = self._drawn.popleft()
                    self._wake()
                    return item
                if self._ended:
                    return None
                noticed = self._result_there.wait(IDLE_SECONDS if idle else LOOK_SECONDS)
            if idle and not noticed:
                idle()

    def written(self) -> None:
        """The frame that `get` gave last is no longer under way."""
        with self._work_there:
            self._under_way -= 1
            self._wake()

    def end(self) -> None:
        """Let no more frames in and finish those under way. Safe in a signal handler."""
        with self._work_there:
            self._more = False
            self._held.clear()
            self._wake()

    def close(self, error: BaseException) -> None:
        """Throw away what is under way. Safe in a signal handler."""
        with self._work_there:
            self._error = self._error or error
            self._wake()

    @property
    def _ended(self) -> bool:
        decoding = "decode" in self._busy  # whoever ends this waits not for a source that hangs
        return not self._more and self._under_way == decoding

    def _wake(self) -> None:
        self._work_there.notify_all()
        self._result_there.notify_all()

    def _work(self) -> None:
        finish: Callable[[], None] | None = None  # notes what the last thing done gave
        while True:
            with self._work_there:
                if finish is not None:
                    finish()
                    finish = None  # which holds frames that may be written while the next is done
                while (begun := self._begin()) is None:
                    if self._error is not None:
                        raise ChannelClosed(self._error)
                    if self._ended:
                        self._wake()
                        return
                    self._work_there.wait()
                if self._next():
                    self._work_there.notify()
            finish = begun()

    def _next(self) -> str | None:
        """The stage that should take something next; None where none can."""
        if self._steps.write and self._drawn and "encode" not in self._busy:
            return "encode"
        room = len(self._drawn) < DRAWN_FRAMES
        if self._steps.draw and self._explained and room and "overlay" not in self._busy:
            return "overlay"
        waiting = len(self._decoded)
        group = waiting >= self._batch or (waiting and not self._more)
        runs = self._begun - self._done - len(self._ahead)
        if group and runs < self._calls:
            return "infer"
        decodes = self._more and "decode" not in self._busy and self._under_way < self._limit
        return "decode" if decodes else None

    def _begin(self) -> Callable[[], Callable[[], None]] | None:
        """What is to be done next, outside the lock; it gives what is to be noted within."""
        stage = None if self._error is not None else self._next()
        if stage is None:
            return None
        if stage == "infer":
            count = min(self._batch, len(self._decoded))
            group = [self._decoded.popleft() for _ in range(count)]
            number, self._begun = self._begun, self._begun + 1
            return partial(self._infer, group, number)
        self._busy.add(stage)
        if stage == "decode":
            self._under_way += 1
            return self._decode
        if stage == "overlay":
            return partial(self._draw, self._explained.popleft())
        return partial(self._write, self._drawn.popleft())

    def _decode(self) -> Callable[[], None]:
        found = self._timed("decode", 1, self._steps.decode)

        def finish() -> None:
            self._busy.discard("decode")
            if found is not None and self._more:
                self._decoded.append(found)
                self.taken += 1
                self._held.append(found)
            else:  # the end, or ended meanwhile
                self._more = False
                self._under_way -= 1
                self._wake()
            if not self._more or self.taken >= FIRST_FRAMES:
                self._held.clear()

        return finish

    def _infer(self, group: list[Decoded], number: int) -> Callable[[], None]:
        items = self._timed("infer", len(group), partial(self._steps.infer, group))

        def finish() -> None:
            self._ahead[number] = items
            while self._done in self._ahead:
                self._explained.extend(self._ahead.pop(self._done))
                self._done += 1
            if not self._steps.draw:
                self._result_there.notify_all()

        return finish

    def _draw(self, item: Item) -> Callable[[], None]:
        assert self._steps.draw is not None
        drawn = self._timed("overlay", 1, partial(self._steps.draw, item))

        def finish() -> None:
            self._busy.discard("overlay")
            self._drawn.append(drawn)
            if not self._steps.write:
                self._result_there.notify_all()

        return finish

    def _write(self, item: Item) -> Callable[[], None]:
        assert self._steps.write is not None
        self._timed("encode", 1, partial(self._steps.write, item))

        def finish() -> None:
            self._busy.discard("encode")
            self._under_way -= 1

        return finish

    def _timed(self, stage: str, frames: int, job: Callable[[], T]) -> T:
        wall, busy = time.perf_counter(), time.thread_time()
        try:
            return job()
        finally:
            wall, busy = time.perf_counter() - wall, time.thread_time() - busy
            self._steps.timers[stage].add(frames, wall, busy)
