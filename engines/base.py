"""The engine contract: RGB frames in, an `Explanation` out.

A runtime implements `_run` (frames of one size to arrays) and `_close`. Checks, resizing, timing,
the closed state, one call at a time, and what is said of an aim and a class live here, once, so
all engines refuse, accept and mean the same.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from engines.asked import class_numbers, pick_aim
from engines.errors import EngineClosed, FrameError
from engines.slots import Slots
from nem.classes import Target
from nem.explanation import METHOD_OF, Aim, Explanation
from nem.pictures import no_pictures, resize
from nem.ranks import percentiles

Frames = NDArray[np.uint8]
"""RGB pictures, uint8 (N, H, W, 3)."""


class Arrays(NamedTuple):
    """What a runtime gives for N frames; all belong to the caller.

    Attributes:
        map: of the asked aim alone, float32 (N, S, S); in [0, 1], unbounded for `ranking`.
        scores: class probabilities, float32 (N, C), or None without classes.
        embedding: float32 (N, D).
    """

    map: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    embedding: NDArray[np.float32]


def check_frames(frames: NDArray[np.uint8]) -> None:
    """Refuse anything but uint8 (N, H, W, 3) with N, H, W >= 1.

    Raises:
        FrameError: naming the expected and the actual shape and dtype.
    """
    if trouble := no_pictures(frames, one=False):
        raise FrameError(f"frames: {trouble}")


class Engine(ABC):
    """A bundle made runnable. One verb, `run`, plus `close` and `with`.

    Attributes:
        name: registry name, as "openvino".
        device: where it runs, as "cpu" or "cuda:0".
        precision: arithmetic really used, as "f32" or "bf16".
        input_size: (height, width) of the model's input in pixels.
        frame_size: (height, width) of the frames that the runtime takes; `input_size`, but where
            it resizes frames itself.
        names: class names in score order ("class 0"... where nobody named them), empty without
            classes.
        aims: what it explains, the bundle's default first, or those it was opened for. All are
            computed in one pass: asking for another one takes no other engine and no time.
        batch: frames computed at once. More are computed in turns; fewer may cost as much.
        calls: runs that go on at the same time, each on its share of the cores; others wait.
    """

    name: str
    batch: int = 1

    def __init__(
        self,
        *,
        device: str,
        precision: str,
        input_size: tuple[int, int],
        names: tuple[str, ...],
        aims: tuple[Aim, ...] = ("embedding",),
        frame_size: tuple[int, int] | None = None,
        calls: int = 1,
    ) -> None:
        self.device = device
        self.precision = precision
        self.input_size = input_size
        self.frame_size = frame_size or input_size
        self.names = names
        self.aims = aims
        self._closed = False
        self.calls = calls
        self._busy = Slots(calls)

    def run(
        self, frames: Frames, explain: Aim | None = None, target: Target | None = None
    ) -> Explanation:
        """Explain a batch of frames of any size.

        May be called from any thread; of calls at the same time `calls` go on, the others wait.

        Args:
            frames: RGB uint8 (N, H, W, 3). Frames at `frame_size` are used as they are; others
                are resized by `resize` first.
            explain: one of `aims`; None is `target` where a target is given, else the first.
            target: the class that explain `target` explains: its name or number, or one for each
                frame; -1 or None is the frame's most probable one.

        Returns:
            The explanation; its arrays belong to the caller. `target` tells the class really
            explained, also where it was the most probable one. The mask of `ranking` is each
            pixel's percentile (see `nem.ranks`), `raw` its map.

        Raises:
            FrameError: if the frames break the contract.
            OptionError: no such aim or class here, or a target beside another aim.
            EngineClosed: after `close`.
        """
        self._refuse_closed()
        check_frames(frames)
        began = time.perf_counter()
        aim = pick_aim(self.aims, explain, target, opened=True)
        classes = class_numbers(self.names, target, len(frames)) if aim == "target" else None
        if frames.shape[1:3] != self.frame_size:
            frames = np.stack([resize(frame, self.frame_size) for frame in frames])
        with self._busy:
            self._refuse_closed()
            found = self._run(np.require(frames, requirements=("C", "W")), aim, classes)
        mask, raw = found.map, None
        if aim == "ranking":
            mask, raw = percentiles(found.map), found.map
        return Explanation(
            mask=mask,
            scores=found.scores,
            embedding=found.embedding,
            names=self.names,
            seconds=time.perf_counter() - began,
            method=METHOD_OF[aim],
            target=None if aim == "embedding" else _explained(found.scores, classes),
            raw=raw,
        )

    def close(self) -> None:
        """Free the runtime's resources, once runs in progress are done. Twice is fine."""
        with self._busy.all():
            if not self._closed:
                self._closed = True
                self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise EngineClosed(f"engine {self.name} is closed; open a new one")

    @abstractmethod
    def _run(self, frames: Frames, aim: Aim, classes: NDArray[np.int64] | None) -> Arrays:
        """Frames of `frame_size` to the map of one aim, scores and embedding.

        Args:
            frames: (N, *frame_size, 3), contiguous and writable (so that runtimes can borrow
                their memory); they are not to be changed.
            aim: one of `aims`.
            classes: of each frame (N,), -1 for its most probable one; None unless aim is `target`.
        """

    @abstractmethod
    def _close(self) -> None:
        """Free resources; called once."""


def _explained(
    scores: NDArray[np.float32] | None, classes: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """The class explained in each frame: the one asked for, else the most probable one."""
    assert scores is not None, "a head that explains classes, but no scores"
    best = scores.argmax(axis=1).astype(np.int64)
    return best if classes is None else np.where(classes < 0, best, classes)
