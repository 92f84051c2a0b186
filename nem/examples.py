"""Label-free example importance on embeddings: Deep-KNN and SimplEx. numpy only, fit for live use.

Both compare what the model makes of pictures, so they hold for any model that embeds, and turning
the embedding space changes nothing. Label-free use: Crabbe and van der Schaar 2022 (Label-Free
Explainability for Unsupervised Models).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nem.errors import ArgumentError

EPS = 1e-6
"""Added to distances before they are inverted, so that duplicates get a finite weight."""
_BLOCK_BYTES = 1 << 20  # rows compared at a time: they stay in the CPU's cache
_ROUNDING = 1e-14  # relative error of sums of products in float64, with room

Floating = NDArray[np.floating]
Floats = NDArray[np.float64]


class Neighbours(NamedTuple):
    """The examples nearest to each query, nearest first; equally near ones in gallery order.

    Attributes:
        indices: (N, k) int64, rows of the gallery.
        weights: (N, k) float64, 1 / (distance + EPS).
        distances: (N, k) float64, Euclidean.
    """

    indices: NDArray[np.int64]
    weights: Floats
    distances: Floats


class Mixture(NamedTuple):
    """Each query as a mixture of examples.

    Attributes:
        weights: (N, M) float64, at least 0, each row of sum 1; mostly zeros.
        residuals: (N,) float64, Euclidean distance from the query to its mixture.
    """

    weights: Floats
    residuals: Floats


def nearest(query: ArrayLike, gallery: ArrayLike, k: int) -> Neighbours:
    """Deep-KNN (Papernot & McDaniel 2018): the examples whose embeddings are nearest.

    Args:
        query: embeddings (N, D).
        gallery: embeddings of the examples (M, D).
        k: how many, 1 to M.

    Raises:
        ArgumentError: shapes that don't fit, values that are not finite, or `k` out of range.
    """
    points, examples = _check(query, gallery)
    if not 1 <= k <= len(examples):
        raise ArgumentError(f"k is {k}, allowed: 1 to {len(examples)}, the number of examples")
    indices = np.empty((len(points), k), np.int64)
    distances = np.empty((len(points), k))
    for row, point in enumerate(points):
        apart = _distances(point, examples)
        indices[row] = np.argsort(apart, kind="stable")[:k]
        distances[row] = apart[indices[row]]
    return Neighbours(indices, 1 / (distances + EPS), distances)


def simplex(query: ArrayLike, gallery: ArrayLike) -> Mixture:
    """SimplEx (Crabbe et al. 2021): the best mixture of examples, solved exactly.

    Minimises |h - w H| over w >= 0 with sum 1 by Wolfe's algorithm (1976, "Finding the nearest
    point in a polytope"), which ends at the minimum after finitely many steps; the authors'
    gradient descent can end further away than the nearest single example.

    Args:
        query: embeddings (N, D).
        gallery: embeddings of the examples (M, D).

    Returns:
        Weights and residuals. A residual is never above the distance to the nearest example, an
        exact mixture leaves none, and a duplicate of an example is that example.

    Raises:
        ArgumentError: shapes that don't fit, or values that are not finite.
    """
    points, examples = _check(query, gallery)
    # Around their mean, so that a common offset costs no digits.
    offset = examples.mean(axis=0, dtype=np.float64)
    centred = examples - offset
    weights = np.zeros((len(points), len(examples)))
    residuals = np.empty(len(points))
    for index, point in enumerate(points - offset):
        chosen, shares, residuals[index] = _nearest_point(centred, point)
        weights[index, chosen] = shares
    return Mixture(weights, residuals)


def label_agreement(
    scores: ArrayLike, query_labels: ArrayLike, labels: ArrayLike, m: int
) -> tuple[float, float]:
    """How often the `m` most and the `m` least important examples have the query's label.

    The check of Crabbe and van der Schaar 2022: the first should be clearly higher.

    Args:
        scores: importance of each example for each query, (N, M), higher = more important.
        query_labels: (N,).
        labels: of the examples, (M,).
        m: how many at each end, 1 to M.

    Returns:
        Share among the top, share among the bottom, both in [0, 1].

    Raises:
        ArgumentError: shapes that don't fit, or `m` out of range.
    """
    ranked, own, theirs = np.asarray(scores), np.asarray(query_labels), np.asarray(labels)
    if own.ndim != 1 or theirs.ndim != 1 or ranked.shape != (len(own), len(theirs)):
        raise ArgumentError(
            f"scores {ranked.shape} for labels {own.shape} and {theirs.shape}: expected (N, M) "
            "for (N,) and (M,)"
        )
    if not 1 <= m <= len(theirs):
        raise ArgumentError(f"m is {m}, allowed: 1 to {len(theirs)}, the number of examples")
    same = theirs[np.argsort(-ranked, axis=1, kind="stable")] == own[:, None]
    return float(same[:, :m].mean()), float(same[:, -m:].mean())


def _distances(point: Floating, examples: Floating) -> Floats:
    """Euclidean distance (M,) of one embedding (D,) to each example (M, D)."""
    rows = max(1, _BLOCK_BYTES // (examples.shape[1] * examples.itemsize))
    distances = np.empty(len(examples))
    for start in range(0, len(examples), rows):
        # Differences, not |a|^2 + |b|^2 - 2ab: that would give duplicates a distance.
        apart = examples[start : start + rows] - point
        distances[start : start + rows] = np.sqrt(np.einsum("md,md->m", apart, apart))
    return distances


def _nearest_point(examples: Floats, point: Floats) -> tuple[list[int], Floats, float]:
    """The point of the examples' convex hull nearest to `point`: examples, shares, distance."""
    size = float(np.linalg.norm(examples, axis=1).max() + np.linalg.norm(point))
    chosen = [int(np.argmin(_distances(point, examples)))]
    shares = np.ones(1)
    rest = examples[chosen[0]] - point
    while (length := float(np.linalg.norm(rest))) > _ROUNDING * size:
        along = examples @ rest
        new = int(np.argmin(along))
        # Optimal when no example lies further along; what is left over is twice this gap at most.
        gap = rest @ rest + point @ rest - along[new]
        if gap <= _ROUNDING * size * length or new in chosen:
            break
        more, changed = _best_shares(examples, point, [*chosen, new], np.append(shares, 0.0))
        shorter = changed @ (examples[more] - point)
        if not np.linalg.norm(shorter) < length:  # rounding has the last word
            break
        chosen, shares, rest = more, changed, shorter
    return chosen, shares, length


def _best_shares(
    examples: Floats, point: Floats, chosen: list[int], shares: Floats
) -> tuple[list[int], Floats]:
    """Shares > 0 of the nearest point in the affine hull; examples that get none are left out."""
    while True:
        wanted = _affine_shares(examples[chosen] - point)
        if (wanted > 0).all():
            return chosen, wanted
        # As far towards `wanted` as all shares stay >= 0; the first to reach 0 leaves.
        limits = np.full(len(chosen), np.inf)
        falling = wanted <= 0
        limits[falling] = shares[falling] / (shares[falling] - wanted[falling])
        step = limits.min()
        shares = (1 - step) * shares + step * wanted
        stay = (limits > step) & (shares > 0)
        chosen = [index for index, kept in zip(chosen, stay, strict=True) if kept]
        shares = shares[stay] / shares[stay].sum()


def _affine_shares(vertices: Floats) -> Floats:
    """Shares of sum 1, of any sign, of the shortest vector in the affine hull of `vertices`."""
    # Least squares with a row of ones asking for the sum; scaling it back makes the sum exact.
    ones = np.full((1, len(vertices)), np.linalg.norm(vertices, axis=1).max())
    q, r = np.linalg.qr(np.concatenate([vertices.T, ones]))
    shares = np.linalg.solve(r, q[-1])
    return np.asarray(shares / shares.sum())


def _check(query: ArrayLike, gallery: ArrayLike) -> tuple[Floating, ...]:
    points, examples = (_floats(values) for values in (query, gallery))
    if points.ndim != 2 or examples.ndim != 2 or points.shape[1] != examples.shape[1]:
        raise ArgumentError(
            f"query {points.shape} and gallery {examples.shape}: expected embeddings (N, D) and "
            "(M, D) of the same model"
        )
    if 0 in examples.shape:
        raise ArgumentError(f"gallery {examples.shape}: no example in it")
    for name, values in (("query", points), ("gallery", examples)):
        if not np.isfinite(values).all():
            raise ArgumentError(f"{name}: an embedding is not finite; embed the pictures again")
    return points, examples


def _floats(values: ArrayLike) -> Floating:
    array = np.asarray(values)
    return array if array.dtype == np.float32 else np.asarray(array, np.float64)
