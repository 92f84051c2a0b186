import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.feature import hog
from torch import Tensor, nn

from nem.data import normalise
from nem.errors import ArgumentError
from nem.explanation import Explanation
from nem.frame_encoder import centred, frame_encoder
from nem.moments import WeightedMoments
from nem.quiet import quiet
from nem.relax import (
    KEEP,
    Relax,
    below_mean,
    bound,
    certain,
    cosine,
    masks_needed,
    relax,
    span_of,
    u_relax,
    umt_relax,
)
from nem.rise_masks import RandomMasks
from tests.nem.toys import SIZE, batch, shapes, tiny_backbone

SMALL = 32


def corner(x: Tensor) -> Tensor:
    """Describes pictures by their upper left quarter only."""
    return F.avg_pool2d(x[:, :, : SMALL // 2, : SMALL // 2], 4).flatten(1)


def test_the_map_is_the_weighted_mean_and_variance_of_cosines() -> None:
    backbone, x = tiny_backbone(), batch(2)
    done = Relax(backbone.embed, x, seed=5).step(40)
    masks = RandomMasks(SIZE, seed=5).tensors(0, 40)
    for i, picture in enumerate(x):
        s = F.cosine_similarity(backbone.embed(masks * picture), backbone.embed(x[i : i + 1]))
        m, s = masks[:, 0].double(), s.double()[:, None, None]
        mean = (m * s).sum(0) / m.sum(0)
        variance = (m * (s - mean) ** 2).sum(0) / (m.sum(0) - 1)
        torch.testing.assert_close(done.map[i].double(), mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(done.uncertainty[i].double(), variance, rtol=1e-3, atol=1e-9)


def test_it_finds_the_only_place_that_counts() -> None:
    done = Relax(corner, batch(2, SMALL)).step(600)
    inside, outside = done.map[:, :16, :16], done.map.clone()
    outside[:, :20, :20] = -1
    assert (inside.mean((1, 2)) > outside.flatten(1).max(1).values).all()


def test_steps_refine_what_one_run_gives() -> None:
    backbone, x = tiny_backbone(), batch(2)
    once = Relax(backbone.embed, x).step(30)
    steps = Relax(backbone.embed, x, memory_mb=1)
    for n, seen in ((1, 1), (12, 13), (17, 30)):
        assert steps.step(n) is steps
        assert steps.seen == seen
    torch.testing.assert_close(steps.map, once.map, rtol=0, atol=1e-6)
    torch.testing.assert_close(steps.uncertainty, once.uncertainty, rtol=1e-3, atol=1e-9)
    assert once.map.dtype == once.uncertainty.dtype == torch.float32
    assert not torch.equal(Relax(backbone.embed, x, seed=1).step(30).map, once.map)


def test_more_masks_come_nearer_to_the_limit() -> None:
    x = batch(1, SMALL)
    limit = Relax(corner, x, seed=9).step(6000).map
    done = Relax(corner, x)
    errors = [float((done.step(n).map - limit).abs().mean()) for n in (50, 450, 1500)]
    assert errors[2] < errors[1] < errors[0]


def test_constant_similarity_is_a_flat_map_without_uncertainty() -> None:
    done = Relax(lambda x: torch.ones(len(x), 3), batch(2, SMALL)).step(20)
    torch.testing.assert_close(done.map, torch.ones(2, SMALL, SMALL))
    assert (done.uncertainty == 0).all()


def test_an_encoder_that_sees_nothing_gives_zero_not_nan() -> None:
    done = Relax(lambda x: torch.zeros(len(x), 3), batch(1, SMALL)).step(20)
    assert (done.map == 0).all()
    assert (done.uncertainty == 0).all()


def test_hand_made_features_can_be_explained() -> None:
    def describe(x: Tensor) -> np.ndarray:
        grey = x.mean(1).numpy()
        return np.stack([hog(g, pixels_per_cell=(8, 8), cells_per_block=(1, 1)) for g in grey])

    x = torch.zeros(1, 3, SMALL, SMALL)
    x[..., 4:14, 18:28] = torch.rand(10, 10, generator=torch.Generator().manual_seed(0))
    done = Relax(describe, x).step(250)
    assert isinstance(done.map, Tensor)
    row, column = np.unravel_index(int(done.map[0].argmax()), (SMALL, SMALL))
    assert row <= 18
    assert column >= 14


def test_a_network_is_evaluated_without_gradients_and_left_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
    net[1].eval()
    modes: list[tuple[bool, bool]] = []
    net.register_forward_hook(lambda *_: modes.append((net.training, torch.is_grad_enabled())))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    done = Relax(net, batch(1, 16)).step(3)
    assert set(modes) == {(False, False)}
    assert [m.training for m in net] == [True, False, True, True]
    assert net.training
    assert torch.is_grad_enabled()
    assert not done.map.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with quiet(net, gradient=True):
        assert torch.is_grad_enabled()
        assert not net[0].training


def test_an_engine_is_explained_on_arrays() -> None:
    """Frames in, embeddings out, no tensor: the same map but for the rounding of pixels."""
    backbone = tiny_backbone()
    frames = shapes(2, seed=0)[0]

    def run(given: np.ndarray) -> Explanation:
        assert given.dtype == np.uint8
        with torch.no_grad():
            x = normalise(torch.from_numpy(given), backbone.mean, backbone.std)
            embedding = backbone.embed(x).numpy()
        return Explanation(np.zeros((len(given), 1, 1), np.float32), None, embedding, (), 0.0)

    pictures = centred(frames, backbone.mean)
    assert pictures.dtype == np.float32
    done = Relax(frame_encoder(run, backbone.mean), pictures).step(40)
    x = normalise(torch.from_numpy(frames), backbone.mean, backbone.std)
    expected = Relax(backbone.embed, x).step(40)
    assert isinstance(done.map, np.ndarray)
    assert isinstance(done.uncertainty, np.ndarray)
    np.testing.assert_allclose(done.map, expected.map, atol=2e-3)
    for one, other in zip(done.map, expected.map.numpy(), strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.99


def test_explaining_an_engine_loads_no_torch() -> None:
    code = "import nem.relax, nem.frame_encoder, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_the_cosine_of_a_zero_row_is_zero_beside_one_that_is_not(kind) -> None:
    rows, whole = kind(np.array([[0.0, 0.0], [3.0, 4.0]])), kind(np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(np.asarray(cosine(rows, whole)), [0, 0.6])
    np.testing.assert_array_equal(np.asarray(cosine(rows, 0 * whole)), [0, 0])


def test_u_relax_keeps_the_surer_half() -> None:
    rng = np.random.default_rng(0)
    importance, uncertainty = rng.random((2, 2, 16, 16)) + 1
    for kind in (np.asarray, torch.as_tensor):
        kept = np.asarray(certain(kind(importance), kind(uncertainty)))
        assert ((kept != 0).mean((1, 2)) == 0.5).all()
        sure = uncertainty < np.median(uncertainty, axis=(1, 2), keepdims=True)
        np.testing.assert_array_equal(kept, np.where(sure, importance, 0))
    more = certain(importance, uncertainty, gamma=1.2)
    assert ((more != 0).mean((1, 2)) > 0.5).all()
    assert (certain(importance, np.zeros_like(importance)) == 0).all()  # strictly below


def test_umt_relax_is_where_uncertainty_is_below_its_mean() -> None:
    uncertainty = np.arange(8.0).reshape(2, 2, 2) ** 2
    expected = [[[1, 1], [0, 0]], [[1, 1], [0, 0]]]
    for kind in (np.asarray, torch.as_tensor):
        found = below_mean(kind(uncertainty))
        np.testing.assert_array_equal(np.asarray(found), expected)
        assert np.asarray(found).dtype == np.float32


def test_the_methods_are_the_class_and_its_filters() -> None:
    backbone, x = tiny_backbone(), batch(2)
    options: dict[str, Any] = {"seed": 3, "masks": 20, "grid": 5, "keep": 0.4, "memory_mb": 64}
    found = relax(backbone, x, **options)
    done = Relax(backbone.embed, x, seed=3, grid=5, keep=0.4).step(20)
    torch.testing.assert_close(found.map, done.map, rtol=0, atol=1e-6)
    assert (found.forwards, found.backwards) == (21, 0)
    assert found.uncertainty is not None
    sure = u_relax(backbone, x, **options, gamma=0.8)
    assert torch.equal(sure.map, certain(found.map, found.uncertainty, 0.8))
    binary = umt_relax(backbone, x, **options)
    assert torch.equal(binary.map, below_mean(found.uncertainty))
    assert sure.forwards == binary.forwards == 21


def test_the_number_of_masks_follows_from_the_bound() -> None:
    assert masks_needed(t=0.01, delta=0.01) == 26492
    assert masks_needed(t=0.05, delta=0.05) == 738
    assert masks_needed(t=0.01, delta=0.01, span=2) == 105967
    assert masks_needed(t=0.01, keep=KEEP) == 105967
    assert bound(3000) == pytest.approx(0.0297, abs=5e-5)
    assert bound(3000, keep=KEEP) == pytest.approx(2 * 0.0297, abs=1e-4)
    assert bound(26492) <= 0.01 < bound(26491)
    assert bound(1000, 0.05, span=2) == pytest.approx(2 * bound(1000, 0.05))


def test_the_bound_holds_for_the_map_and_the_theorem_s_number_does_not() -> None:
    """Of 100 pictures whose similarities are tosses of a coin, where each pixel is kept or not."""
    rng, moments = np.random.default_rng(0), WeightedMoments()
    masks = (rng.random((400, 30, 30)) < 0.5).astype(np.float32)
    moments.add(masks, list(rng.integers(0, 2, (100, 400)).astype(np.float64)))
    error = np.abs(moments.mean - 0.5)
    assert (error > bound(400)).mean() > 0.01
    assert (error > bound(400, keep=KEEP)).mean() < 0.01


def test_the_span_of_cosines_is_that_of_embeddings() -> None:
    for kind in (np.asarray, torch.as_tensor):
        assert span_of(kind([[0.0, 2.0]])) == 1
        assert span_of(kind([[-1.0, 2.0]])) == 2


def test_what_can_not_be_done_is_refused() -> None:
    x = batch(1, 16)
    with pytest.raises(ArgumentError, match=r"1 pictures gave shape \(2, 3, 16, 16\)"):
        Relax(lambda x: torch.cat([x, x]), x)
    with pytest.raises(ArgumentError, match=r"shape \(3, 16, 16\): \(N, 3, S, S\)"):
        Relax(corner, x[0])
    with pytest.raises(ArgumentError, match="0 masks"):
        Relax(corner, x).step(0)
    with pytest.raises(ArgumentError, match="no mask yet"):
        Relax(corner, x).map  # noqa: B018
    with pytest.raises(ArgumentError, match="memory_mb 0"):
        Relax(corner, x, memory_mb=0)
    with pytest.raises(ArgumentError, match="gamma 0"):
        certain(np.ones((1, 2, 2)), np.ones((1, 2, 2)), 0)
    for wrong in ({"t": 0}, {"delta": 1}, {"span": -1}, {"keep": 0}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            masks_needed(**wrong)
    with pytest.raises(ArgumentError, match="masks 0"):
        bound(0)
