"""An engine without a model, for tests and for trying a pipeline: it looks at brightness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.base import Arrays, Engine, Frames
from engines.errors import EngineError, OptionError
from nem.bundle import Bundle
from nem.explanation import AIMS, Aim

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

Luma = NDArray[np.float32]


class FakeEngine(Engine):
    """An engine whose every answer follows from the frame's luma alone, by hand if need be.

    Luma in [0, 1] is cut into as many equal steps as there are names: the classes. Scores are the
    shares of pixels in each step (none without names); the embedding is the mean colour, (N, 3) in
    [0, 1]. The maps:

      embedding  luma between the frame's darkest (0) and brightest (1) pixel; a flat frame is 0
      class      1 in the middle of the most probable class's step, falling to 0 as luma leaves it
      ranking    the same, unbounded: larger is nearer to the middle
      target     as class, for the class asked for

    Args:
        bundle: takes its input size, class names and heads; optional.
        device: "auto" or "cpu".
        precision: "auto" or "f32".
        input_size: (height, width), without a bundle.
        names: class names, without a bundle.
        aims: what it explains, without a bundle; default all; without names only `embedding`.
        fail_at: raise EngineError at the frame of this number, counted from 0 over all runs.
    """

    name = "fake"

    def __init__(
        self,
        bundle: Bundle | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        input_size: tuple[int, int] = (32, 32),
        names: tuple[str, ...] = ("black", "dark", "bright", "white"),
        aims: tuple[Aim, ...] | None = None,
        fail_at: int | None = None,
    ) -> None:
        if device not in ("auto", "cpu"):
            raise OptionError(f"engine fake: device {device!r}, allowed: auto, cpu")
        if precision not in ("auto", "f32"):
            raise OptionError(f"engine fake: precision {precision!r}, allowed: auto, f32")
        if bundle is not None:
            input_size = (bundle.manifest.input_size,) * 2
            names, aims = bundle.manifest.classes, bundle.manifest.heads
        aims = aims or AIMS
        super().__init__(
            device="cpu",
            precision="f32",
            input_size=input_size,
            names=names,
            aims=aims if names else ("embedding",),
        )
        self._fail_at = fail_at
        self._frames = 0

    def _run(self, frames: Frames, aim: Aim, classes: NDArray[np.int64] | None) -> Arrays:
        first, self._frames = self._frames, self._frames + len(frames)
        if self._fail_at is not None and first <= self._fail_at < self._frames:
            raise EngineError(f"engine fake: told to fail at frame {self._fail_at}")
        colours = frames.astype(np.float32) / np.float32(255)
        luma = (colours @ LUMA).astype(np.float32, copy=False)
        scores = self._shares(luma) if self.names else None
        embedding = colours.mean(axis=(1, 2), dtype=np.float32)
        if scores is None or aim == "embedding":
            return Arrays(_stretched(luma), scores, embedding)
        explained = scores.argmax(axis=1)
        if classes is not None:
            explained = np.where(classes < 0, explained, classes)
        distance = self._distance(luma, explained)
        drawn = -10 * distance if aim == "ranking" else np.maximum(0, 1 - distance)
        return Arrays(drawn, scores, embedding)

    def _shares(self, luma: Luma) -> NDArray[np.float32]:
        count = len(self.names)
        step = np.minimum((luma * count).astype(np.intp), count - 1)
        rows = [np.bincount(row.ravel(), minlength=count) / row.size for row in step]
        return np.array(rows, dtype=np.float32)

    def _distance(self, luma: Luma, classes: NDArray[np.int64]) -> Luma:
        """From the middle of each frame's class, in steps."""
        middle = (classes.astype(np.float32) + np.float32(0.5))[:, None, None]
        return np.asarray(np.abs(luma * len(self.names) - middle), np.float32)

    def _close(self) -> None:
        """Nothing to free."""


def _stretched(luma: Luma) -> Luma:
    low = luma.min(axis=(1, 2), keepdims=True)
    span = luma.max(axis=(1, 2), keepdims=True) - low
    return np.asarray(np.clip((luma - low) / np.where(span > 0, span, 1), 0, 1), np.float32)
