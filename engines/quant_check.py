"""Whether a quantised engine explains as the reference does: 8 bits round so much that classes tie.

Masks are compared on frames whose best class is the reference's, see `engines.golden.same_class`;
probabilities on all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.base import Frames
from engines.golden import reference, same_class
from engines.onnx_passes import SCORES, map_name
from engines.parity import Parity, mean
from nem.explanation import Aim
from nem.pictures import resize
from nem.ranks import percentiles

if TYPE_CHECKING:
    from nem.model import NEM

LEAST_SAME = 0.5
"""Share of frames whose best class has to be the reference's."""

Answer = Mapping[str, NDArray[Any]]
"""An engine's or the reference's outputs for some frames, by name."""


def compare_answers(
    found: Answer, expected: Answer, aims: Sequence[Aim], *, engine: str, precision: str
) -> Parity:
    """How an engine's answers for many frames differ from the reference's.

    `mask_*` and `rank_mean` are of the frames of the same best class, NaN where there are none.
    """
    same = same_class(found, expected)
    kept = np.ones(len(next(iter(expected.values()))), bool) if same is None else same
    largest, means, rank_mean = [0.0], [0.0], 0.0
    for aim in aims:
        got, right = found[map_name(aim)][kept], expected[map_name(aim)][kept]
        if aim == "ranking":
            rank_mean = mean(np.abs(percentiles(got) - percentiles(right)))
            continue
        off = np.abs(got - right)
        largest.append(float(off.max(initial=0)))
        means.append(mean(off))
    score_max = 0.0 if same is None else float(np.abs(found[SCORES] - expected[SCORES]).max())
    return Parity(
        precision=precision,
        frames=len(kept),
        aims=tuple(aims),
        mask_max=float(np.max(largest)),
        mask_mean=float(np.max(means)),
        rank_mean=rank_mean,
        score_max=score_max,
        top1=float(kept.mean()),
        engine=engine,
    )


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
