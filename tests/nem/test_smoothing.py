import cv2
import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

from nem.errors import ArgumentError
from nem.smoothing import kernel_size, separable, swna


def masks(n: int = 3, height: int = 24, width: int = 30) -> torch.Tensor:
    return torch.rand(n, 1, height, width, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn_kernels(n: int, kernel: int) -> torch.Tensor:
    """The kernels of a training pass, read off an impulse: correlation turns them round."""
    side = 2 * kernel + 1
    impulse = torch.zeros(n, 1, side, side)
    impulse[..., kernel, kernel] = 1
    response = swna(impulse, kernel, seeded(), training=True)
    first = kernel - kernel // 2
    inner = response[..., first : first + kernel, first : first + kernel]
    torch.testing.assert_close(response.sum(), inner.sum())  # nothing beyond kernel x kernel
    return inner.flip(2, 3)


@pytest.mark.parametrize(
    ("size", "kernel"), [(224, 21), (448, 43), (112, 11), (64, 7), (32, 3), (8, 3)]
)
def test_the_kernel_follows_the_input_size(size: int, kernel: int) -> None:
    assert kernel_size(size) == kernel


def test_without_training_it_is_a_box_with_replicated_edges() -> None:
    for kernel in (1, 3, 7):
        pad = kernel // 2
        expected = F.avg_pool2d(F.pad(masks(), (pad,) * 4, mode="replicate"), kernel, 1)
        torch.testing.assert_close(swna(masks(), kernel), expected)


@pytest.mark.parametrize(("length", "size"), [(40, 160), (7, 25), (16, 16)])
def test_enlarging_within_the_products_is_enlarging_before(length: int, size: int) -> None:
    small = masks(2, length, length)
    large = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    for training in (False, True):
        expected = swna(large, 7, seeded(), training)
        got = swna(small, 7, seeded(), training, size)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_kernel_wider_than_the_mask_still_averages_replicated_edges() -> None:
    small = masks(2, 4, 5)
    expected = F.avg_pool2d(F.pad(small, (4,) * 4, mode="replicate"), 9, 1)
    torch.testing.assert_close(swna(small, 9), expected)


@pytest.mark.parametrize("training", [False, True])
def test_constant_masks_stay_and_values_stay_within_0_and_1(training: bool) -> None:
    for value in (0.0, 0.3, 1.0):
        constant = torch.full((2, 1, 24, 24), value)
        out = swna(constant, 21, seeded(), training)
        torch.testing.assert_close(out, constant)
        assert out.min() >= 0
        assert out.max() <= 1


def test_training_is_random_and_seeded_and_the_rest_is_neither() -> None:
    one = swna(masks(), 5, seeded(0), training=True)
    assert torch.equal(one, swna(masks(), 5, seeded(0), training=True))
    assert not torch.equal(one, swna(masks(), 5, seeded(1), training=True))
    torch.manual_seed(0)
    first = swna(masks(), 5)
    torch.manual_seed(1)
    assert torch.equal(first, swna(masks(), 5))


def test_kernels_sum_to_one_are_not_negative_and_differ_between_samples() -> None:
    kernels = drawn_kernels(4, 5)
    assert kernels.min() >= 0
    torch.testing.assert_close(kernels.sum((2, 3)), torch.ones(4, 1))
    assert not torch.allclose(kernels[0], kernels[1])


def test_the_box_is_the_expected_kernel() -> None:
    mean = drawn_kernels(2000, 3).mean(0)
    torch.testing.assert_close(mean, torch.full((1, 3, 3), 1 / 9), atol=0.005, rtol=0)


def test_training_correlates_each_sample_with_its_own_kernel() -> None:
    kernels = drawn_kernels(3, 5)
    out = swna(masks(), 5, seeded(), training=True)
    for mask, kernel, got in zip(masks(), kernels, out, strict=True):
        padded = F.pad(mask[None], (2,) * 4, mode="replicate")
        torch.testing.assert_close(got[None], F.conv2d(padded, kernel[None]))


@pytest.mark.parametrize("training", [False, True])
def test_an_impulse_reaches_the_kernel_and_no_further(training: bool) -> None:
    impulse = torch.zeros(1, 1, 31, 31)
    impulse[..., 15, 15] = 1
    reached = swna(impulse, 7, seeded(), training)[0, 0] > 0
    expected = torch.zeros(31, 31, dtype=torch.bool)
    expected[12:19, 12:19] = True
    assert torch.equal(reached, expected)


@pytest.mark.parametrize("training", [False, True])
def test_nothing_wraps_round_to_the_opposite_edge(training: bool) -> None:
    left = torch.zeros(1, 1, 20, 20)
    left[..., 0] = 1
    out = swna(left, 7, seeded(), training)
    assert (out[..., :4] > 0).all()
    assert (out[..., 4:] == 0).all()
    turned = swna(left.mT, 7, seeded(), training)
    assert (turned[..., 4:, :] == 0).all()


def test_a_batch_gives_what_its_samples_give_alone() -> None:
    together = swna(masks(), 5)
    apart = torch.cat([swna(one[None], 5) for one in masks()])
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("training", [False, True])
def test_gradients_reach_all_pixels(training: bool) -> None:
    mask = masks().requires_grad_()
    out = swna(mask, 5, seeded(), training)
    (out**2).sum().backward()
    assert torch.isfinite(mask.grad).all()
    assert (mask.grad > 0).all()


@pytest.mark.parametrize("size", [None, 96])
@pytest.mark.parametrize("training", [False, True])
def test_autocast_does_not_coarsen_masks(training: bool, size: int | None) -> None:
    given = masks() if size is None else masks(width=24)
    plain = swna(given, 5, seeded(), training, size)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = swna(given, 5, seeded(), training, size)
    assert mixed.dtype == torch.float32
    assert torch.equal(plain, mixed)


def test_separable_weights_are_applied_as_opencv_does() -> None:
    x = torch.randn(2, 3, 19, 26, generator=seeded())
    weights = [0.1, 0.5, 0.2, 0.15, 0.05]
    kernel = torch.tensor(weights).numpy()
    for picture, got in zip(x, separable(x, weights), strict=True):
        for channel, values in zip(picture, got, strict=True):
            expected = cv2.sepFilter2D(
                channel.numpy(), -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE
            )
            torch.testing.assert_close(values, torch.from_numpy(expected))


def test_a_traced_program_is_two_products_with_constants() -> None:
    program = make_fx(lambda mask: swna(mask, 7))(masks(2))
    called = [node.name for node in program.graph.nodes if node.op == "call_function"]
    assert sum(name.startswith(("mm", "bmm", "matmul")) for name in called) == 2
    drawn = ("conv", "pad", "avg", "arange", "scatter", "index", "rand")
    assert not [name for name in called if any(word in name for word in drawn)]
    torch.testing.assert_close(program(masks(2)), swna(masks(2), 7))


def test_even_kernels_and_other_shapes_are_refused() -> None:
    for kernel in (0, -3, 20):
        with pytest.raises(ArgumentError, match=f"kernel {kernel}: must be an odd number"):
            swna(masks(), kernel)
    with pytest.raises(ArgumentError, match=r"\(3, 8, 8\): expected \(N, C, H, W\)"):
        swna(torch.rand(3, 8, 8), 3)


@pytest.mark.parametrize("training", [False, True])
def test_channels_are_masks_like_any_other(training: bool) -> None:
    several = masks(6).view(3, 2, 24, 30)
    out = swna(several, 5, seeded(), training)
    torch.testing.assert_close(out.view(6, 1, 24, 30), swna(masks(6), 5, seeded(), training))
