"""The one definition of "the same answer": how far an engine may be from the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engines.base import Engine, Frames
from engines.errors import OptionError


@dataclass(frozen=True, slots=True)
class Bound:
    """The largest allowed differences.

    Attributes:
        mask_max: of any mask pixel.
        mask_mean: of the mask, mean over pixels.
        score_max: of any class probability.
    """

    mask_max: float
    mask_mean: float
    score_max: float


BOUNDS = {
    # One step of an 8-bit picture of the mask: nobody can see less. Sums in another order move
    # the mask by about 1e-5, so a real difference has two decades to show itself.
    "f32": Bound(mask_max=1 / 255, mask_mean=1e-4, score_max=1e-3),
    # bf16 rounds to 8 bits after each of some 25 layers. Measured with a trained resnet18d and lite
    # decoder at 160 px on 39 frames of 10 real clips, OpenVINO / torch: the mask moved by 0.0017 /
    # 0.0018 on average and by 0.09 / 0.13 at its worst pixel (one on a steep edge, of a million);
    # scores by 0.009 / 0.011. The mean, which no single pixel decides, may be three times what was
    # measured for other models and kernels; the largest values at most about twice.
    "bf16": Bound(mask_max=0.20, mask_mean=0.005, score_max=0.02),
}


@dataclass(frozen=True, slots=True)
class Parity:
    """How an engine's answers differ from the reference's.

    Attributes:
        precision: of the engine, which sets the bound.
        frames: how many were compared.
        mask_max: largest difference of a mask pixel.
        mask_mean: mean difference over all mask pixels.
        score_max: largest difference of a class probability, 0 without classes.
        top1: share of frames with the same best class, 1 without classes. It has no bound of its
            own: where scores agree within theirs, the best class only differs in near ties.
    """

    precision: str
    frames: int
    mask_max: float
    mask_mean: float
    score_max: float
    top1: float

    @property
    def bound(self) -> Bound:
        """What is allowed at this precision."""
        return BOUNDS[self.precision]

    @property
    def ok(self) -> bool:
        """Whether all differences are within the bound; a NaN never is."""
        bound = self.bound
        return bool(
            self.mask_max <= bound.mask_max
            and self.mask_mean <= bound.mask_mean
            and self.score_max <= bound.score_max
        )

    def __str__(self) -> str:
        verdict = "same" if self.ok else "DIFFERENT"
        return (
            f"{verdict} at {self.precision} over {self.frames} frames: mask max "
            f"{self.mask_max:.2g} (<= {self.bound.mask_max:.2g}), mean {self.mask_mean:.2g} "
            f"(<= {self.bound.mask_mean:.2g}), scores max {self.score_max:.2g} "
            f"(<= {self.bound.score_max:.2g}), top-1 equal {self.top1:.1%}"
        )


def compare(engine: Engine, reference: Engine, frames: Frames) -> Parity:
    """Run both on the frames, one frame at a time.

    Args:
        engine: the one in question.
        reference: the eager engine in f32.
        frames: RGB uint8 (N, H, W, 3), of any size.

    Raises:
        OptionError: no bound is known for the engine's precision, or the two do not explain the
            same model.
    """
    if engine.precision not in BOUNDS:
        raise OptionError(f"parity: precision {engine.precision!r}, allowed: {', '.join(BOUNDS)}")
    if (engine.input_size, engine.names) != (reference.input_size, reference.names):
        raise OptionError("parity: the engines do not explain the same model")
    masks, scores, same = [], [0.0], []
    for frame in frames:
        found, wanted = engine.run(frame[None]), reference.run(frame[None])
        masks.append(np.abs(found.mask - wanted.mask))
        if found.scores is not None and wanted.scores is not None:
            scores.append(float(np.abs(found.scores - wanted.scores).max()))
            same.append(bool(found.scores.argmax() == wanted.scores.argmax()))
    difference = np.concatenate(masks)
    return Parity(
        precision=engine.precision,
        frames=len(frames),
        mask_max=float(difference.max()),
        mask_mean=float(difference.mean()),
        score_max=float(np.max(scores)),
        top1=float(np.mean(same)) if same else 1.0,
    )
