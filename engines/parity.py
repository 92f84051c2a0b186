"""The one definition of "the same answer": how far an engine may be from the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engines.base import Engine, Frames
from engines.errors import OptionError
from engines.onnx_passes import SCORES, map_name
from engines.trt_quant import QUANTISED
from nem.explanation import Aim
from nem.ranks import percentiles

Answer: TypeAlias = Mapping[str, NDArray[Any]]
"""An engine's or the reference's outputs for some frames, by the names of `engines.onnx_passes`."""
_Parts: TypeAlias = dict[str, list[NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Bound:
    """The largest allowed differences.

    Attributes:
        mask_max: of any mask pixel, of any aim but `ranking`.
        mask_mean: of such a mask, mean over pixels.
        rank_mean: of a ranking's percentiles, mean over pixels. Single pixels have no bound: in a
            flat part of the map the least rounding moves a pixel past many others.
        score_max: of any class probability.
    """

    mask_max: float
    mask_mean: float
    rank_mean: float
    score_max: float


BOUNDS = {
    # One step of an 8-bit picture of the mask: nobody can see less. Sums in another order move
    # the mask by about 1e-5, so a real difference has two decades to show itself.
    "f32": Bound(mask_max=1 / 255, mask_mean=1e-4, rank_mean=1e-3, score_max=1e-3),
    # bf16 rounds to 8 bits after each of some 25 layers. Measured with the trained default of the
    # time (resnet18d, lite decoder, four heads, 160 px; since cut to half, which moves less but
    # ranks, 0.0034) on 23 frames of 8 real clips, OpenVINO / torch: masks moved by 0.0017 / 0.0013
    # on average (the worst head) and by 0.19 / 0.13 at the worst pixel (one on a steep edge, of a
    # million); percentiles of the ranking by 0.0017 / 0.0014; scores by 0.013 / 0.007. On 100
    # golden frames, which tell classes and ranks less clearly,
    # ranks moved by 0.003 in torch on a CPU, 0.006 in inductor's and 0.009 in TensorRT-RTX's
    # kernels on an H200, scores by 0.009, 0.021, 0.012. Means of masks, which no single pixel
    # decides, may be three times what was measured for other models and kernels; all else about
    # twice.
    "bf16": Bound(mask_max=0.40, mask_mean=0.005, rank_mean=0.015, score_max=0.04),
    # f16 rounds to 11 bits, an eighth of bf16's step, so the worst pixel of the clips above would
    # be off by 0.19 / 8 = 6/255. Measured with that bundle in torch on 4 photos: worst pixel
    # 0.009, means of masks 0.0003 and of ranks 0.0002, scores 0.0013; by TensorRT-RTX on an H200 on
    # 100 golden frames 0.010, 0.0003, 0.0011, 0.0025. All but the worst pixel may be some twice it.
    "f16": Bound(mask_max=6 / 255, mask_mean=1e-3, rank_mean=2e-3, score_max=5e-3),
    # 8 bits in most layers, calibrated on pictures (see `engines.quant_graph`). A pixel on a steep
    # edge may turn over, so single ones have no bound. Measured with the default bundle, rounded
    # as modelopt simulates it, on golden frames and frames of 4 collections (2 videos, 10 clips of
    # DAVIS, COCO, ImageNet), calibrated on each in turn, on frames of the same best class: means
    # of masks up to 0.0085 int8 / 0.0131 fp8 (which has 3 bits of mantissa, and one range for all
    # weights of a layer), of ranks 0.0083 / 0.0123, scores 0.046 / 0.066. Means, which no single
    # frame decides, may be 2.3 times it for other models and pictures, as may scores.
    "int8": Bound(mask_max=1.0, mask_mean=0.02, rank_mean=0.02, score_max=0.1),
    "fp8": Bound(mask_max=1.0, mask_mean=0.03, rank_mean=0.03, score_max=0.15),
}

ENGINE_BOUNDS = {
    # NNCF also rounds what joins layers. Measured with the default bundle, calibrated on up to 500
    # pictures of a collection (objects, COCO, DAVIS, videos) and compared on 16 others of it: means
    # of masks up to 0.018 and of ranks 0.029, scores 0.12; twice that for others.
    ("openvino", "int8"): Bound(mask_max=1.0, mask_mean=0.035, rank_mean=0.06, score_max=0.25),
    # TensorRT times its kernels and may take one that transforms before it multiplies (Winograd),
    # which rounds more often than a plain sum. TF32, which keeps 11 bits, is off in both.
    **{
        (engine, "f32"): Bound(mask_max=2 / 255, mask_mean=2e-4, rank_mean=1e-3, score_max=1e-3)
        for engine in ("tensorrt", "tensorrt-module")
    },
    # TensorRT-RTX has it off, too, and yet multiplies so on an H200: masks of a small random
    # model moved by 0.0013 in the mean and 0.0038 at the worst pixel, of the default by 0.0001 and
    # 0.0033; scores by 0.0013 and 0.0006. Means may be twice that.
    ("tensorrt-rtx", "f32"): Bound(2 / 255, mask_mean=2.5e-3, rank_mean=3e-3, score_max=3e-3),
}
"""Bounds of single engines, where they differ from those of the precision."""


def find_bound(engine: str, precision: str) -> Bound:
    """What is allowed for an engine at a precision.

    Raises:
        OptionError: no bound is known for the precision.
    """
    if precision not in BOUNDS:
        raise OptionError(f"parity: precision {precision!r}, allowed: {', '.join(BOUNDS)}")
    return ENGINE_BOUNDS.get((engine, precision), BOUNDS[precision])


@dataclass(frozen=True, slots=True)
class Parity:
    """How an engine's answers differ from the reference's.

    Attributes:
        precision: of the engine, which sets the bound.
        frames: how many were compared.
        aims: what was compared; for class and target the class that the reference decides on.
        mask_max: largest difference of a mask pixel, of all aims but `ranking`. In 8 bits this
            and the means are of the frames with the same best class, see `same_class`;
            means NaN without any.
        mask_mean: mean difference over all pixels of such masks, of the worst aim.
        rank_mean: mean difference of a ranking's percentiles, 0 without that aim.
        score_max: largest difference of a class probability, 0 without classes.
        top1: share of frames with the same best class, 1 without classes. It has no bound of its
            own: where scores agree within theirs, the best class only differs in near ties.
        engine: its name, where that has a bound of its own.
    """

    precision: str
    frames: int
    aims: tuple[Aim, ...]
    mask_max: float
    mask_mean: float
    rank_mean: float
    score_max: float
    top1: float
    engine: str = ""

    @property
    def bound(self) -> Bound:
        """What is allowed for this engine at this precision."""
        return find_bound(self.engine, self.precision)

    @property
    def ok(self) -> bool:
        """Whether all differences are within the bound; a NaN never is."""
        bound = self.bound
        return bool(
            self.mask_max <= bound.mask_max
            and self.mask_mean <= bound.mask_mean
            and self.rank_mean <= bound.rank_mean
            and self.score_max <= bound.score_max
        )

    def __str__(self) -> str:
        verdict, bound = "same" if self.ok else "DIFFERENT", self.bound
        ranks = f"ranks mean {self.rank_mean:.2g} (<= {bound.rank_mean:.2g}), "
        return (
            f"{verdict} at {self.precision} over {self.frames} frames, {', '.join(self.aims)}: "
            f"mask max {self.mask_max:.2g} (<= {bound.mask_max:.2g}), mean {self.mask_mean:.2g} "
            f"(<= {bound.mask_mean:.2g}), {ranks if 'ranking' in self.aims else ''}"
            f"scores max {self.score_max:.2g} (<= {bound.score_max:.2g}), "
            f"top-1 equal {self.top1:.1%}"
        )


def compare(engine: Engine, reference: Engine, frames: Frames) -> Parity:
    """Run both on the frames, one frame at a time, for all aims.

    Args:
        engine: the one in question.
        reference: the eager engine in f32.
        frames: RGB uint8 (N, H, W, 3), of any size, N at least 1.

    Raises:
        OptionError: no bound is known for the engine's precision, or the two do not explain the
            same model.
    """
    find_bound(engine.name, engine.precision)
    if _model(engine) != _model(reference):
        raise OptionError("parity: the engines do not explain the same model")
    answers: tuple[_Parts, _Parts] = ({}, {})
    for frame in frames:
        for aim in engine.aims:
            wanted = reference.run(frame[None], aim)
            # The same class for both: a near tie may be decided differently, see `Parity.top1`.
            found = engine.run(frame[None], aim, wanted.target if aim == "target" else None)
            for parts, one in zip(answers, (found, wanted), strict=True):
                parts.setdefault(map_name(aim), []).append(one.mask)
                if aim == engine.aims[0] and one.scores is not None:
                    parts.setdefault(SCORES, []).append(one.scores)
    got, right = ({name: np.concatenate(v) for name, v in parts.items()} for parts in answers)
    return compare_answers(got, right, engine.aims, engine=engine.name, precision=engine.precision)


def compare_answers(
    found: Answer, expected: Answer, aims: Sequence[Aim], *, engine: str, precision: str
) -> Parity:
    """How an engine's answers for many frames differ from the reference's.

    Args:
        found: the engine's.
        expected: the reference's.
        aims: what is compared.
        engine: its name.
        precision: of the engine.
    """
    same = same_class(found, expected)
    kept = np.ones(len(next(iter(expected.values()))), np.bool_)
    if same is not None and precision in QUANTISED:
        kept = same
    largest, means, rank_mean = [0.0], [0.0], 0.0
    for aim in aims:
        got, right = found[map_name(aim)][kept], expected[map_name(aim)][kept]
        if aim == "ranking":
            rank_mean = _mean(np.abs(percentiles(got) - percentiles(right)))
            continue
        off = np.abs(got - right)
        largest.append(float(off.max(initial=0)))
        means.append(_mean(off))
    return Parity(
        precision=precision,
        frames=len(kept),
        aims=tuple(aims),
        # np.max and not max: a NaN has to win.
        mask_max=float(np.max(largest)),
        mask_mean=float(np.max(means)),
        rank_mean=rank_mean,
        score_max=0.0 if same is None else float(np.abs(found[SCORES] - expected[SCORES]).max()),
        top1=1.0 if same is None else float(same.mean()),
        engine=engine,
    )


def same_class(found: Answer, expected: Answer) -> NDArray[np.bool_] | None:
    """Which frames have the reference's best class; None without classes.

    Where two classes are all but equally probable, rounding decides, and what explains the decided
    class, or is steered by it, then rightly explains another one. How far probabilities may be off
    bounds what a near tie is.
    """
    got, right = found.get(SCORES), expected.get(SCORES)
    if got is None or right is None or got.shape != right.shape:
        return None
    same: NDArray[np.bool_] = got.argmax(1) == right.argmax(1)
    return same


def _mean(values: NDArray[Any]) -> float:
    """The mean of all values; NaN, which no bound allows, where there are none."""
    return float(values.mean()) if values.size else float("nan")


def _model(engine: Engine) -> tuple[object, ...]:
    return engine.input_size, engine.names, engine.aims
