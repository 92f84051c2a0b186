import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nem.errors import ArgumentError
from nem.losses import ra_nem_loss
from nem.ranks import percentiles
from nem.topk import draw_counts, topk_mask

SIDE = 8
D = SIDE * SIDE
KS = (1, D // 2, D - 1, D)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ranking(n: int = 4, side: int = SIDE) -> torch.Tensor:
    return torch.randn(n, 1, side, side, generator=seeded())


def counts(*k: int) -> torch.Tensor:
    return torch.tensor(k)


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("kind", ["random", "equal", "few values", "half"])
def test_exactly_k_ones_whatever_ties_there_are(kind: str, noise: bool) -> None:
    logits = {
        "random": ranking(),
        "equal": torch.zeros(4, 1, SIDE, SIDE),
        "few values": ranking().round(),
        "half": ranking().half(),
    }[kind]
    mask = topk_mask(logits.requires_grad_(), counts(*KS), seeded(), noise=noise)
    assert mask.dtype == torch.float32
    assert mask.unique().tolist() == [0, 1]
    assert mask.sum((1, 2, 3)).tolist() == list(KS)


def test_the_largest_are_chosen_and_equal_ones_in_order() -> None:
    mask = topk_mask(ranking(), counts(5, 5, 9, 1), noise=False)
    for row, chosen, k in zip(ranking().flatten(1), mask.flatten(1), (5, 5, 9, 1), strict=True):
        assert set(chosen.nonzero()[:, 0].tolist()) == set(row.topk(k).indices.tolist())
    tied = topk_mask(torch.zeros(1, 1, SIDE, SIDE), counts(3), noise=False)
    assert tied.flatten().nonzero()[:, 0].tolist() == [0, 1, 2]


def test_gradients_are_those_of_a_sigmoid_around_the_midpoint() -> None:
    a = torch.tensor([5.0, 3.0, 2.0, -1.0]).view(1, 1, 2, 2).requires_grad_()
    weight = torch.tensor([0.7, -1.3, 0.4, 2.0]).view(1, 1, 2, 2)
    (topk_mask(a, counts(2), noise=False, detach_threshold=True) * weight).sum().backward()
    away = a.detach() - 2.5
    slope = away.sigmoid() * (-away).sigmoid() * weight
    torch.testing.assert_close(a.grad, slope)
    a.grad = None
    (topk_mask(a, counts(2), noise=False) * weight).sum().backward()
    # The k-th and the next carry the threshold, half each.
    beside = torch.tensor([0.0, 0.5, 0.5, 0.0]).view(1, 1, 2, 2)
    torch.testing.assert_close(a.grad, slope - beside * slope.sum())


@pytest.mark.parametrize("detach", [False, True])
def test_all_entries_get_a_gradient_but_for_k_of_all(detach: bool) -> None:
    a = (3 * ranking()).requires_grad_()
    upstream = torch.rand(a.shape, generator=seeded(1)) + 0.5
    mask = topk_mask(a, counts(*KS), seeded(), detach_threshold=detach)
    (mask * upstream).sum().backward()
    assert (a.grad[:3] != 0).all()
    assert (a.grad[3] == 0).all()
    assert torch.isfinite(a.grad).all()


def test_gradients_survive_where_a_plain_sigmoid_rounds_to_one() -> None:
    a = torch.tensor([40.0, 0.5, -0.5, -40.0]).view(1, 1, 2, 2).requires_grad_()
    topk_mask(a, counts(2), noise=False, detach_threshold=True).sum().backward()
    expected = torch.full((2,), math.exp(-40))
    torch.testing.assert_close(a.grad.flatten()[[0, 3]], expected, rtol=1e-4, atol=0)


def test_a_constant_changes_nothing() -> None:
    a = ranking().requires_grad_()
    masks = [topk_mask(a + c, counts(3, 10, 30, 60), seeded()) for c in (0.0, 4.0)]
    assert torch.equal(*masks)
    upstream = torch.randn(a.shape, generator=seeded(1))
    (masks[0] * upstream).sum().backward()
    torch.testing.assert_close(a.grad.sum((1, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)


def test_noise_is_gumbels_so_the_first_pixel_follows_the_softmax() -> None:
    a = torch.tensor([1.0, 0.0, -1.0, 0.5]).view(1, 1, 2, 2)
    n = 20000
    mask = topk_mask(a.expand(n, 1, 2, 2), torch.ones(n, dtype=torch.long), seeded())
    expected = a.flatten().softmax(0)
    torch.testing.assert_close(mask.mean(0).flatten(), expected, atol=0.015, rtol=0)


def test_noise_is_seeded_and_optional() -> None:
    k = counts(9, 9, 9, 9)
    one = topk_mask(ranking(), k, seeded(0))
    assert torch.equal(one, topk_mask(ranking(), k, seeded(0)))
    assert not torch.equal(one, topk_mask(ranking(), k, seeded(1)))
    plain = topk_mask(ranking(), k, seeded(0), noise=False)
    assert torch.equal(plain, topk_mask(ranking(), k, seeded(1), noise=False))


@pytest.mark.parametrize("uniform", [0.0, 1.0])
@pytest.mark.parametrize("autocast", [False, True])
def test_extreme_uniform_numbers_give_a_finite_loss(
    uniform: float, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch,
        "rand",
        lambda shape, *, generator, device, dtype: torch.full(
            shape, uniform, device=device, dtype=dtype
        ),
    )
    a = ranking().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        mask = topk_mask(a, counts(*KS), seeded())
    loss = ra_nem_loss((mask * ranking()).mean((1, 2, 3))[:, None]).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(a.grad).all()


def test_autocast_changes_nothing() -> None:
    k = counts(*KS)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = topk_mask(ranking(), k, seeded())
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, topk_mask(ranking(), k, seeded()))


def test_a_batch_gives_what_its_samples_give_alone() -> None:
    together = topk_mask(ranking(), counts(*KS), noise=False)
    apart = [
        topk_mask(a[None], k[None], noise=False)
        for a, k in zip(ranking(), counts(*KS), strict=True)
    ]
    assert torch.equal(together, torch.cat(apart))


def test_a_grid_chooses_whole_cells_in_proportion() -> None:
    a = ranking(3, 224).requires_grad_()
    mask = topk_mask(a, counts(1, 16 * 100, 224 * 224), seeded(), grid=56)
    cells = mask[..., ::4, ::4]
    assert torch.equal(mask, cells.repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert cells.sum((1, 2, 3)).tolist() == [1, 100, 56 * 56]
    plain = topk_mask(a, counts(16, 16, 16), noise=False, grid=56)
    best = F.avg_pool2d(a, 4).flatten(1).argmax(1)
    assert torch.equal(plain[..., ::4, ::4].flatten(1).argmax(1), best)
    (mask * ranking(3, 224)).sum().backward()
    assert (a.grad[:2] != 0).all()


def test_uniform_counts_choose_uniform_numbers_of_cells() -> None:
    k = torch.arange(1, D + 1)
    mask = topk_mask(torch.zeros(D, 1, SIDE, SIDE), k, noise=False, grid=4)
    chosen = mask[..., ::2, ::2].sum((1, 2, 3)).long().bincount().tolist()
    assert chosen == [0] + [D // 16] * 16


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("grid", [None, 4])
def test_on_an_additive_model_the_ranking_takes_the_order_of_its_weights(
    detach: bool, grid: int | None
) -> None:
    cell = SIDE // (grid or SIDE)
    w = torch.rand(1, 1, SIDE // cell, SIDE // cell, generator=seeded(5))
    w = w.repeat_interleave(cell, 2).repeat_interleave(cell, 3)
    a = torch.zeros(1, 1, SIDE, SIDE, requires_grad=True)
    generator = seeded()
    # Plain descent: an optimiser that evens out scales would lose the order of detached gradients,
    # which all point up on this model and differ in size only.
    for _ in range(60):
        k = draw_counts(128, 1, D, generator).flatten()
        mask = topk_mask(
            a.expand(128, 1, SIDE, SIDE), k, generator, detach_threshold=detach, grid=grid
        )
        loss = ra_nem_loss((mask * w).sum((1, 2, 3))[:, None]).mean()
        (slope,) = torch.autograd.grad(loss, a)
        with torch.no_grad():
            a -= slope
    ranks = percentiles(torch.cat([a.detach(), w])[:, 0].numpy()).reshape(2, -1)
    assert np.corrcoef(ranks)[0, 1] > 0.95


def test_counts_are_uniform_with_replacement_and_seeded() -> None:
    k = draw_counts(4000, 6, 10, seeded())
    assert k.shape == (4000, 6)
    assert k.dtype == torch.int64
    share = k.flatten().bincount(minlength=11) / k.numel()
    torch.testing.assert_close(share[1:], torch.full((10,), 0.1), atol=0.01, rtol=0)
    assert share[0] == 0
    assert (k.sort(1).values.diff(dim=1) == 0).any()
    assert torch.equal(k, draw_counts(4000, 6, 10, seeded()))


def test_stratified_counts_take_one_from_each_range_and_stay_uniform() -> None:
    k = draw_counts(4000, 5, 10, seeded(), stratified=True)
    for column, values in enumerate(k.T):
        assert set(values.tolist()) == {2 * column + 1, 2 * column + 2}
    share = k.flatten().bincount(minlength=11) / k.numel()
    torch.testing.assert_close(share[1:], torch.full((10,), 0.1), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("k", "options", "reason"),
    [
        (counts(1, 0, 1, 1), {}, "k from 0 to 1: allowed are 1 to 64"),
        (counts(1, 65, 1, 1), {}, "k from 1 to 65: allowed are 1 to 64"),
        (counts(1), {}, r"k \(1,\) of torch.int64: expected whole numbers \(4,\)"),
        (counts(*KS).float(), {}, "of torch.float32: expected whole numbers"),
        (counts(*KS), {"grid": 9}, "grid 9: allowed are 1 to 8 cells"),
    ],
)
def test_what_cannot_be_taken_is_refused(k, options, reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason):
        topk_mask(ranking(), k, seeded(), **options)
    with pytest.raises(ArgumentError, match=r"\(4, 64\): expected \(N, 1, H, W\)"):
        topk_mask(ranking().flatten(1), counts(*KS))
