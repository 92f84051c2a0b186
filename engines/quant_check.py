"""Whether a quantised engine explains as the reference does: 8 bits round so much that classes tie.

Masks are compared on frames whose best class is the reference's, see `engines.parity.same_class`;
probabilities on all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engines.base import Frames
from engines.golden import reference
from engines.parity import Answer, compare_answers
from nem.explanation import Aim
from nem.pictures import resize

if TYPE_CHECKING:
    from nem.model import NEM

LEAST_SAME = 0.5
"""Share of frames whose best class has to be the reference's."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Frames that were kept from the calibration, with their right answer.

    Attributes:
        frames: RGB uint8 (N, H, W, 3).
        expected: the reference's outputs for them, by name.
    """

    frames: Frames
    expected: dict[str, NDArray[np.float32]]

    @classmethod
    def of(cls, model: NEM, pictures: Frames, size: tuple[int, int]) -> HeldOut:
        """Pictures of any size, as an engine for frames of `size` is given them. Needs torch."""
        frames = np.stack([resize(picture, size) for picture in pictures])
        return cls(frames, reference(model, frames))

    def wrong(
        self,
        run: Callable[[Frames, Answer], Answer],
        batch: int,
        aims: Sequence[Aim],
        *,
        engine: str,
        precision: str,
    ) -> str | None:
        """Why an engine's answers show it to be wrong, with all differences; None if they don't.

        Args:
            run: gives the engine's answer for `batch` frames; told the reference's as well.
            batch: frames per call; the last call is filled up with frames that were there before.
            aims: what the model explains.
            engine: its name.
            precision: of the engine.
        """
        parts: list[Answer] = []
        order = np.arange(-(-len(self.frames) // batch) * batch) % len(self.frames)
        for start in range(0, len(order), batch):
            piece = order[start : start + batch]
            right = {name: value[piece] for name, value in self.expected.items()}
            parts.append(run(np.ascontiguousarray(self.frames[piece]), right))
        found = {
            name: np.concatenate([part[name] for part in parts])[: len(self.frames)]
            for name in self.expected
        }
        parity = compare_answers(found, self.expected, aims, engine=engine, precision=precision)
        if parity.ok and parity.top1 >= LEAST_SAME:
            return None
        return f"on pictures kept from the calibration: {parity}"
