"""RELAX: which pixels make the embedding what it is, and how sure is that?

The picture is seen through random masks; a pixel is important if the embedding stays close to the
whole picture's whenever the pixel is kept. Wickstroem et al. 2023 (RELAX). The paper's one-pass
algorithm gives, exactly, the mask-weighted mean and variance of the similarities, not its
equations 2 and 9; here both come in closed form, from a few matrix products per chunk of masks.

Nothing here needs torch: a model in another runtime is explained on numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from nem.budget import pictures_per_run
from nem.errors import ArgumentError
from nem.moments import WeightedMoments, as_float32, as_float64
from nem.quiet import quiet
from nem.rise_masks import RandomMasks

if TYPE_CHECKING:
    from torch import Tensor

    from nem.backbone import Backbone
    from nem.method import Map

Encoder = Callable[[Any], Any]
"""Pictures (B, 3, S, S) to what describes them (B, D): a network, or anything else, as HOG. Tensors
in, tensors or arrays out; given arrays, it works on arrays."""

MASKS = 3000
"""Masks of the paper: the map is within 0.06 of its limit; see `bound`."""
KEEP = 0.5
"""Probability that a cell of a mask is kept, of the paper."""


class Relax:
    """RELAX of a batch of pictures, to be refined as long as there is time.

    Args:
        encode: what is explained. A torch module (or its method) is run in eval mode, without
            gradients.
        x: pictures (N, 3, S, S), float32 tensor or array, 0 where a pixel is hidden: normalised, or
            centred (see `nem.frame_encoder`). What comes out is of the same kind.
        seed: of the masks.
        grid: cells of a mask per side.
        keep: probability that a cell is kept.
        memory_mb: bound for the masked pictures seen at once and the encoder's work on them.

    Attributes:
        seen: masks so far; with one run for the whole picture, `1 + seen` runs of the encoder.
    """

    def __init__(
        self,
        encode: Encoder,
        x: Any,
        *,
        seed: int = 0,
        grid: int = 7,
        keep: float = KEEP,
        memory_mb: int = 512,
    ) -> None:
        _check_pictures(x)
        self._encode, self._x = encode, x
        self._masks = RandomMasks(x.shape[-1], grid, keep, seed)
        self._part = pictures_per_run(x, memory_mb)
        self._moments = WeightedMoments()
        with quiet(encode):
            # One by one, like the masked ones: a batch is then exactly its single pictures.
            self._whole = [self._run(x[i : i + 1]) for i in range(len(x))]
        self.seen = 0

    def step(self, count: int) -> Self:
        """See `count` more masks."""
        if count < 1:
            raise ArgumentError(f"{count} masks: at least 1 is needed")
        with quiet(self._encode):
            for start in range(self.seen, self.seen + count, self._part):
                masks = self._masks.like(start, min(start + self._part, self.seen + count), self._x)
                scores = [
                    cosine(self._run(masks * self._x[i]), whole)
                    for i, whole in enumerate(self._whole)
                ]
                self._moments.add(masks[:, 0], scores)
        self.seen += count
        return self

    @property
    def map(self) -> Any:
        """Importance, float32 (N, S, S) in [-1, 1]: the mean similarity where a pixel is kept."""
        return as_float32(self._seen_moments().mean)

    @property
    def uncertainty(self) -> Any:
        """Variance of the similarity where a pixel is kept, float32 (N, S, S)."""
        return as_float32(self._seen_moments().variance)

    def _seen_moments(self) -> WeightedMoments:
        if not self.seen:
            raise ArgumentError(
                "RELAX has seen no mask yet, so there is no map; call step(n) first"
            )
        return self._moments

    def _run(self, pictures: Any) -> Any:
        """Descriptions (B, D) in float64, of the kind of the pictures."""
        found = self._encode(pictures)
        if isinstance(pictures, np.ndarray) or not hasattr(found, "detach"):
            found = np.asarray(found)
        if found.ndim != 2 or len(found) != len(pictures):
            raise ArgumentError(
                f"encoder: {len(pictures)} pictures gave shape {tuple(found.shape)}; "
                f"({len(pictures)}, D) is needed"
            )
        return as_float64(found, like=pictures)


def relax(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    seed: int = 0,
    memory_mb: int = 512,
    masks: int = MASKS,
    grid: int = 7,
    keep: float = KEEP,
) -> Map:
    """RELAX of the embedding: its importance, with uncertainty.

    Args:
        backbone: the model.
        x: normalised pictures (N, 3, S, S).
        target: not looked at; no class is explained.
        seed: of the masks.
        memory_mb: bound for a run.
        masks: how many; see `masks_needed`.
        grid: cells of a mask per side.
        keep: probability that a cell is kept.
    """
    from nem.method import Map

    done = Relax(backbone.embed, x, seed=seed, grid=grid, keep=keep, memory_mb=memory_mb)
    done.step(masks)
    return Map(done.map, 1 + masks, 0, done.uncertainty)


def u_relax(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    seed: int = 0,
    memory_mb: int = 512,
    masks: int = MASKS,
    grid: int = 7,
    keep: float = KEEP,
    gamma: float = 1.0,
) -> Map:
    """U-RELAX: `relax`, 0 where it is not sure; see `certain`, whose option `gamma` is."""
    found = relax(
        backbone, x, seed=seed, memory_mb=memory_mb, masks=masks, grid=grid, keep=keep
    )  # fmt: skip
    assert found.uncertainty is not None
    return found._replace(map=certain(found.map, found.uncertainty, gamma))


def umt_relax(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    seed: int = 0,
    memory_mb: int = 512,
    masks: int = MASKS,
    grid: int = 7,
    keep: float = KEEP,
) -> Map:
    """UMT-RELAX: 1 where the uncertainty of `relax` is below its mean, else 0."""
    found = relax(
        backbone, x, seed=seed, memory_mb=memory_mb, masks=masks, grid=grid, keep=keep
    )  # fmt: skip
    assert found.uncertainty is not None
    return found._replace(map=below_mean(found.uncertainty))


def certain(importance: Any, uncertainty: Any, gamma: float = 1.0) -> Any:
    """U-RELAX: the importance where the uncertainty is below a threshold, else 0.

    The threshold is gamma times each map's median, as RELAX recommends; strictly below, so that a
    median of 0 leaves nothing.

    Args:
        importance: (N, S, S), tensor or array.
        uncertainty: of the same shape.
        gamma: > 0.
    """
    if gamma <= 0:
        raise ArgumentError(f"gamma {gamma}: more than 0 is needed")
    flat = uncertainty.reshape(len(uncertainty), -1)
    size = flat.shape[1]
    # Both middle values: torch's median is the lower one only.
    ordered = np.sort(flat, 1) if isinstance(flat, np.ndarray) else flat.sort(1).values
    median = (ordered[:, (size - 1) // 2] + ordered[:, size // 2]) / 2
    return importance * (uncertainty < gamma * median[:, None, None])


def below_mean(uncertainty: Any) -> Any:
    """UMT-RELAX: float32 (N, S, S), 1 where the uncertainty is below its map's mean, else 0."""
    mean = uncertainty.reshape(len(uncertainty), -1).mean(1)
    return as_float32(uncertainty < mean[:, None, None])


def masks_needed(t: float = 0.01, delta: float = 0.01, span: float = 1.0, keep: float = 1.0) -> int:
    """Masks after which a pixel's importance is within `t` of its limit, but for chance `delta`.

    RELAX, theorem 1 (Hoeffding): N >= ln(2 / delta) / (2 (t / span)^2). It is of equation 2,
    sum(M s) / N; the map of `Relax` is that over the mean of the masks, and so is its error.

    Args:
        t: largest error.
        delta: probability of a larger one.
        span: width of the range of similarities, see `span_of`.
        keep: mean of the masks: `KEEP` for the map of `Relax`; 1 gives the theorem's own number.
    """
    _check_bound(delta, span, keep, t=t)
    return math.ceil(math.log(2 / delta) / (2 * (t * keep / span) ** 2))


def bound(masks: int, delta: float = 0.01, span: float = 1.0, keep: float = 1.0) -> float:
    """The t that `masks` masks give: the inverse of `masks_needed`."""
    _check_bound(delta, span, keep, masks=masks)
    return span / keep * math.sqrt(math.log(2 / delta) / (2 * masks))


def span_of(embedding: Any) -> float:
    """Width of the range of cosines: 1 if embeddings are never negative, as after a ReLU; else 2.

    Judged by one of them.
    """
    return 1.0 if (embedding >= 0).all() else 2.0


def cosine(a: Any, b: Any) -> Any:
    """Cosine of the rows of (B, D) and (1, D), (B,); 0 where one of them is 0."""
    size = ((a * a).sum(1) * (b * b).sum(1)) ** 0.5
    return (a * b).sum(1) / size.clip(1e-12)


def _check_pictures(x: Any) -> None:
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) != 4 or shape[0] < 1 or shape[2] != shape[3]:
        raise ArgumentError(f"pictures of shape {shape}: (N, 3, S, S) with N >= 1 is needed")


def _check_bound(delta: float, span: float, keep: float, **positive: float) -> None:
    if not 0 < delta < 1:
        raise ArgumentError(f"delta {delta}: a probability between 0 and 1 is needed")
    if not 0 < keep <= 1:
        raise ArgumentError(f"keep {keep}: a probability above 0 is needed")
    for name, value in {"span": span, **positive}.items():
        if value <= 0:
            raise ArgumentError(f"{name} {value}: more than 0 is needed")
