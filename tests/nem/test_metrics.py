import math

import numpy as np
import pytest
import torch

from nem.metrics import (
    entropy,
    gini,
    min_max,
    pointing_game,
    relevance_mass,
    relevance_rank,
)

TOY = np.zeros((1, 4, 4), np.float32)
TOY[0, 0] = [4, 3, 2, 1]
TRUTH = np.zeros((1, 4, 4), bool)
TRUTH[0, [0, 0, 1], [0, 1, 0]] = True
ONE = np.zeros((1, 4, 4))
ONE[0, 2, 1] = 5
FLAT = np.full((1, 4, 4), 0.3)


def test_toy_values() -> None:
    assert relevance_rank(TOY, TRUTH) == pytest.approx([2 / 3])
    assert relevance_mass(TOY, TRUTH) == pytest.approx([0.7])
    assert pointing_game(TOY, TRUTH) == pytest.approx([1])
    assert entropy(TOY) == pytest.approx([1.27985], abs=1e-5)
    assert gini(TOY) == pytest.approx([0.8125])


def test_extremes() -> None:
    assert entropy(ONE) == pytest.approx([0])
    assert gini(ONE) == pytest.approx([1 - 1 / 16])
    assert entropy(FLAT) == pytest.approx([math.log(16)])
    assert gini(FLAT) == pytest.approx([0])
    assert pointing_game(ONE, TRUTH) == pytest.approx([0])


@pytest.mark.parametrize("flat", [FLAT, np.zeros_like(FLAT), np.ones_like(FLAT)])
def test_a_constant_map_counts_as_uniform(flat: np.ndarray) -> None:
    for metric in (relevance_mass, relevance_rank, pointing_game):
        assert metric(flat, TRUTH) == pytest.approx([3 / 16])
    assert entropy(flat) == pytest.approx([math.log(16)])
    assert gini(flat) == pytest.approx([0])


def test_ties_do_not_depend_on_order() -> None:
    tied = np.zeros((1, 4, 4))
    tied[0, 0, :2] = 1
    for truth_column in (0, 1):
        truth = np.zeros((1, 4, 4))
        truth[0, 0, truth_column] = 1
        assert relevance_rank(tied, truth) == pytest.approx([0.5])
        assert pointing_game(tied, truth) == pytest.approx([0.5])


def test_an_empty_object_is_nan_and_the_others_stand() -> None:
    maps, truth = np.repeat(TOY, 2, 0), np.concatenate([np.zeros_like(TRUTH), TRUTH])
    for metric, value in ((relevance_mass, 0.7), (relevance_rank, 2 / 3), (pointing_game, 1)):
        empty, full = metric(maps, truth)
        assert np.isnan(empty)
        assert full == pytest.approx(value)


def test_negative_values_count_as_nothing_and_arguments_stay() -> None:
    maps = TOY.copy()
    maps[0, 3] = -2
    before = maps.copy()
    assert relevance_mass(maps, TRUTH) == pytest.approx([0.7])
    np.testing.assert_array_equal(maps, before)


def test_scale_does_not_matter_and_tensors_are_fine() -> None:
    maps = torch.from_numpy(TOY * 1e-3)[:, None]
    truth = torch.from_numpy(TRUTH * np.uint8(255))[:, None]
    assert relevance_mass(maps, truth) == pytest.approx([0.7])
    assert relevance_rank(maps, truth) == pytest.approx([2 / 3])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        relevance_mass(TOY, TRUTH[:, :3])
    with pytest.raises(ValueError, match="expected"):
        entropy(TOY[0])
    with pytest.raises(ValueError, match="finite"):
        gini(TOY * np.nan)


def test_a_soft_truth_counts_in_part() -> None:
    soft = TRUTH.astype(np.float32)
    soft[0, 0, 1] = 0.5  # value 3 of the 10: half of it is outside
    assert relevance_mass(TOY, soft) == pytest.approx([0.55])
    assert np.isnan(relevance_mass(TOY, np.zeros_like(soft))).all()


def test_of_no_map_there_are_no_figures() -> None:
    none = np.zeros((0, 1, 4, 4))
    for metric in (relevance_mass, relevance_rank, pointing_game):
        assert metric(none, none).shape == (0,)
    for figure in (entropy, gini):
        assert figure(none).shape == (0,)


@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_a_binary_truth_counts_whole_whatever_its_type(kind: type, scale: int) -> None:
    assert relevance_mass(TOY, TRUTH.astype(kind) * kind(scale)) == pytest.approx([0.7])


def test_a_soft_truth_is_refused_where_it_has_no_meaning() -> None:
    soft = TRUTH * np.float32(0.5)
    for metric in (relevance_rank, pointing_game):
        with pytest.raises(ValueError, match="soft truth"):
            metric(TOY, soft)
    for wrong in (soft * 3, -soft + TRUTH[:, ::-1] * 0.25):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            relevance_mass(TOY, np.where(TRUTH, wrong, 0.2))
    with pytest.raises(ValueError, match="finite"):
        relevance_mass(TOY, soft * np.nan)


def test_min_max_scales_each_map_on_its_own() -> None:
    maps = np.array([[[-1, 3], [1, 0]], [[7, 7], [7, 7]], [[0, 0.5], [1, 0.25]]])
    scaled = min_max(maps[:, None])
    assert scaled.dtype == np.float32
    assert scaled[0].tolist() == [[0, 1], [0.5, 0.25]]
    assert not scaled[1].any()
    np.testing.assert_array_equal(scaled[2], maps[2])


def test_min_max_refuses_what_has_no_scale() -> None:
    with pytest.raises(ValueError, match="not finite"):
        min_max(np.array([[[0.0, np.nan], [1.0, 2.0]]]))
