"""An engine without a model, for tests and for trying a pipeline: it looks at brightness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.base import Engine, Frames
from engines.errors import EngineError, OptionError
from nem.bundle import Bundle

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class FakeEngine(Engine):
    """Mask = luma between the frame's darkest (0) and brightest (1) pixel; a flat frame is 0.

    Scores are the shares of pixels in as many equal steps of luma as there are names (none
    without names); the embedding is the mean colour, (N, 3) in [0, 1]. All computed from the
    frame alone, so the same frame always gives the same explanation.

    Args:
        bundle: takes its input size and class names; optional.
        device: "auto" or "cpu".
        precision: "auto" or "f32".
        input_size: (height, width), without a bundle.
        names: class names, without a bundle.
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
        names: tuple[str, ...] = ("dark", "bright"),
        fail_at: int | None = None,
    ) -> None:
        if device not in ("auto", "cpu"):
            raise OptionError(f"engine fake: device {device!r}, allowed: auto, cpu")
        if precision not in ("auto", "f32"):
            raise OptionError(f"engine fake: precision {precision!r}, allowed: auto, f32")
        if bundle is not None:
            input_size = (bundle.manifest.input_size,) * 2
            names = bundle.manifest.classes
        super().__init__(device="cpu", precision="f32", input_size=input_size, names=names)
        self._fail_at = fail_at
        self._frames = 0

    def _run(
        self, frames: Frames
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32]]:
        first, self._frames = self._frames, self._frames + len(frames)
        if self._fail_at is not None and first <= self._fail_at < self._frames:
            raise EngineError(f"engine fake: told to fail at frame {self._fail_at}")
        colours = frames.astype(np.float32) / np.float32(255)
        luma = (colours @ LUMA).astype(np.float32, copy=False)
        low = luma.min(axis=(1, 2), keepdims=True)
        span = luma.max(axis=(1, 2), keepdims=True) - low
        mask = np.clip((luma - low) / np.where(span > 0, span, 1), 0, 1)
        scores = self._shares(luma) if self.names else None
        return mask, scores, colours.mean(axis=(1, 2), dtype=np.float32)

    def _shares(self, luma: NDArray[np.float32]) -> NDArray[np.float32]:
        count = len(self.names)
        step = np.minimum((luma * count).astype(np.intp), count - 1)
        rows = [np.bincount(row.ravel(), minlength=count) / row.size for row in step]
        return np.array(rows, dtype=np.float32)

    def _close(self) -> None:
        """Nothing to free."""
