import pytest
import torch

from nem.attribution_check import latent_shift
from nem.errors import ArgumentError
from tests.nem.toys import batch, tiny_backbone


def weighted(weights: torch.Tensor):
    """A backbone whose embedding is each pixel of the first channel, weighted: additive."""
    backbone = tiny_backbone()
    backbone.embed = lambda z: (z[:, 0] * weights).flatten(1)  # type: ignore[method-assign]
    return backbone


def test_a_map_of_what_counts_shifts_more_than_chance_and_its_opposite_less() -> None:
    weights = torch.rand(64, 64, generator=torch.manual_seed(0))
    backbone, x = weighted(weights), torch.ones(2, 3, 64, 64)
    right = latent_shift(backbone, x, weights.expand(2, -1, -1), baseline="mean")
    wrong = latent_shift(backbone, x, (1 - weights).expand(2, -1, -1), baseline="mean")
    assert (right.important > 1.05 * right.random).all()
    assert (wrong.important < 0.95 * wrong.random).all()
    assert (right.important_area > right.random_area).all()
    assert (wrong.important_area < wrong.random_area).all()


def test_values_on_a_model_known_by_hand() -> None:
    backbone, x = weighted(torch.ones(64, 64)), torch.ones(1, 3, 64, 64)
    maps = torch.arange(4096.0).view(1, 64, 64)
    shift = latent_shift(backbone, x, maps, fractions=(0.25, 1.0), baseline="mean", draws=2)
    # Each covered pixel moves its own coordinate from 1 to 0.
    expected = torch.tensor([[32.0, 64.0]]).double()
    torch.testing.assert_close(shift.important, expected)
    torch.testing.assert_close(shift.random, expected)
    area = torch.tensor([0.25 * 32 / 2 + 0.75 * (32 + 64) / 2]).double()
    torch.testing.assert_close(shift.important_area, area)
    torch.testing.assert_close(shift.random_area, area)


def test_magnitude_counts_not_sign() -> None:
    weights = torch.zeros(64, 64)
    weights[:8] = 1
    backbone, x = weighted(weights), torch.ones(1, 3, 64, 64)
    for maps in (-weights[None], -weights[None].numpy()):
        shift = latent_shift(backbone, x, maps, fractions=(0.125,), baseline="mean")
        assert shift.important.item() == pytest.approx(512**0.5)


def test_it_is_seeded_and_independent_of_batch_and_memory() -> None:
    backbone, x = tiny_backbone(), batch(3)
    maps = torch.rand(3, 64, 64, generator=torch.manual_seed(0))
    shift = latent_shift(backbone, x, maps, fractions=(0.2,), draws=2)
    again = latent_shift(backbone, x[1:2], maps[1:2], fractions=(0.2,), draws=2, memory_mb=1)
    torch.testing.assert_close(shift.important[1:2], again.important, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(shift.random[1:2], again.random, rtol=1e-4, atol=1e-6)
    other = latent_shift(backbone, x, maps, fractions=(0.2,), draws=2, seed=1)
    assert torch.equal(other.important, shift.important)
    assert not torch.equal(other.random, shift.random)


def test_what_does_not_fit_is_refused() -> None:
    backbone, x = tiny_backbone(), batch(2)
    maps = torch.rand(2, 64, 64)
    with pytest.raises(ArgumentError, match=r"maps \(2, 1, 64, 64\): expected \(2, 64, 64\)"):
        latent_shift(backbone, x, maps[:, None])
    for fractions in ((), (0.0, 0.5), (0.5, 0.2), (0.5, 1.5)):
        with pytest.raises(ArgumentError, match=r"rise in \(0, 1\]"):
            latent_shift(backbone, x, maps, fractions=fractions)
    with pytest.raises(ArgumentError, match="at least 1 draw"):
        latent_shift(backbone, x, maps, draws=0)
