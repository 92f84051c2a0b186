import pytest
import torch

from nem.attribution import integrated_gradients, saliency
from nem.errors import ArgumentError
from nem.forgrad import forgrad, low_pass
from tests.nem.toys import batch, tiny_backbone

pytest.importorskip("captum", reason="needs the eval extra")


def wave(cycles: float, size: int = 64) -> torch.Tensor:
    place = torch.arange(size) / size
    return torch.cos(2 * torch.pi * cycles * place).expand(1, size, size)


@pytest.mark.parametrize("size", [64, 63])
def test_waves_above_the_cutoff_go_and_others_stay(size: int) -> None:
    slow, fast = wave(5, size), wave(11, size)
    for turned in (False, True):
        both = (1 + slow + fast).mT if turned else 1 + slow + fast
        kept = (1 + slow).mT if turned else 1 + slow
        torch.testing.assert_close(low_pass(both, 10), kept, rtol=0, atol=1e-5)
        torch.testing.assert_close(low_pass(both, 11), both, rtol=0, atol=1e-5)


def test_the_filter_is_a_disk() -> None:
    slanted = wave(8) * wave(8).mT  # 8 cycles each way: 11.3 along the diagonal
    torch.testing.assert_close(low_pass(slanted, 12), slanted, rtol=0, atol=1e-5)
    assert low_pass(slanted, 11).abs().max() < 1e-5


def test_the_mean_stays_and_all_stays_from_the_corner_s_frequency_on() -> None:
    maps = torch.rand(2, 64, 64, generator=torch.manual_seed(0))
    torch.testing.assert_close(low_pass(maps, 0.5), maps.mean((1, 2), True).expand_as(maps))
    torch.testing.assert_close(low_pass(maps, 64 / 2**0.5), maps)


def test_it_filters_the_map_of_its_method() -> None:
    backbone, x, target = tiny_backbone(), batch(2), torch.tensor([3, 1])
    plain = saliency(backbone, x)
    result = forgrad(backbone, x, cutoff=6)
    torch.testing.assert_close(result.map, low_pass(plain.map, 6).abs())
    assert (result.forwards, result.backwards) == (plain.forwards, plain.backwards)
    assert not torch.allclose(result.map, forgrad(backbone, x).map)
    options = {"steps": 2, "baseline": "blur"}
    other = integrated_gradients(backbone, x, target, of="class", **options)
    filtered = forgrad(
        backbone, x, target, of="class", method="integrated_gradients", options=options
    )
    torch.testing.assert_close(filtered.map, low_pass(other.map, 15).abs())


def test_signs_stay_where_the_map_has_them() -> None:
    backbone, x = tiny_backbone(), batch(2)
    signed = forgrad(backbone, x, cutoff=8, options={"reduce": "sum"}).map
    torch.testing.assert_close(signed, low_pass(saliency(backbone, x, reduce="sum").map, 8))
    assert signed.min() < 0 < signed.max()


def test_the_seed_reaches_the_method() -> None:
    backbone, x = tiny_backbone(), batch(1)
    one = {"method": "smooth_grad", "options": {"samples": 1}}
    maps = [forgrad(backbone, x, seed=seed, **one).map for seed in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])


def test_what_does_not_fit_is_refused() -> None:
    backbone, x = tiny_backbone(), batch(1)
    with pytest.raises(ArgumentError, match="method 'rise': FORGrad filters saliency, "):
        forgrad(backbone, x, method="rise")
    for cutoff in (0, -1, 64.5, float("nan")):
        with pytest.raises(ArgumentError, match=r"expected cycles per side in \(0, 64\]"):
            forgrad(backbone, x, cutoff=cutoff)
