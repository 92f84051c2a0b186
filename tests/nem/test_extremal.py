import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nem.backbone import Backbone
from nem.errors import ArgumentError, ModelError
from nem.extremal import _mask, _weights, extremal
from nem.masking import random_like
from tests.nem.toys import SIZE, batch, tiny_backbone

HALF = SIZE // 2


class Quarters(nn.Module):
    """Sees the upper left quarter; the class 1 is how bright it is, class 0 how bright the last."""

    def forward_features(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x[:, :, :HALF, :HALF], 8).flatten(1)

    def forward_head(self, features: Tensor, pre_logits: bool) -> Tensor:
        return features

    def forward(self, x: Tensor) -> Tensor:
        last, first = x[:, :, HALF:, HALF:], x[:, :, :HALF, :HALF]
        return 4 * torch.stack([last.mean((1, 2, 3)), first.mean((1, 2, 3))], 1)


def quarters() -> Backbone:
    backbone = tiny_backbone(num_classes=2)
    backbone.model = Quarters()
    return backbone


def inside(masks: Tensor, rows: slice, columns: slice) -> Tensor:
    """Share of the mask that is there, (N,)."""
    return masks[:, rows, columns].sum((1, 2)) / masks.sum((1, 2))


def test_the_mask_covers_what_the_embedding_is_made_of() -> None:
    found = extremal(quarters(), batch(2), areas=[0.2], steps=20)
    assert (inside(found.map, slice(0, HALF + 2), slice(0, HALF + 2)) > 0.95).all()


def test_the_mask_covers_what_makes_the_class() -> None:
    x = torch.ones(3, 3, SIZE, SIZE)
    target = torch.tensor([1, 0, -1])
    x[2, :, :HALF, :HALF] = 2  # class 1
    found = extremal(quarters(), x, target, of="class", areas=[0.2], steps=20).map
    first, last = slice(0, HALF + 2), slice(HALF - 2, None)
    for i, place in enumerate((first, last, first)):
        assert inside(found[i : i + 1], place, place) > 0.95


def test_a_class_is_its_probability_not_its_logit() -> None:
    backbone, quarters_of = quarters(), Quarters()

    def logits(x: Tensor) -> Tensor:
        last, first = (quarters_of(x)[:, i] for i in (0, 1))
        return torch.stack([3 * first, 2 * first + last], 1)

    backbone.model.forward = logits  # the first quarter adds to class 1, and more to its rival
    x, target = torch.ones(1, 3, SIZE, SIZE), torch.tensor([1])
    found = extremal(backbone, x, target, of="class", areas=[0.2], steps=20).map
    assert inside(found, slice(HALF - 2, None), slice(HALF - 2, None)) > 0.95


def test_masks_keep_more_than_others_of_their_area() -> None:
    backbone, x = quarters(), batch(2)
    whole = backbone.embed(x)
    found = extremal(backbone, x, areas=[0.1], steps=15).map[:, None]
    kept = F.cosine_similarity(backbone.embed(x * found), whole)
    for seed in range(5):
        other = random_like(found, torch.Generator().manual_seed(seed))
        assert (kept > F.cosine_similarity(backbone.embed(x * other), whole)).all()


def test_masks_have_their_areas_and_are_nearly_binary() -> None:
    backbone, x = tiny_backbone(), batch(2)
    for area in (0.05, 0.4):
        found = extremal(backbone, x, areas=[area], steps=5).map
        torch.testing.assert_close(found.mean((1, 2)), torch.full((2,), area), rtol=1e-4, atol=0)
        assert ((found > 0.1) & (found < 0.9)).float().mean() < 0.1
        # Smooth: the outline of a speckled mask would run through most pixels.
        assert (found[:, 1:] - found[:, :-1]).abs().mean() < 0.1
    both = extremal(backbone, x, areas=[0.05, 0.4], steps=5)
    torch.testing.assert_close(both.map.mean((1, 2)), torch.full((2,), 0.225), rtol=1e-4, atol=0)
    assert (both.forwards, both.backwards) == (11, 10)
    assert extremal(backbone, x, torch.tensor([0, 1]), of="class", steps=1).forwards == 4


def test_no_change_of_the_field_changes_the_area() -> None:
    field = torch.randn(3, 7, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights, area = _weights(32, 7), torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(weights.sum(1), torch.ones(32))
    mask = _mask(field, weights, area, 4.0)
    torch.testing.assert_close(mask.mean((1, 2)), area)
    (of_area,) = torch.autograd.grad(mask.mean(), field, retain_graph=True)
    (of_pixel,) = torch.autograd.grad(mask[:, 16, 16].sum(), field)
    assert of_area.abs().max() < 1e-4 * of_pixel.abs().max()


def test_parts_and_batches_are_the_whole() -> None:
    # In float64: each step magnifies the last bits of sums, which depend on the batch.
    backbone, x = tiny_backbone().double(), batch(2).double()
    whole = extremal(backbone, x, steps=4).map
    for found in (
        extremal(backbone, x, steps=4, memory_mb=1).map,
        torch.cat([extremal(backbone, one[None], steps=4).map for one in x]),
    ):
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-6)


def test_the_seed_decides_where_the_search_begins() -> None:
    backbone, x = tiny_backbone(), batch(1)
    one, same, other = (extremal(backbone, x, steps=2, seed=seed).map for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_where_nothing_makes_a_difference_nothing_is_marked() -> None:
    backbone = tiny_backbone(num_classes=4)
    with torch.no_grad():
        backbone.model.fc.weight.zero_()
    found = extremal(backbone, batch(1), of="class", areas=[0.2], steps=3).map
    torch.testing.assert_close(found, torch.full_like(found, 0.2))


def test_what_can_not_be_done_is_refused() -> None:
    backbone, x = tiny_backbone(), batch(1)
    for options, reason in (
        ({"areas": []}, "areas"),
        ({"areas": [0.2, 1.0]}, "between 0 and 1"),
        ({"steps": 0}, "at least 1 step"),
        ({"grid": 1}, "2 to 64 cells"),
        ({"grid": 65}, "2 to 64 cells"),
        ({"of": "logits"}, "allowed are embedding, class"),
    ):
        with pytest.raises(ArgumentError, match=reason):
            extremal(backbone, x, **options)
    with pytest.raises(ModelError, match="no classes"):
        extremal(tiny_backbone(num_classes=0), x, of="class")
