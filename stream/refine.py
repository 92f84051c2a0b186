"""A paused frame, explained by the slow reference for as long as one looks at it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engines import Engine
from nem.explanation import Explanation
from nem.frame_encoder import centred, frame_encoder
from nem.relax import MASKS, Relax
from stream.frame import Frame

BATCH = 16
"""Masks per step: a fraction of a second, so that keys are answered meanwhile."""


class Refiner:
    """RELAX of one frame, step by step, with the engine that runs anyway.

    Args:
        engine: the model; its embedding is what is explained.
        mean: of the model's input channels, what hidden pixels become.
        frame: as it came, with nothing drawn on it.
        masks: when to stop.

    Attributes:
        seen: masks so far.
    """

    def __init__(
        self,
        engine: Engine,
        mean: tuple[float, float, float],
        frame: Frame,
        *,
        masks: int = MASKS,
    ) -> None:
        self.frame, self._masks = frame, masks
        pixels = frame.rgb(engine.input_size)[None]
        self._whole = engine.run(pixels)
        self._relax = Relax(frame_encoder(engine.run, mean), centred(pixels, mean))

    @property
    def seen(self) -> int:
        """Masks so far."""
        return self._relax.seen

    @property
    def done(self) -> bool:
        """Whether all masks were seen."""
        return self.seen >= self._masks

    def step(self) -> Explanation:
        """See `BATCH` more masks; the map so far, stretched to 0 .. 1, as method "relax"."""
        if not self.done:
            self._relax.step(min(BATCH, self._masks - self.seen))
        raw = np.asarray(self._relax.map, np.float32)
        low, span = raw.min(), np.ptp(raw)
        return replace(
            self._whole,
            mask=(raw - low) / (span if span > 0 else np.float32(1)),
            method="relax",
            target=None,
            raw=raw,
            uncertainty=np.asarray(self._relax.uncertainty, np.float32),
            forwards=1 + self.seen,
        )
