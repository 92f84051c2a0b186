"""Steadier masks over time: an exponential mean by the frames' own clock, reset on scene cuts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nem.explanation import Explanation
from stream.aim import in_words
from stream.errors import UsageError
from stream.frame import Frame

SAMPLE_LINES = 36
"""A plane is sampled down to about this many lines before it is compared."""
BINS = 24
SHARES = np.maximum(0, 1 - np.abs(np.arange(256)[:, None] / 255 * (BINS - 1) - np.arange(BINS)))
"""How a value is shared by its two nearest bins, (256, BINS): a small change of brightness then
makes a small distance, also on a plain wall."""
CUT_DISTANCE = 0.12
"""Share of pixels that change their histogram bin at a cut, mean over Y, U, V. Measured on the 10
DAVIS sequences and 2 other clips: frames in a row reach 0.09; frames of two clips begin at 0.14,
with a median of 0.39. A false cut costs one frame of smoothing, a missed one leaves a ghost."""


class CutDetector:
    """Tells whether a frame begins a new scene.

    Compares histograms of Y, U and V with those of the frame before: a pan or a moving object
    takes the colours along, a cut changes them. A flash counts as a cut.
    """

    def __init__(self) -> None:
        self._before: NDArray[np.float64] | None = None

    def __call__(self, frame: Frame) -> bool:
        """True if `frame` is of another scene than the frame of the last call."""
        now = np.stack([_histogram(plane) for plane in frame.sample(SAMPLE_LINES)])
        before, self._before = self._before, now
        return before is not None and cut_distance(before, now) > CUT_DISTANCE


def cut_distance(before: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    """Half the L1 distance of two sets of histograms (planes, bins), mean over planes; 0 .. 1."""
    return float(np.abs(before - now).sum() / (2 * len(now)))


class Smoother:
    """Replaces each mask by a mean over the past that forgets half within `half_life`.

    The weight of a new mask is 1 - 2 ** (-seconds / half_life), by the frames' time stamps, so
    that dropped frames and a variable frame rate change nothing. A scene cut, a change of what
    is explained (the aim or the class) or of the mask's size, or a clock that does not advance
    starts anew. Of a ranking the percentiles are averaged. Scores and embedding stay untouched.

    Args:
        half_life: in seconds, > 0.

    Raises:
        UsageError: if it is not.
    """

    def __init__(self, half_life: float = 0.15) -> None:
        if not half_life > 0:
            raise UsageError(f"smoothing half-life: {half_life} s; choose a number above 0")
        self._half_life = half_life
        self._is_cut = CutDetector()
        self._mask: NDArray[np.float32] | None = None
        self._seconds = 0.0
        self._explained = ""

    def __call__(self, frame: Frame, explanation: Explanation) -> Explanation:
        """The explanation with its mask smoothed; the caller's to change.

        Args:
            frame: the frame as it came, before anything was drawn on it.
            explanation: of this frame (N = 1); not changed.
        """
        mask, before = explanation.mask, self._mask
        elapsed = frame.pts_seconds - self._seconds
        cut = self._is_cut(frame)
        explained = in_words(explanation) or explanation.method
        cut = cut or explained != self._explained
        if before is not None and not cut and elapsed > 0 and before.shape == mask.shape:
            weight = np.float32(1 - 2 ** (-elapsed / self._half_life))
            mask = before + weight * (mask - before)
        self._mask, self._seconds, self._explained = mask.copy(), frame.pts_seconds, explained
        return replace(explanation, mask=mask)


def _histogram(sample: NDArray[np.uint8]) -> NDArray[np.float64]:
    counts = np.bincount(sample.ravel(), minlength=256)
    return np.asarray(counts @ SHARES / sample.size)
