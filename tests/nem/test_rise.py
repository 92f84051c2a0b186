import pytest
import torch
from torch import Tensor

from nem.errors import ArgumentError, ModelError
from nem.rise import rise
from nem.rise_masks import RandomMasks
from tests.nem.toys import SIZE, batch, tiny_backbone


class Corner(torch.nn.Module):
    """Class 1 is as probable as the upper left quarter is bright; 0 and 2 share the rest."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x[:, :, : SIZE // 2, : SIZE // 2].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(bright), 8 * bright, torch.zeros_like(bright)], 1)


def test_the_map_is_the_sum_of_masks_weighted_by_the_probability() -> None:
    backbone, x = tiny_backbone(), batch(2)
    target = torch.tensor([3, -1])
    made = RandomMasks(SIZE, grid=5, keep=0.4, seed=2).tensors(0, 30)
    classes = [3, int(backbone(x[1:]).logits.argmax())]
    options = {"seed": 2, "masks": 30, "grid": 5, "keep": 0.4}
    found = rise(backbone, x, target, **options)
    paper = rise(backbone, x, target, **options, normalise="keep")
    assert (found.forwards, found.backwards) == (31, 0)
    assert found.map.dtype == torch.float32
    assert found.uncertainty is not None
    for i, number in enumerate(classes):
        s = backbone(made * x[i]).logits.softmax(1)[:, number].double()[:, None, None]
        m = made[:, 0].double()
        mean = (m * s).sum(0) / m.sum(0)
        torch.testing.assert_close(found.map[i].double(), mean, rtol=1e-5, atol=1e-7)
        expected = (m * s).sum(0) / (30 * 0.4)  # equation 6
        torch.testing.assert_close(paper.map[i].double(), expected, rtol=1e-5, atol=1e-7)
        variance = (m * (s - mean) ** 2).sum(0) / (m.sum(0) - 1)
        torch.testing.assert_close(found.uncertainty[i].double(), variance, rtol=1e-2, atol=1e-10)


def test_it_finds_the_place_that_makes_the_class() -> None:
    backbone = tiny_backbone(num_classes=3)
    backbone.model = Corner()
    x = torch.ones(2, 3, SIZE, SIZE)
    found = rise(backbone, x, torch.tensor([1, 2]), masks=400).map
    half = SIZE // 2
    here, against = found[:, : half - 4, : half - 4], found[:, half + 4 :, half + 4 :]
    assert here[0].min() > against[0].max()  # for class 1
    assert here[1].max() < against[1].min()  # against class 2
    assert found.min() >= 0
    assert found.max() <= 1


def test_a_probability_that_depends_on_nothing_is_flat() -> None:
    backbone = tiny_backbone(num_classes=4)
    with torch.no_grad():
        backbone.model.fc.weight.zero_()
        backbone.model.fc.bias.zero_()
    found = rise(backbone, batch(1), masks=20)
    torch.testing.assert_close(found.map, torch.full((1, SIZE, SIZE), 0.25))
    uneven = rise(backbone, batch(1), masks=20, normalise="keep").map
    assert uneven.std() > 0.01


def test_parts_and_batches_are_the_whole() -> None:
    backbone, x = tiny_backbone(), batch(2)
    whole = rise(backbone, x, masks=20).map
    torch.testing.assert_close(rise(backbone, x, masks=20, memory_mb=4).map, whole)
    for i in range(2):
        torch.testing.assert_close(rise(backbone, x[i : i + 1], masks=20).map[0], whole[i])
    assert rise(backbone, x, torch.tensor([0, 1]), masks=20).forwards == 20
    assert not torch.equal(rise(backbone, x, masks=20, seed=1).map, whole)


def test_what_can_not_be_done_is_refused() -> None:
    backbone, x = tiny_backbone(), batch(1)
    with pytest.raises(ModelError, match="no classes to explain; take relax"):
        rise(tiny_backbone(num_classes=0), x)
    with pytest.raises(ArgumentError, match="allowed are masks, keep"):
        rise(backbone, x, normalise="sum")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="0 masks"):
        rise(backbone, x, masks=0)
    with pytest.raises(ArgumentError, match="0 to 4"):
        rise(backbone, x, torch.tensor([5]))
