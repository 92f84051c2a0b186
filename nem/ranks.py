"""From a ranking's unbounded map to what can be shown: each pixel's percentile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def percentiles(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each pixel's rank among the pixels of its map: 0 for the lowest, 1 for the highest.

    Equal pixels share the mean of their ranks, so a flat map is 0.5 everywhere. Unlike a stretch
    to minimum and maximum this does not depend on single outliers, and keeps still over a video.

    Args:
        maps: (N, S, S), finite.

    Returns:
        float32 in [0, 1], (N, S, S): k pixels lie above 1 - k / (S * S).
    """
    ranks = np.empty(maps.shape, np.float32)
    for each, rank in zip(maps, ranks, strict=True):
        _rank(each.ravel(), rank.ravel())
    return ranks


def _rank(values: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Percentiles of a flat map, written to `out`."""
    count = values.size
    if count == 1:
        out[:] = 0.5
        return
    order = np.argsort(values)
    ordered = values[order]
    begins = np.empty(count, np.bool_)  # a run of equal values
    begins[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    if begins.all():
        ranks = np.arange(count, dtype=np.float32)
    else:
        starts = np.flatnonzero(begins)
        lengths = np.diff(starts, append=count)
        ranks = np.repeat((starts + (lengths - 1) / 2).astype(np.float32), lengths)
    out[order] = ranks / np.float32(count - 1)
