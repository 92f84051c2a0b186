"""Percentiles of rankings."""

from __future__ import annotations

import numpy as np
import pytest

from nem.ranks import percentiles


def test_percentiles_are_exact_and_ties_share() -> None:
    maps = np.array([[[3.0, -1.0], [7.0, 3.0]], [[5.0, 5.0], [5.0, 5.0]]], np.float32)
    np.testing.assert_allclose(percentiles(maps), [[[0.5, 0], [1, 0.5]], [[0.5] * 2] * 2])
    assert percentiles(np.zeros((1, 1, 1), np.float32)) == 0.5
    assert percentiles(np.array([[[-0.0, 0.0]]], np.float32)).tolist() == [[[0.5, 0.5]]]


@pytest.mark.parametrize("step", [None, 0.25])
def test_percentiles_match_the_definition_and_only_the_order_counts(step: float | None) -> None:
    random = np.random.default_rng(0)
    maps = random.standard_normal((2, 40, 30)).astype(np.float32)
    if step:
        maps = np.round(maps / np.float32(step)) * np.float32(step)
    found = percentiles(maps)
    assert found.dtype == np.float32
    for each, ranks in zip(maps.reshape(2, -1), found.reshape(2, -1), strict=True):
        below = (each[:, None] > each).sum(1)
        equal = (each[:, None] == each).sum(1)
        np.testing.assert_allclose(ranks, (below + (equal - 1) / 2) / 1199, atol=1e-6)
    np.testing.assert_array_equal(percentiles(4 * maps), found)  # exact in float32
