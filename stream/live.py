"""The stages of a camera, each in a thread of its own: the newest frame, as early as can be.

    decode -> [newest] -> infer -> [1] -> overlay -> [1] -> the caller

Frames are dropped at the first hand-over only, before the model was run on them, and at most
`LIVE_FRAMES` are between there and the caller: with a slow sink what it shows is not old.
"""

from __future__ import annotations

from collections.abc import Callable

from stream.channel import Channel
from stream.steps import Decoded, Item, Steps
from stream.worker import Crew

LIVE_FRAMES = 2
"""Frames between the engine and the end of the sinks: one is written while the engine works on the
next. More would only be older when they are shown."""


class LiveStages:
    """As `stream.shared.SharedStages`, without a step to write.

    Args:
        steps: what there is to do.

    Attributes:
        taken: frames that came in.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.taken = 0
        self._decoded: Channel[Decoded] = Channel(1, newest=True)
        self._explained: Channel[Item] = Channel(1)
        self._drawn: Channel[Item] = Channel(1) if steps.draw else self._explained
        self._turns: Channel[None] = Channel(LIVE_FRAMES)
        for _ in range(LIVE_FRAMES):
            self._turns.put(None)

    @property
    def dropped(self) -> int:
        """Frames dropped so far because a newer one came."""
        return self._decoded.dropped

    def start(self, crew: Crew) -> None:
        """Start the threads."""
        timers = self._steps.timers
        crew.start("decode", timers["decode"].on_thread()(self._decode))
        crew.start("infer", timers["infer"].on_thread()(self._infer))
        if draw := self._steps.draw:
            crew.start("overlay", timers["overlay"].on_thread()(lambda: self._draw(draw)))

    def get(self, idle: Callable[[], object] | None = None) -> Item | None:
        """See `SharedStages.get`."""
        return next(self._drawn.items(idle), None)

    def written(self) -> None:
        """See `SharedStages.written`."""
        self._turns.put(None)

    def end(self) -> None:
        """See `SharedStages.end`."""
        self._decoded.close()

    def close(self, error: BaseException) -> None:
        """See `SharedStages.close`."""
        for channel in (self._turns, self._decoded, self._explained, self._drawn):
            channel.close(error)

    def _decode(self) -> None:
        timer = self._steps.timers["decode"]
        try:
            while True:
                with timer:
                    found = self._steps.decode()
                if found is None:
                    break
                self._decoded.put(found)
                self.taken += 1
        finally:
            self._decoded.close()

    def _infer(self) -> None:
        timer = self._steps.timers["infer"]
        try:
            # First a turn, then the frame that is the newest by then.
            for _, decoded in zip(self._turns, self._decoded, strict=False):
                with timer:
                    (item,) = self._steps.infer([decoded])
                self._explained.put(item)
        finally:
            self._explained.close()

    def _draw(self, draw: Callable[[Item], Item]) -> None:
        try:
            for item in self._explained:
                with self._steps.timers["overlay"]:
                    drawn = draw(item)
                self._drawn.put(drawn)
        finally:
            self._drawn.close()
