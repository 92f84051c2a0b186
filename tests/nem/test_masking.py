import cv2
import pytest
import torch

from nem.errors import ArgumentError
from nem.masking import (
    REPLACEMENTS,
    blur,
    draw_kinds,
    hide,
    noise_like,
    random_like,
    replacements,
)
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
    assert not torch.equal(noise[0], noise[1])  # of its own for each picture
    again = hide(x, mask, "noise", torch.Generator().manual_seed(0))
    assert torch.equal(hidden, again)
    assert not torch.equal(hidden, hide(x, mask, "noise", torch.Generator().manual_seed(1)))
    with pytest.raises(ArgumentError, match="allowed are mean, noise"):
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
    other = random_like(mask, torch.Generator().manual_seed(1))
    assert not torch.equal(control, other)
    # Smooth, not speckled: neighbours mostly agree.
    assert ((corner[:, 1:] > 0) == (corner[:, :-1] > 0)).float().mean() > 0.9


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("height", "width", "kernel", "sigma"),
    [(224, 224, 31, 10.0), (64, 64, 9, 10 * 64 / 224), (112, 40, 15, 5.0)],
)
def test_the_blur_is_a_gaussian_of_31_pixels_and_sigma_10_at_224(
    height: int, width: int, kernel: int, sigma: float
) -> None:
    x = torch.randn(2, 3, height, width, generator=seeded())
    for picture, got in zip(x, blur(x), strict=True):
        expected = cv2.GaussianBlur(
            picture.permute(1, 2, 0).numpy(),
            (kernel, kernel),
            sigma,
            borderType=cv2.BORDER_REPLICATE,
        )
        difference = got.permute(1, 2, 0) - torch.from_numpy(expected)
        assert difference.abs().max() < 1e-5


def test_the_blur_keeps_constant_pictures_and_types() -> None:
    constant = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1).expand(2, 3, 32, 32)
    torch.testing.assert_close(blur(constant), constant.contiguous())
    assert blur(constant.half()).dtype == torch.float16


def test_noise_has_each_pictures_own_mean_and_deviation_per_channel() -> None:
    mean = torch.tensor([[0.0, 5.0, -3.0], [2.0, 2.0, 9.0]])
    std = torch.tensor([[1.0, 0.1, 4.0], [0.5, 3.0, 0.0]])
    x = batch(2) * std[:, :, None, None] + mean[:, :, None, None]
    noise = noise_like(x, seeded(7))
    assert ((noise.mean((2, 3)) - mean).abs() <= 0.06 * std + 1e-6).all()
    assert ((noise.std((2, 3)) - std).abs() <= 0.05 * std + 1e-6).all()
    assert torch.equal(noise, noise_like(x, seeded(7)))
    assert not torch.equal(noise, noise_like(x, seeded(8)))
    unlike = torch.corrcoef(torch.stack([noise[0, 0].flatten(), x[0, 0].flatten()]))
    assert unlike[0, 1].abs() < 0.1


def test_each_picture_gets_a_replacement_of_its_own_kind() -> None:
    x, kinds = batch(12) + 4, draw_kinds(12, seeded())
    share = draw_kinds(3000, seeded()).bincount() / 3000
    torch.testing.assert_close(share, torch.full((3,), 1 / 3), atol=0.03, rtol=0)
    found, generator = replacements(x, seeded()), seeded()
    draw_kinds(12, generator)
    whole = {"mean": torch.zeros_like(x), "blur": blur(x), "noise": noise_like(x, generator)}
    assert set(kinds.tolist()) == {0, 1, 2}
    for index, kind in enumerate(kinds.tolist()):
        assert torch.equal(found[index], whole[REPLACEMENTS[kind]][index])
