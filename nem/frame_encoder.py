"""Engines take uint8 frames; here they serve what hides pixels of float pictures. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nem.explanation import Explanation


def centred(frames: NDArray[np.uint8], mean: tuple[float, float, float]) -> NDArray[np.float32]:
    """Frames uint8 (N, S, S, 3) as pictures for `Relax`: float32 (N, 3, S, S), 0 = mean colour.

    Args:
        frames: RGB, at the model's size.
        mean: of the model's input channels, in units of a [0, 1] image.
    """
    colour = np.asarray(mean, np.float32) * 255
    return np.ascontiguousarray((frames - colour).transpose(0, 3, 1, 2))


def frame_encoder(
    run: Callable[[NDArray[np.uint8]], Explanation], mean: tuple[float, float, float]
) -> Callable[[Any], NDArray[np.float32]]:
    """An encoder out of an engine's `run`: `nem.relax.Relax(encoder, centred(frames, mean))`.

    Args:
        run: RGB frames uint8 (B, S, S, 3) to what has an `embedding` (B, D).
        mean: as given to `centred`.
    """
    colour = np.asarray(mean, np.float32) * 255

    def encode(pictures: Any) -> NDArray[np.float32]:
        pixels = np.rint(np.asarray(pictures).transpose(0, 2, 3, 1) + colour).clip(0, 255)
        return run(pixels.astype(np.uint8)).embedding

    return encode
