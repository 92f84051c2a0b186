"""The engine contract: RGB frames in, an `Explanation` out.

A runtime implements `_run` (model-size frames to arrays) and `_close`. Checks, resizing, timing,
the closed state and one call at a time live here, once, so all engines refuse and accept the same.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineClosed, FrameError

Frames = NDArray[np.uint8]
"""RGB pictures, uint8 (N, H, W, 3)."""


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What a model looked at, for a batch of N frames.

    Attributes:
        mask: float32 in [0, 1], (N, S, S), S the model's input side; 1 = kept = important.
        scores: float32 class probabilities, (N, C), or None for a model without classes.
        embedding: float32 (N, D), the features before the classifier.
        names: the C class names, empty without scores.
        seconds: wall time of the run, preprocessing included.
    """

    mask: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    embedding: NDArray[np.float32]
    names: tuple[str, ...]
    seconds: float

    def __repr__(self) -> str:
        classes = 0 if self.scores is None else self.scores.shape[1]
        return (
            f"Explanation(mask={self.mask.shape}, classes={classes}, "
            f"embedding={self.embedding.shape}, seconds={self.seconds:.4f})"
        )

    def top(self, k: int = 3, index: int = 0) -> list[tuple[str, float]]:
        """The `k` most probable classes of frame `index`, best first; empty without classes."""
        if self.scores is None:
            return []
        row = self.scores[index]
        return [(self.names[i], float(row[i])) for i in np.argsort(-row, kind="stable")[:k]]


def check_frames(frames: NDArray[np.uint8]) -> None:
    """Refuse anything but uint8 (N, H, W, 3) with N, H, W >= 1.

    Raises:
        FrameError: naming the expected and the actual shape and dtype.
    """
    if not isinstance(frames, np.ndarray):
        raise FrameError(f"frames: expected a numpy array, got {type(frames).__name__}")
    shape, dtype = frames.shape, frames.dtype
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise FrameError(
            f"frames: expected RGB uint8 (N, H, W, 3) with N, H, W >= 1, got {dtype} {shape}"
        )


def resize(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize one picture (H, W[, 3]) to `size` = (height, width): the single definition.

    An axis that shrinks is averaged over area, one that grows is interpolated linearly. The
    graph's own resize (`engines.graph`) computes the same weights as matrices.
    """
    height, width = frame.shape[:2]
    shrunk = (min(height, size[0]), min(width, size[1]))
    if (height, width) == size:
        return frame
    if shrunk == size:
        resized = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
    elif shrunk == (height, width):
        resized = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR)
    else:  # one of each: in float32, so that it is rounded once
        resized = cv2.resize(frame.astype(np.float32), shrunk[::-1], interpolation=cv2.INTER_AREA)
        resized = np.rint(cv2.resize(resized, size[::-1], interpolation=cv2.INTER_LINEAR))
    return np.asarray(resized, dtype=np.uint8)


class Engine(ABC):
    """A bundle made runnable. One verb, `run`, plus `close` and `with`.

    Attributes:
        name: registry name, as "openvino".
        device: where it runs, as "cpu" or "cuda:0".
        precision: arithmetic really used, as "f32" or "bf16".
        input_size: (height, width) of the model's input in pixels.
        names: class names in score order ("class 0"... where nobody named them), empty without
            classes.
    """

    name: str

    def __init__(
        self, *, device: str, precision: str, input_size: tuple[int, int], names: tuple[str, ...]
    ) -> None:
        self.device = device
        self.precision = precision
        self.input_size = input_size
        self.names = names
        self._closed = False
        self._busy = threading.Lock()

    def run(self, frames: Frames) -> Explanation:
        """Explain a batch of frames of any size.

        May be called from any thread; calls at the same time are run one after the other.

        Args:
            frames: RGB uint8 (N, H, W, 3). Frames at `input_size` are used as they are; others
                are resized by `resize` first.

        Returns:
            The explanation; its arrays belong to the caller.

        Raises:
            FrameError: if the frames break the contract.
            EngineClosed: after `close`.
        """
        self._refuse_closed()
        check_frames(frames)
        began = time.perf_counter()
        if frames.shape[1:3] != self.input_size:
            frames = np.stack([resize(frame, self.input_size) for frame in frames])
        with self._busy:
            self._refuse_closed()
            mask, scores, embedding = self._run(np.require(frames, requirements=("C", "W")))
        seconds = time.perf_counter() - began
        return Explanation(mask, scores, embedding, self.names, seconds)

    def close(self) -> None:
        """Free the runtime's resources, once a run in progress is done. Twice is fine."""
        with self._busy:
            if not self._closed:
                self._closed = True
                self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise EngineClosed(f"engine {self.name} is closed; open a new one")

    @abstractmethod
    def _run(
        self, frames: Frames
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32]]:
        """Model-size frames to mask, scores, embedding; see `Explanation`.

        Frames are (N, *input_size, 3), contiguous and writable (so that runtimes can borrow their
        memory); they are not to be changed. What is returned belongs to the caller.
        """

    @abstractmethod
    def _close(self) -> None:
        """Free resources; called once."""


def class_names(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """The names of `count` scores: those given, or numbers where a model's classes have none."""
    return names if names or not count else tuple(f"class {i}" for i in range(count))
