import math

import pytest
import torch

from nem.losses import nem_u_loss

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
    one = nem_u_loss(full, kept, hidden, mask, area_weight=1.0)
    two = nem_u_loss(full, kept, hidden, mask, area_weight=3.0)
    torch.testing.assert_close(two.loss - one.loss, 2 * one.area)


def test_zero_embeddings_give_a_finite_loss_and_gradient() -> None:
    kept = torch.zeros(1, 2, requires_grad=True)
    loss = nem_u_loss(FULL, kept, HIDDEN, MASK).loss.sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(kept.grad).all()


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(ValueError, match="allowed are intent, code, printed"):
        nem_u_loss(FULL, KEPT, HIDDEN, MASK, "other")  # type: ignore[arg-type]
