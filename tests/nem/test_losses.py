import math

import pytest
import torch

from nem.errors import ArgumentError
from nem.losses import class_score, nem_u_loss, nemt_loss, ra_nem_loss, target_loss
from nem.topk import draw_counts, topk_mask

# Unit vectors at 0, 60 and 90 degrees from the full embedding: p = 1/2, n = cos 30 degrees.
FULL = torch.tensor([[2.0, 0.0]])
KEPT = torch.tensor([[0.5, math.sqrt(0.75)]])
HIDDEN = torch.tensor([[0.0, 3.0]])
P, N, A = 0.5, math.sqrt(0.75), 0.25
MASK = torch.full((1, 1, 4, 4), A)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("intent", -1.5 * P + P * N + A),
        ("code", 4 * 0.25 - (1 - N) / 2 * (0.25 + 1e-6) + A / 2),
        ("printed", -(1.5 + N) * P + A),
    ],
)
def test_values_on_hand_made_embeddings(variant, expected: float) -> None:
    loss, kept, binarity, area = nem_u_loss(FULL, KEPT, HIDDEN, MASK, variant)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    values = (kept.item(), binarity.item(), area.item())
    assert values == pytest.approx((P, N, A), abs=1e-6)


def test_only_the_printed_sign_rewards_a_rest_that_looks_like_the_kept_part() -> None:
    for variant, sign in (("intent", 1), ("code", 1), ("printed", -1)):
        near = nem_u_loss(FULL, KEPT, KEPT, MASK, variant).loss
        far = nem_u_loss(FULL, KEPT, -KEPT, MASK, variant).loss
        assert torch.sign(near - far).item() == sign


def test_samples_do_not_mix_and_area_has_its_weight() -> None:
    full, kept, hidden = (torch.randn(5, 8, generator=torch.manual_seed(i)) for i in range(3))
    mask = torch.rand(5, 1, 6, 6, generator=torch.manual_seed(3))
    for variant in ("intent", "code", "printed"):
        together = nem_u_loss(full, kept, hidden, mask, variant).loss
        apart = [
            nem_u_loss(
                full[i : i + 1], kept[i : i + 1], hidden[i : i + 1], mask[i : i + 1], variant
            )
            for i in range(5)
        ]
        torch.testing.assert_close(together, torch.cat([one.loss for one in apart]))
        one = nem_u_loss(full, kept, hidden, mask, variant, area_weight=1.0)
        two = nem_u_loss(full, kept, hidden, mask, variant, area_weight=3.0)
        more = one.area if variant == "code" else 2 * one.area
        torch.testing.assert_close(two.loss - one.loss, more)


def test_the_published_loss_counts_the_rest_a_little_even_where_all_is_kept() -> None:
    loss = nem_u_loss(FULL, FULL, -FULL, 0 * MASK, "code").loss
    assert loss.item() == pytest.approx(-1e-6, rel=1e-3)


def test_zero_embeddings_give_a_finite_loss_and_gradient() -> None:
    kept = torch.zeros(1, 2, requires_grad=True)
    loss = nem_u_loss(FULL, kept, HIDDEN, MASK).loss.sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(kept.grad).all()


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(ArgumentError, match="allowed are intent, code, printed"):
        nem_u_loss(FULL, KEPT, HIDDEN, MASK, "other")  # type: ignore[arg-type]


def scores(n: int = 5, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def test_each_picture_is_scored_for_its_own_class() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 3.0, 3.0], [-1.0, 4.0, 0.0]])
    target = torch.tensor([2, 0, 1])
    score = class_score(logits, target)
    parts = [math.e**2 / (1 + math.e + math.e**2), 1 / 3]
    parts.append(math.e**4 / (math.exp(-1) + math.e**4 + 1))
    torch.testing.assert_close(score, torch.tensor(parts))
    plain = class_score(logits, target, "logits", scale=2.0)
    assert plain.tolist() == [1.0, 1.5, 2.0]
    assert class_score(logits.half(), target).dtype == torch.float32


def test_scores_refuse_other_kinds_and_counts_of_classes() -> None:
    with pytest.raises(ArgumentError, match=r"target \(2,\): expected \(3,\)"):
        class_score(torch.zeros(3, 4), torch.tensor([0, 1]))
    with pytest.raises(ArgumentError, match="allowed are softmax, logits"):
        class_score(torch.zeros(1, 4), torch.tensor([0]), "cosine")  # type: ignore[arg-type]


def test_nemt_on_hand_made_scores() -> None:
    full, hidden = torch.tensor([0.9, 0.2]), torch.tensor([0.4, 0.5])
    mask = torch.tensor([0.25, 0.75]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    loss = nemt_loss(full, hidden, mask)
    torch.testing.assert_close(loss, torch.tensor([-0.25 + 0.125, -0.09 + 0.375]))
    loss = nemt_loss(full, hidden, mask, 2.0)
    torch.testing.assert_close(loss, torch.tensor([-0.25 + 0.5, -0.09 + 1.5]))


def test_target_on_hand_made_scores() -> None:
    full, hidden, kept = (torch.tensor([v, v]) for v in (0.9, 0.4, 0.8))
    mask, absent = torch.full((2, 1, 4, 4), 0.25), torch.tensor([False, True])
    loss = target_loss(full, hidden, kept, mask, absent)
    torch.testing.assert_close(loss, torch.tensor([-0.25 + 0.125 + 0.01, 0.5]))
    loss = target_loss(full, hidden, kept, mask, absent, 1.0)
    torch.testing.assert_close(loss, torch.tensor([-0.25 + 0.25 + 0.01, 0.5]))
    with pytest.raises(ArgumentError, match=r"of torch.int64: expected bool \(2,\)"):
        target_loss(full, hidden, kept, mask, absent.long())


def test_absent_classes_pull_on_the_area_only() -> None:
    full, hidden, kept = (scores(2, seed=i).requires_grad_() for i in range(3))
    mask = scores(2, 1, 4, 4).requires_grad_()
    target_loss(full, hidden, kept, mask, torch.tensor([True, False])).sum().backward()
    for score in (full, hidden, kept):
        assert score.grad[0] == 0
        assert score.grad[1] != 0
    torch.testing.assert_close(mask.grad[0], torch.full((1, 4, 4), 2 / 16))
    torch.testing.assert_close(mask.grad[1], torch.full((1, 4, 4), 0.5 / 16))


def test_ra_nem_on_hand_made_scores() -> None:
    kept = torch.tensor([[0.2, 0.6], [1.0, 0.0]])
    deleted = torch.tensor([[0.1, 0.3], [0.5, 0.7]])
    torch.testing.assert_close(ra_nem_loss(kept), torch.tensor([-0.4, -0.5]))
    torch.testing.assert_close(ra_nem_loss(kept, deleted, 0.5), torch.tensor([-0.3, -0.2]))
    with pytest.raises(ArgumentError, match=r"deletion_weight 0.5: needs the scores"):
        ra_nem_loss(kept, deletion_weight=0.5)


def test_the_loss_of_a_batch_is_the_mean_of_its_samples() -> None:
    logits, rest = (4 * scores(5, 7, seed=i) for i in (3, 4))
    target, mask = torch.tensor([3, 0, 6, 6, 2]), scores(5, 1, 6, 6)
    absent = torch.tensor([False, True, False, True, False])
    ks, others = scores(5, 6, seed=1), scores(5, 6, seed=2)

    def losses(pick: slice) -> torch.Tensor:
        full, hidden = (class_score(v[pick], target[pick]) for v in (logits, rest))
        return torch.stack(
            [
                nemt_loss(full, hidden, mask[pick]).mean(),
                target_loss(full, hidden, full, mask[pick], absent[pick]).mean(),
                ra_nem_loss(ks[pick], others[pick], 0.5).mean(),
            ]
        )

    apart = torch.stack([losses(slice(i, i + 1)) for i in range(5)]).mean(0)
    torch.testing.assert_close(losses(slice(None)), apart)


def test_16_bit_scores_and_masks_give_float32() -> None:
    half, mask = scores(2).half(), scores(2, 1, 4, 4).half()
    r = scores(2, 8).half()
    assert {value.dtype for value in nem_u_loss(r, r, r, mask)} == {torch.float32}
    assert nemt_loss(half, half, mask).dtype == torch.float32
    absent = torch.tensor([True, False])
    assert target_loss(half, half, half, mask, absent).dtype == torch.float32
    assert ra_nem_loss(half[:, None], half[:, None], 0.5).dtype == torch.float32


# A linear classifier of 8x8 pictures: class 1 is seen in a square of 4x4, on a noisy ground.
SQUARE = torch.zeros(1, 1, 8, 8)
SQUARE[..., 2:6, 2:6] = 1


def squares(n: int = 16) -> torch.Tensor:
    return SQUARE + 0.1 * torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def linear(x: torch.Tensor) -> torch.Tensor:
    lead = (x * SQUARE).sum((1, 2, 3)) - 8
    return class_score(torch.stack([-lead, lead], 1) / 2, torch.ones(len(x), dtype=torch.long))


def descend(loss, steps: int, rate: float) -> torch.Tensor:
    """Sigmoid masks of 16 pictures after some steps of plain descent on their logits."""
    logits = torch.zeros(16, 1, 8, 8, requires_grad=True)
    for _ in range(steps):
        (slope,) = torch.autograd.grad(loss(logits.sigmoid()).sum(), logits)
        with torch.no_grad():
            logits -= rate * slope
    return logits.detach().sigmoid()


def test_nemt_marks_the_object_and_the_literal_equation_2_marks_nothing() -> None:
    x = squares()
    full = linear(x)
    fixed = descend(lambda e: nemt_loss(full, linear((1 - e) * x), e), 80, 200.0)
    assert ((fixed.flatten(1).mean(1) > 0.02) & (fixed.flatten(1).mean(1) < 0.6)).all()
    inside = (fixed * SQUARE).sum((1, 2, 3)) / fixed.sum((1, 2, 3))
    assert (inside > 0.8).all()
    assert (linear((1 - fixed) * x) < 0.2).all()
    literal = descend(lambda e: nemt_loss(full, linear(e * x), e), 80, 200.0)
    assert (literal.flatten(1).mean(1) < 0.02).all()


def test_target_maps_are_on_present_classes_and_empty_for_absent_ones() -> None:
    x, absent = squares(), torch.arange(16) % 2 == 1
    full = linear(x)

    def loss(e: torch.Tensor) -> torch.Tensor:
        return target_loss(full, linear((1 - e) * x), linear(e * x), e, absent)

    mask = descend(loss, 80, 200.0)
    inside = (mask * SQUARE).sum((1, 2, 3)) / mask.sum((1, 2, 3))
    assert (inside[~absent] > 0.8).all()
    assert (linear(mask * x)[~absent] > 0.9).all()
    assert (mask[absent] < 0.02).all()


def insertion_less_deletion(ranking: torch.Tensor, w: torch.Tensor) -> float:
    """Of an additive score: area under insertion, best first, less that under deletion."""
    order = ranking.flatten().argsort(descending=True)
    inserted = torch.cat([torch.zeros(1), w.flatten()[order].cumsum(0)]) / w.sum()
    return float(torch.trapezoid(inserted - (1 - inserted)) / w.numel())


@pytest.mark.parametrize("deletion_weight", [0.0, 0.5])
def test_the_literal_equation_12_turns_insertion_less_deletion_round(
    deletion_weight: float,
) -> None:
    w = scores(1, 1, 8, 8, seed=3)
    found = {}
    for literal in (False, True):
        generator = torch.Generator().manual_seed(0)
        a = torch.zeros(1, 1, 8, 8, requires_grad=True)
        for _ in range(30):
            k = draw_counts(32, 6, 64, generator).flatten()
            mask = topk_mask(a.expand(len(k), 1, 8, 8), k, generator)
            kept, deleted = ((m * w / w.sum()).sum((1, 2, 3)).view(32, 6) for m in (mask, 1 - mask))
            loss = ra_nem_loss(kept, deleted, deletion_weight)
            if literal:  # the loss is -delta with delta = 1 - probability
                loss = -(1 - kept).mean(1)
            (slope,) = torch.autograd.grad(loss.mean(), a)
            with torch.no_grad():
                a -= 100 * slope
        found[literal] = insertion_less_deletion(a.detach(), w)
    best = insertion_less_deletion(w, w)
    assert found[False] > 0.9 * best
    assert found[True] < -0.9 * best
