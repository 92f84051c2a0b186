"""How good a map is, per picture. numpy only; CPU tensors are accepted as they are.

Maps are (N, H, W) or (N, 1, H, W), non-negative (below 0 counts as 0), larger = more important.
Ground truth is of the same shape, non-zero inside the object. `relevance_mass` also takes a soft
truth, floats in [0, 1]: the share of each pixel that the object covers, as an object mask averaged
down to the map's size gives. Where the truth is empty the result is NaN, to be left out of averages
(`numpy.nanmean`). A map that is 0 everywhere says nothing, and counts as uniform. Tied values share
what they would win, so order never matters.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]


def relevance_mass(maps: ArrayLike, truth: ArrayLike) -> Values:
    """Share of the map's mass inside the object, (N,). Arras et al. 2022 (RMA).

    Args:
        maps: see the module's text.
        truth: non-zero inside the object; floats between 0 and 1 count in part.
    """
    m, share = _both(maps, truth)
    if share.dtype.kind == "f" and ((share > 0) & (share < 1)).any():
        if not ((share >= 0) & (share <= 1)).all():
            raise ValueError(
                f"truth: a soft truth lies in [0, 1], found {share.min():g} to {share.max():g}; "
                "divide it by its full value"
            )
        weights = share.astype(np.float64)
    else:
        weights = (share != 0).astype(np.float64)
    return _or_nan((m * weights).sum(1) / m.sum(1), weights > 0)


def relevance_rank(maps: ArrayLike, truth: ArrayLike) -> Values:
    """Share of the K largest values inside the object of K pixels, (N,). Arras et al. 2022."""
    m, inside = _pair(maps, truth)
    hits = np.zeros(len(m))
    for i, (row, object_) in enumerate(zip(m, inside, strict=True)):
        size = int(object_.sum())
        if size == 0:
            continue
        threshold = np.partition(row, len(row) - size)[len(row) - size]
        above, tied = row > threshold, row == threshold
        share = (size - above.sum()) / tied.sum()
        hits[i] = (object_[above].sum() + share * object_[tied].sum()) / size
    return _or_nan(hits, inside)


def pointing_game(maps: ArrayLike, truth: ArrayLike) -> Values:
    """Share of the map's largest values inside the object, (N,). Zhang et al. 2018.

    1 or 0 but for ties.
    """
    m, inside = _pair(maps, truth)
    top = m == m.max(1, keepdims=True)
    return _or_nan((top & inside).sum(1) / top.sum(1), inside)


def entropy(maps: ArrayLike) -> Values:
    """Entropy of the map as a distribution, in nats, (N,). Bhatt et al. 2020 (complexity).

    0 for one pixel, ln(HW) if uniform.
    """
    m = _flat(maps)
    share = m / m.sum(1, keepdims=True)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    result: Values = np.abs((share * logs).sum(1))
    return result


def gini(maps: ArrayLike) -> Values:
    """Gini index of the values, (N,): 0 if uniform, 1 - 1/(HW) for one pixel. Hurley 2009."""
    m = np.sort(_flat(maps), axis=1)
    count = m.shape[1]
    weights = (count - np.arange(1, count + 1) + 0.5) / count
    result: Values = 1 - 2 * (m * weights).sum(1) / m.sum(1)
    return result


def min_max(maps: ArrayLike) -> NDArray[np.float32]:
    """Maps (N, H, W) or (N, 1, H, W), each shifted and scaled to [0, 1]; constant ones are 0.

    What metrics need where a map's scale or sign counts, so that maps of all methods compare.

    Returns:
        (N, H, W).

    Raises:
        ValueError: a value is not finite.
    """
    array = np.asarray(maps, np.float64)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if not np.isfinite(array).all():
        raise ValueError("maps: values that are not finite")
    low = array.min((1, 2), keepdims=True)
    span = array.max((1, 2), keepdims=True) - low
    scaled = np.divide(array - low, span, out=np.zeros_like(array), where=span > 0)
    result: NDArray[np.float32] = scaled.astype(np.float32)
    return result


def _flat(maps: ArrayLike) -> Values:
    """(N, pixels) in float64, >= 0, an all-zero row made uniform."""
    array = np.asarray(maps, np.float64)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3:
        raise ValueError(f"maps: expected (N, H, W) or (N, 1, H, W), got {array.shape}")
    flat = np.maximum(array.reshape(len(array), math.prod(array.shape[1:])), 0)
    if not np.isfinite(flat).all():
        raise ValueError("maps: values that are not finite")
    flat[flat.sum(1) == 0] = 1
    return flat


def _both(maps: ArrayLike, truth: ArrayLike) -> tuple[Values, NDArray[Any]]:
    """Maps as `_flat` gives them, and the truth as it is, (N, pixels)."""
    m, array = _flat(maps), np.asarray(truth)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("truth: values that are not finite")
    t = array.reshape(len(array), math.prod(array.shape[1:]))
    if t.shape != m.shape:
        raise ValueError(f"truth {array.shape} and maps {np.shape(maps)} differ in size")
    return m, t


def _pair(maps: ArrayLike, truth: ArrayLike) -> tuple[Values, NDArray[np.bool_]]:
    m, raw = _both(maps, truth)
    if raw.dtype.kind == "f" and ((raw > 0) & (raw < 1)).any():
        raise ValueError(
            "truth: found values between 0 and 1, only relevance_mass takes a soft truth; "
            "decide each pixel first (truth >= 0.5)"
        )
    return m, raw != 0


def _or_nan(values: Values, inside: NDArray[np.bool_]) -> Values:
    return np.where(inside.any(1), values, np.nan)
