from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nem.moments import WeightedMoments
from nem.rise_masks import RandomMasks


def some(n: int = 300) -> tuple[NDArray[Any], NDArray[Any]]:
    """Masks and the scores of two pictures, far from 0 so that digits could get lost."""
    rng = np.random.default_rng(0)
    return RandomMasks(24).arrays(0, n)[:, 0], 0.9 + 0.05 * rng.random((2, n))


def two_pass(masks: NDArray[Any], scores: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    m, s = masks.astype(np.float64), scores[:, :, None, None]
    mean = (m * s).sum(1) / m.sum(0)
    return mean, (m * (s - mean[:, None]) ** 2).sum(1) / (m.sum(0) - 1)


def one_pass(masks: NDArray[Any], scores: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The paper's algorithm 1, mask by mask."""
    shape = (len(scores), *masks.shape[1:])
    weight = np.full(masks.shape[1:], 1e-10)
    mean, squares = np.zeros(shape), np.zeros(shape)
    for m, s in zip(masks.astype(np.float64), scores.T[:, :, None, None], strict=True):
        weight = weight + m
        before = mean
        mean = mean + m * (s - mean) / weight
        squares = squares + m * (s - mean) * (s - before)
    return mean, squares / (weight - 1)


@pytest.mark.parametrize("reference", [two_pass, one_pass])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("chunk", [1, 7, 300])
def test_chunks_are_the_whole(reference: Any, kind: Any, chunk: int) -> None:
    masks, scores = some()
    moments = WeightedMoments()
    for start in range(0, 300, chunk):
        part = slice(start, start + chunk)
        moments.add(kind(masks[part]), [kind(row[part]) for row in scores])
    mean, variance = reference(masks, scores)
    assert isinstance(moments.mean, type(kind(0.0)))
    np.testing.assert_allclose(np.asarray(moments.mean), mean, rtol=1e-9)
    np.testing.assert_allclose(np.asarray(moments.variance), variance, rtol=1e-6)


def test_order_does_not_matter() -> None:
    masks, scores = some()
    moments, turned = WeightedMoments(), WeightedMoments()
    moments.add(masks, scores)
    turned.add(masks[200:], scores[:, 200:])
    turned.add(masks[199::-1], scores[:, 199::-1])
    np.testing.assert_allclose(moments.mean, turned.mean, rtol=1e-12)
    np.testing.assert_allclose(moments.variance, turned.variance, rtol=1e-9)


def test_equal_scores_vary_nowhere() -> None:
    masks, _ = some(20)
    moments = WeightedMoments()
    for _ in range(3):
        moments.add(masks, [np.full(20, 0.7)])
    np.testing.assert_allclose(moments.mean, 0.7, rtol=1e-9)
    assert np.abs(moments.variance).max() < 1e-18


def test_few_masks_neither_divide_by_zero_nor_go_below_it() -> None:
    masks, scores = some(3)
    masks[:, 0, 0] = 0
    masks[:, 0, 1] = (1, 0, 0)
    moments = WeightedMoments()
    for i in range(3):
        moments.add(masks[i : i + 1], scores[:, i : i + 1])
        assert np.isfinite(moments.mean).all()
        assert (moments.variance >= 0).all()
        # A weighted variance is at most that of the range, here doubled at most by the divisor.
        assert moments.variance.max() <= 2 * 0.05**2
    assert (moments.mean[:, 0, 0] == 0).all()
    np.testing.assert_allclose(moments.mean[:, 0, 1], scores[:, 0], rtol=1e-9)
