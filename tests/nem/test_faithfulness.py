import pytest
import torch

from nem.errors import ArgumentError, ModelError
from nem.faithfulness import (
    deletion,
    faithfulness,
    faithfulness_correlation,
    faithfulness_estimate,
    insertion,
)
from nem.masking import blur
from nem.scoring import class_and_embedding_score, class_score, embedding_score, score_versions
from tests.nem.toys import batch, tiny_backbone

FOUR = torch.tensor([4.0, 3.0, 2.0, 1.0]) / 10
SIXTEEN = torch.arange(1.0, 17.0) / 10
ZERO = torch.zeros(())


def linear(weights):
    """The sum of weighted pixels of one-channel pictures."""
    return lambda pictures, owner: pictures.flatten(1) @ weights


def ones(weights, *, n=1):
    side = int(len(weights) ** 0.5)
    return torch.ones(n, 1, side, side), weights.view(1, side, side).expand(n, -1, -1)


def test_toy_areas():
    x, maps = ones(FOUR)
    result = faithfulness(linear(FOUR), x, maps, base=ZERO)
    assert [float(v) for v in result] == pytest.approx([0.625, 0.375, 0.25])
    assert faithfulness(linear(FOUR), x, -maps, base=ZERO).faithfulness.item() == pytest.approx(
        -0.25
    )


@pytest.mark.parametrize(
    "metric",
    [
        lambda *given: insertion(*given).auc,
        lambda *given: faithfulness_correlation(*given, subset_size=2),
        lambda *given: faithfulness_estimate(*given, features_in_step=1),
    ],
)
def test_maps_may_be_arrays_as_explanations_hold_them(metric):
    x, maps = ones(FOUR)
    assert torch.equal(metric(linear(FOUR), x, maps.numpy()), metric(linear(FOUR), x, maps))


def test_faithfulness_takes_the_options_of_its_curves():
    x, _ = ones(SIXTEEN)
    flat, score = torch.zeros(1, 4, 4), linear(SIXTEEN)
    options = {"steps": 3, "base": torch.tensor(0.3), "seed": 5}
    result = faithfulness(score, x, flat, **options)
    assert result.insertion == insertion(score, x, flat, **options).auc
    assert result.deletion == deletion(score, x, flat, **options).auc


def removed_by(metric, maps, **options):
    """What a correlation makes of 4x4 pictures of ones: (pictures, 16), the whole one left out."""
    seen = []

    def score(pictures, owner):
        seen.append(pictures.flatten(1))
        return linear(SIXTEEN)(pictures, owner)

    metric(score, torch.ones(1, 1, 4, 4), maps, **options)
    return torch.cat(seen[1:])


def test_an_estimate_removes_pixels_of_like_importance_together():
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    maps = order.view(1, 4, 4).float()
    options = {"features_in_step": 6, "base": 0.25}
    found = removed_by(faithfulness_estimate, maps, **options)
    groups = [set(order[row == 0.25].tolist()) for row in found]
    assert groups == [set(range(10, 16)), set(range(4, 10)), set(range(4))]
    assert set(found.unique().tolist()) == {0.25, 1}


def test_a_correlation_removes_drawn_pixels():
    maps, options = SIXTEEN.view(1, 4, 4), {"runs": 40, "subset_size": 5, "base": 0.25}
    one, same, other = (
        removed_by(faithfulness_correlation, maps, seed=seed, **options) for seed in (3, 3, 4)
    )
    assert ((one == 0.25).sum(1) == 5).all()
    assert set(one.unique().tolist()) == {0.25, 1}
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len(one.unique(dim=0)) > 30


def test_the_curve_starts_at_no_pixel_and_ends_at_all():
    x, maps = ones(FOUR)
    curve = insertion(linear(FOUR), x, maps, base=ZERO)
    assert curve.fraction.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.scores[0].tolist() == pytest.approx([0, 0.4, 0.7, 0.9, 1])
    assert curve.scores[0, 1:].mean().item() == pytest.approx(0.75)  # the paper's mean, k from 1


def test_deletion_is_pixel_flipping():
    x, maps = ones(SIXTEEN)
    curve = deletion(linear(SIXTEEN), x, maps, steps=4)
    assert curve.scores[0].tolist() == pytest.approx([13.6, 7.8, 3.6, 1.0, 0.0], abs=1e-5)


def test_all_channels_of_a_pixel_go_together():
    x = torch.ones(1, 3, 4, 4)
    seen = []

    def score(pictures, owner):
        seen.append(pictures.clone())
        return pictures.sum((1, 2, 3))

    deletion(score, x, SIXTEEN.view(1, 4, 4), steps=16)
    pictures = torch.cat(seen)
    assert (pictures == pictures[:, :1]).all()
    assert (pictures[:, 0] == 0).sum((1, 2)).tolist() == list(range(17))


def test_defaults_are_blur_and_the_data_mean():
    x = batch(1)
    maps = torch.rand(1, 64, 64)
    seen = []

    def score(pictures, owner):
        seen.append(pictures.clone())
        return pictures.sum((1, 2, 3))

    insertion(score, x, maps, steps=1)
    blurred, whole = torch.cat(seen)
    assert torch.equal(whole, x[0])
    assert torch.equal(blurred, blur(x)[0])
    seen.clear()
    deletion(score, x, maps, steps=1)
    assert torch.equal(torch.cat(seen)[0], x[0])
    assert not torch.cat(seen)[1].any()


@pytest.mark.parametrize("metric", [faithfulness_correlation, faithfulness_estimate])
def test_correlations_of_a_linear_model(metric):
    x, maps = ones(SIXTEEN)
    size = {"subset_size" if metric is faithfulness_correlation else "features_in_step": 4}
    assert metric(linear(SIXTEEN), x, maps, **size).item() == pytest.approx(1)
    assert metric(linear(SIXTEEN), x, 1.7 - maps, **size).item() == pytest.approx(-1)
    # A constant map ranks nothing, a constant model loses nothing.
    assert metric(linear(SIXTEEN), x, torch.ones_like(maps), **size).item() == 0
    assert metric(linear(0 * SIXTEEN), x, maps, **size).item() == 0
    rounded = torch.full_like(maps, 0.1).double() + 1e-16 * torch.arange(16).view(1, 4, 4)
    assert metric(linear(SIXTEEN), x, rounded, **size).item() == 0


def test_a_bent_score_correlates_less():
    x, maps = ones(SIXTEEN)

    def bent(pictures, owner):
        return linear(SIXTEEN)(pictures, owner).exp()

    value = faithfulness_estimate(bent, x, maps, features_in_step=4).item()
    assert 0.5 < value < 0.99


def test_the_batch_and_the_memory_change_nothing():
    x = batch(3)
    maps = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(3)).round(decimals=1)
    backbone = tiny_backbone()
    target = torch.tensor([1, 0, 4])

    def run(part, memory):
        score = class_score(backbone, x[part], target[part])
        curve = insertion(score, x[part], maps[part], steps=6, memory_mb=memory)
        return torch.stack(
            [
                curve.auc,
                faithfulness_correlation(
                    score, x[part], maps[part], runs=5, memory_mb=memory
                ),
                faithfulness_estimate(score, x[part], maps[part], memory_mb=memory),
            ]
        )  # fmt: skip

    whole = run(slice(None), 512)
    alone = torch.cat([run(slice(i, i + 1), 1) for i in range(3)], 1)
    torch.testing.assert_close(whole, alone, atol=1e-4, rtol=1e-4)


def test_memory_bounds_what_is_seen_at_once():
    x = torch.zeros(2, 3, 64, 64)  # 48 KiB each; with the work on them 1.5 MiB
    sizes = []

    def score(pictures, owner):
        sizes.append(len(pictures))
        return pictures.sum((1, 2, 3))

    result = score_versions(score, lambda owner, number: x[owner], 2, 5, x, memory_mb=6)
    assert sizes == [4, 4, 2]
    assert result.shape == (2, 5)


def test_versions_come_back_to_their_picture():
    x = torch.zeros(3, 1, 2, 2)
    result = score_versions(
        lambda pictures, owner: torch.stack([pictures[:, 0, 0, 0], owner.float()], 1),
        lambda owner, number: (10 * owner + number).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2),
        3, 2, x, memory_mb=1,
    )  # fmt: skip
    assert result[..., 0].tolist() == [[0, 1], [10, 11], [20, 21]]
    assert result[..., 1].tolist() == [[0, 0], [1, 1], [2, 2]]


def test_equal_values_come_in_a_drawn_order():
    x, _ = ones(SIXTEEN)
    flat = torch.zeros(1, 4, 4)
    areas = [
        insertion(linear(SIXTEEN), x, flat, base=ZERO, seed=seed).auc.item() for seed in range(40)
    ]
    assert len(set(areas)) > 30
    assert sum(areas) / 40 == pytest.approx(SIXTEEN.sum().item() / 2, rel=0.05)
    again = insertion(linear(SIXTEEN), x, flat, base=ZERO, seed=0).auc.item()
    assert again == areas[0]


def test_scores_of_a_model():
    backbone, x = tiny_backbone(), batch(3)
    owner = torch.arange(3)
    probabilities = backbone(x).logits.softmax(1)
    best = probabilities.max(1).values.double()
    torch.testing.assert_close(class_score(backbone, x)(x, owner).float(), best.float())
    torch.testing.assert_close(
        class_score(backbone, x, torch.tensor([2, -1, 0]))(x, owner).float(),
        torch.stack([probabilities[0, 2], best[1].float(), probabilities[2, 0]]),
    )
    assert embedding_score(backbone, x)(x, owner).tolist() == pytest.approx([1, 1, 1])
    moved = embedding_score(backbone, x)(x.flip(0), owner)
    expected = torch.cosine_similarity(backbone.embed(x.flip(0)), backbone.embed(x))
    torch.testing.assert_close(moved.float(), expected)
    back = embedding_score(backbone, x)(x.flip(0), owner.flip(0))
    assert back.tolist() == pytest.approx([1, 1, 1])
    both = class_and_embedding_score(backbone, x)(x.flip(0), owner)
    torch.testing.assert_close(both[:, 0], class_score(backbone, x)(x.flip(0), owner))
    torch.testing.assert_close(both[:, 1].float(), moved.float(), atol=1e-5, rtol=0)


def test_two_scores_have_two_areas():
    x, maps = ones(FOUR, n=2)

    def score(pictures, owner):
        value = linear(FOUR)(pictures, owner)
        return torch.stack([value, 2 * value], 1)

    areas = deletion(score, x, maps).auc
    assert areas.flatten().tolist() == pytest.approx([0.375, 0.75] * 2)
    with pytest.raises(ArgumentError, match="one per picture"):
        faithfulness_estimate(score, x, maps, features_in_step=1)


def test_a_base_may_have_more_digits_than_the_pictures():
    x, maps = ones(FOUR)
    exact = torch.zeros((), dtype=torch.float64)
    assert deletion(linear(FOUR), x, maps, base=exact).scores.dtype == torch.float32


def test_what_is_refused():
    x, maps = ones(FOUR)
    score = linear(FOUR)
    with pytest.raises(ArgumentError, match="expected"):
        insertion(score, x, maps[:, :1])
    with pytest.raises(ArgumentError, match="not finite"):
        deletion(score, x, maps / 0 - maps / 0)
    with pytest.raises(ArgumentError, match="steps 0"):
        insertion(score, x, maps, steps=0, base=ZERO)
    with pytest.raises(ArgumentError, match="subset_size 5"):
        faithfulness_correlation(score, x, maps, subset_size=5)
    with pytest.raises(ArgumentError, match="features_in_step 4"):
        faithfulness_estimate(score, x, maps, features_in_step=4)
    for metric in (insertion, deletion, faithfulness):
        with pytest.raises(ArgumentError, match=r"base \(3, 1, 1, 1\): doesn't broadcast"):
            metric(score, x, maps, base=torch.zeros(3, 1, 1, 1))
    backbone = tiny_backbone()
    with pytest.raises(ArgumentError, match="classes 0 to 4"):
        class_score(backbone, batch(1), torch.tensor([5]))
    with pytest.raises(ModelError, match="embedding_score"):
        class_score(tiny_backbone(num_classes=0), batch(1))
