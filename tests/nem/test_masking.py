import pytest
import torch

from nem.masking import hide, random_like
from tests.nem.toys import batch


def test_hidden_pixels_become_the_mean() -> None:
    x = batch()
    mask = torch.zeros(4, 1, 64, 64)
    mask[..., :32] = 1
    hidden = hide(x, mask)
    assert torch.equal(hidden[..., :32], x[..., :32])
    assert (hidden[..., 32:] == 0).all()


def test_noise_replaces_what_is_hidden_and_nothing_else() -> None:
    x, mask = batch() + 7, torch.zeros(4, 1, 64, 64)
    mask[..., :32] = 1
    hidden = hide(x, mask, "noise", torch.Generator().manual_seed(0))
    assert torch.equal(hidden[..., :32], x[..., :32])
    noise = hidden[..., 32:]
    assert noise.mean().abs() < 0.02
    assert (noise.std() - 1).abs() < 0.02
    again = hide(x, mask, "noise", torch.Generator().manual_seed(0))
    assert torch.equal(hidden, again)
    assert not torch.equal(hidden, hide(x, mask, "noise", torch.Generator().manual_seed(1)))
    with pytest.raises(ValueError, match="allowed are mean, noise"):
        hide(x, mask, "blur")  # type: ignore[arg-type]


def test_the_control_has_the_same_values_at_other_places() -> None:
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, 0, :16, :16] = 0.9
    mask[1, 0, 40:] = torch.linspace(0, 1, 64)
    control = random_like(mask, torch.Generator().manual_seed(0))
    for one, other in zip(mask, control, strict=True):
        assert torch.equal(one.flatten().sort().values, other.flatten().sort().values)
        assert not torch.equal(one, other)
    corner = control[0, 0]
    # Smooth, not speckled: neighbours mostly agree.
    assert ((corner[:, 1:] > 0) == (corner[:, :-1] > 0)).float().mean() > 0.9
