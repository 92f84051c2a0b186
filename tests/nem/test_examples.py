import numpy as np
import pytest

from nem.errors import ArgumentError
from nem.examples import EPS, label_agreement, nearest, simplex


def cloud(n: int, d: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, d)) * scale).astype(np.float32)


def rotation(d: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(9).normal(size=(d, d)))[0]


def clusters(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, 6) around three centres, and which one each belongs to."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return (4 * np.eye(6)[labels] + rng.normal(size=(n, 6))).astype(np.float32), labels


def test_nearest_is_what_a_sort_of_all_distances_gives() -> None:
    query, gallery = cloud(7, 300, 1), cloud(2000, 300)  # more rows than one block holds
    found = nearest(query, gallery, 9)
    apart = np.linalg.norm(query[:, None].astype(float) - gallery[None], axis=2)
    np.testing.assert_array_equal(found.indices, np.argsort(apart, axis=1)[:, :9])
    np.testing.assert_allclose(found.distances, np.sort(apart, axis=1)[:, :9], rtol=1e-6)
    np.testing.assert_allclose(found.weights, 1 / (found.distances + EPS))
    assert found.indices.dtype == np.int64


def test_duplicates_are_at_distance_zero_in_gallery_order_and_finite() -> None:
    # Far from the origin, where |a|^2 + |b|^2 - 2ab has no digits left.
    gallery = cloud(20, 8) + np.float32(1e4)
    gallery[[3, 11, 17]] = gallery[5]
    found = nearest(gallery[5:6], gallery, 5)
    assert found.indices[0, :4].tolist() == [3, 5, 11, 17]
    assert found.distances[0, :4].tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(found.weights[0, :4], 1 / EPS)


def test_weights_follow_the_inverse_distance() -> None:
    found = nearest([[0.0, 0.0]], [[3.0, 4.0], [0.0, 1.0], [0.0, -2.0]], 3)
    assert found.indices.tolist() == [[1, 2, 0]]
    np.testing.assert_allclose(found.weights, [[1, 1 / 2, 1 / 5]], rtol=1e-5)


@pytest.mark.parametrize(("m", "d"), [(1, 4), (6, 3), (4, 20), (60, 15), (200, 40)])
@pytest.mark.parametrize("scale", [0.2, 3.0])
def test_simplex_is_the_exact_minimum(m: int, d: int, scale: float) -> None:
    query, gallery = cloud(5, d, 1, scale), cloud(m, d) + np.float32(10)
    query += np.float32(10)
    weights, residuals = simplex(query, gallery)
    assert weights.shape == (5, m)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    mixture = weights @ gallery
    np.testing.assert_allclose(np.linalg.norm(query - mixture, axis=1), residuals, atol=1e-10)
    assert (residuals <= nearest(query, gallery, 1).distances[:, 0] * (1 + 1e-6)).all()
    # The optimality condition of a convex problem: no example lies further along the residual.
    rest = query - mixture
    further = np.einsum("nd,nmd->nm", rest, gallery[None] - mixture[:, None])
    assert further.max() <= 1e-9


def test_exact_mixtures_are_recovered() -> None:
    gallery = np.random.default_rng(0).normal(size=(40, 64)) * 50 + 1000
    wanted = np.zeros((3, 40))
    wanted[0, [4, 9, 31]] = (0.5, 0.3, 0.2)
    wanted[1, [0, 39]] = (0.001, 0.999)
    wanted[2] = np.random.default_rng(1).dirichlet(np.ones(40))
    found = simplex(wanted @ gallery, gallery)
    assert found.residuals.max() < 1e-6
    np.testing.assert_allclose(found.weights, wanted, atol=1e-9)
    assert np.flatnonzero(found.weights[0] > 1e-9).tolist() == [4, 9, 31]


def test_a_mixture_of_more_examples_than_dimensions_leaves_no_residual() -> None:
    gallery = cloud(100, 5)
    wanted = np.random.default_rng(1).dirichlet(np.ones(100), 4)
    assert simplex(wanted @ gallery, gallery).residuals.max() < 1e-6


def test_a_duplicate_of_an_example_is_that_example() -> None:
    gallery = cloud(30, 12)
    gallery[20] = gallery[7]  # and a second one takes no share
    found = simplex(gallery[[7, 12]], gallery)
    assert found.weights[0, 7] == found.weights[1, 12] == 1
    assert (found.weights > 0).sum() == 2
    assert found.residuals.tolist() == [0, 0]


def test_degenerate_galleries() -> None:
    flat = np.ones((10, 4))  # all examples the same
    found = simplex([[2.0, 1.0, 1.0, 1.0]], flat)
    assert found.weights.sum() == found.residuals[0] == 1
    line = np.arange(8.0)[:, None] * np.ones((1, 3))  # all on a line, with ties
    found = simplex([[2.5, 2.5, 2.5], [-1.0, -1.0, -1.0]], line)
    np.testing.assert_allclose(found.residuals, [0, 3**0.5], atol=1e-12)
    assert found.weights[1, 0] == 1


def test_each_query_stands_for_itself() -> None:
    query, gallery = cloud(7, 9, 1), cloud(30, 9)
    together, alone = (
        simplex(query, gallery),
        [simplex(query[i : i + 1], gallery) for i in range(7)],
    )
    np.testing.assert_allclose(together.weights, np.concatenate([a.weights for a in alone]))
    np.testing.assert_array_equal(
        nearest(query, gallery, 4).indices,
        np.concatenate([nearest(query[i : i + 1], gallery, 4).indices for i in range(7)]),
    )


def test_turning_the_embedding_space_changes_nothing() -> None:
    query, gallery = cloud(6, 10, 1).astype(float), cloud(40, 10).astype(float)
    turn = rotation(10)
    first, second = nearest(query, gallery, 8), nearest(query @ turn, gallery @ turn, 8)
    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_allclose(first.weights, second.weights, rtol=1e-9)
    np.testing.assert_allclose(
        simplex(query, gallery).weights, simplex(query @ turn, gallery @ turn).weights, atol=1e-9
    )


def test_important_examples_share_the_label() -> None:
    gallery, labels = clusters(60, 0)
    query, own = clusters(20, 1)
    found = nearest(query, gallery, 60)
    scores = np.empty((20, 60))
    np.put_along_axis(scores, found.indices, found.weights, axis=1)
    for importance in (scores, simplex(query, gallery).weights):
        top, bottom = label_agreement(importance, own, labels, 3)
        assert top > 0.8
        assert bottom < top - 0.3


def test_label_agreement_counts_both_ends() -> None:
    scores = [[4, 3, 2, 1], [1, 2, 3, 4]]
    labels = ["cat", "cat", "dog", "dog"]
    assert label_agreement(scores, ["cat", "cat"], labels, 1) == (0.5, 0.5)
    assert label_agreement(scores, ["cat", "dog"], labels, 2) == (1.0, 0.0)
    assert label_agreement(scores, ["cat", "dog"], labels, 4) == (0.5, 0.5)


@pytest.mark.parametrize("method", [lambda q, g: nearest(q, g, 1), simplex])
@pytest.mark.parametrize(
    ("query", "gallery", "say"),
    [
        (np.zeros((2, 3)), np.zeros((4, 5)), r"\(2, 3\) and gallery \(4, 5\)"),
        (np.zeros(3), np.zeros((4, 3)), "expected embeddings"),
        (np.zeros((2, 3)), np.zeros((0, 3)), "no example"),
        (np.full((1, 3), np.nan), np.zeros((4, 3)), "query: .* not finite"),
        (np.zeros((1, 3)), np.full((4, 3), np.inf), "gallery: .* not finite"),
    ],
)
def test_what_does_not_fit_is_refused(method, query, gallery, say) -> None:
    with pytest.raises(ArgumentError, match=say):
        method(query, gallery)


def test_ranges_are_checked() -> None:
    for k in (0, 5):
        with pytest.raises(ArgumentError, match="allowed: 1 to 4"):
            nearest(np.zeros((1, 2)), np.zeros((4, 2)), k)
        with pytest.raises(ArgumentError, match="allowed: 1 to 4"):
            label_agreement(np.zeros((1, 4)), [0], [0] * 4, k)
    with pytest.raises(ArgumentError, match=r"expected \(N, M\)"):
        label_agreement(np.zeros((2, 4)), [0], [0] * 4, 1)
