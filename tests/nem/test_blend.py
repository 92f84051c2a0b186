"""A ranking is completed by where the decided class leads its rivals, and by the other heads."""

import pytest
import torch
import torch.nn.functional as F

from nem.blend import Blend
from nem.class_layers import Classes
from nem.explanation import AIMS
from nem.model import NEM
from tests.nem.toys import SIZE, batch, tiny_backbone


def unit_rows(classes: int = 7, dims: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(classes, dims, generator=generator), dim=1)


def ranks(maps: torch.Tensor) -> torch.Tensor:
    return maps.flatten(1).argsort(1).argsort(1).float()


def agreement(one: torch.Tensor, other: torch.Tensor) -> float:
    """Spearman's correlation, the least of all pictures."""
    pairs = zip(ranks(one), ranks(other), strict=True)
    return min(torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in pairs)


def test_the_lead_is_the_gradient_of_the_log_odds_for_rows_of_length_1() -> None:
    rows = unit_rows().double()
    embedding = torch.randn(5, rows.shape[1], dtype=torch.double, requires_grad=True)
    logits = 4 * embedding @ rows.T
    decided = logits.argmax(1)
    probability = logits.softmax(1).gather(1, decided[:, None])
    (gradient,) = torch.autograd.grad(torch.logit(probability).sum(), embedding)
    lead = Classes(rows, logits.detach(), decided).lead
    torch.testing.assert_close(4 * lead, gradient, rtol=1e-3, atol=1e-3)


def test_the_lead_does_not_fade_where_the_class_is_certain() -> None:
    rows = unit_rows()
    logits = torch.zeros(1, len(rows))
    logits[0, 2], logits[0, 5] = 60, 20  # a probability of 1 in float32
    lead = Classes(rows, logits, torch.tensor([2])).lead
    torch.testing.assert_close(lead[0], rows[2] - rows[5])


def test_the_ranking_of_a_flat_trunk_is_the_evidence() -> None:
    backbone = tiny_backbone()
    model = NEM(backbone, "lite", ("ranking",), width=8).eval()
    torch.nn.init.zeros_(model.decoder.head.weight)
    features = backbone(batch())
    classes = Classes(backbone.class_rows(), features.logits, features.logits.argmax(1))
    summed = torch.einsum("nchw,nc->nhw", features.pyramid[-1], classes.lead)[:, None]
    expected = F.interpolate(summed, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    # The model enlarges twice, to the stride that is drawn at and on: nearly the same.
    assert agreement(model(batch()).maps["ranking"], expected) > 0.97


@pytest.mark.parametrize("part", range(4))
def test_each_part_counts_by_its_share(part: int) -> None:
    torch.manual_seed(part)
    blend = Blend(dims=5, channels=5, others=2).requires_grad_(False)
    shares = torch.zeros(4)
    shares[part] = 1
    blend.shares.copy_(shares[1:])
    own, evidence, *others = parts = [torch.randn(2, 1, 6, 6) for _ in range(4)]
    drawn = blend(1e-6 * own if part else own, evidence, others, torch.tensor([0.9, 0.2]))
    assert agreement(drawn, parts[part]) > 0.999


def test_a_trained_ranking_and_the_evidence_weigh_alike_and_stand_out_of_the_noise() -> None:
    blend = Blend(dims=5, channels=5, others=0).requires_grad_(False)
    blend.shares.fill_(1)
    generator = torch.Generator().manual_seed(0)
    own, evidence = torch.randn(2, 1, 1, 64, 64, generator=generator).unbind()
    drawn = blend(7 * own, evidence, [], torch.ones(1))
    assert agreement(drawn, own) == pytest.approx(agreement(drawn, evidence), abs=0.05)
    assert drawn.std() > 3 * 1.28  # the deviation of Gumbel's noise


def test_a_ranking_that_learns_does_not_move_the_other_heads() -> None:
    backbone = tiny_backbone()
    model = NEM(backbone, "lite", AIMS, width=8)
    features = backbone(batch())
    model.explain(features, batch()).maps["ranking"].std().backward()
    moved = {place for place in range(3) if model.decoder.head.weight.grad[place].abs().max() > 0}
    assert moved == {model.decoder.plain.index("ranking")}
    assert model.decoder.blend.shares.grad.abs().min() > 0


def test_a_map_of_another_width_than_the_rows_is_translated() -> None:
    blend = Blend(dims=12, channels=5, others=0)
    assert blend.direction(torch.randn(3, 12)).shape == (3, 5)


def test_evidence_of_any_scale_counts_alike_and_flat_evidence_not_at_all() -> None:
    blend = Blend(dims=5, channels=5, others=0)
    own, evidence = torch.randn(2, 2, 1, 8, 8).unbind()
    sure = torch.ones(2)
    one, large = blend(own, 3 * evidence, [], sure), blend(own, 300 * evidence + 7, [], sure)
    torch.testing.assert_close(one, large, rtol=1e-3, atol=1e-3)
    assert agreement(blend(own, torch.full_like(own, 2.0), [], sure), own) > 0.999


def test_the_less_probable_the_class_the_more_the_evidence_decides() -> None:
    blend = Blend(dims=5, channels=5, others=1)
    own, evidence, other = (scale * torch.randn(1, 1, 32, 32) for scale in (6, 1, 3))
    agreed = [
        agreement(blend(own, evidence, [other], torch.tensor([probability])), evidence)
        for probability in (0.7, 0.5, 0.3, 0.05)
    ]
    assert agreed == sorted(agreed)
    assert agreed[0] < 0.9 < 0.999 < agreed[-1]
    alone = [blend(own, 0 * evidence, [other], torch.tensor([p])) for p in (1.0, 0.1)]
    assert agreement(*alone) > 0.999  # what was drawn keeps its order
    whole, sure = (blend(own, evidence, [other], torch.tensor([p])) for p in (1.0, 0.75))
    torch.testing.assert_close(whole, sure)


def test_the_probability_is_that_of_the_decided_class() -> None:
    logits = torch.randn(4, 7)
    decided = logits.argmax(1)
    expected = logits.softmax(1).gather(1, decided[:, None])[:, 0]
    torch.testing.assert_close(Classes(unit_rows(), logits, decided).probability, expected)


def test_no_blend_where_there_is_no_guide_or_no_ranking() -> None:
    backbone = tiny_backbone()
    for kind, options in (("lite", {"guide": False}), ("paper", {})):
        assert NEM(backbone, kind, AIMS, **options).decoder.blend is None
    assert NEM(backbone, "lite", ("class", "target")).decoder.blend is None
