"""The decided class guides the lite decoder, from where nothing is changed at first."""

import pytest
import torch

from nem.backbone import Backbone
from nem.class_layers import Classes, ClassLinear, ClassTable
from nem.decoder import build_decoder
from nem.errors import ModelError
from nem.explanation import AIMS
from nem.guide import ClassGuide
from nem.layers import enlarge
from nem.model import NEM
from tests.nem.toys import FAMILIES, SIZE, batch, tiny_backbone


def steered(backbone: Backbone, **options: object) -> NEM:
    """A model whose guide does something."""
    torch.manual_seed(0)
    model = NEM(backbone, "lite", AIMS, width=8, **options).eval()
    torch.nn.init.normal_(model.decoder.guide.steer.weight, 0, 0.3)
    return model


def test_a_guide_begins_by_changing_nothing() -> None:
    guide = ClassGuide(dims=5, coarse=7, width=3, levels=2)
    coarse, steps = guide(torch.randn(9, 5), torch.tensor([3, 0, 8, 3]))
    assert torch.equal(coarse, torch.ones(4, 7, 1, 1))
    assert len(steps) == 2
    for factor, shift in steps:
        assert torch.equal(factor, torch.ones(4, 3, 1, 1))
        assert torch.equal(shift, torch.zeros(4, 3, 1, 1))


def test_a_new_decoder_draws_as_one_without_guide_but_for_the_ranking() -> None:
    backbone = tiny_backbone()
    guided = NEM(backbone, "lite", AIMS, width=8).eval()
    plain = NEM(backbone, "lite", AIMS, width=8, guide=False).eval()
    state = guided.decoder.state_dict()
    told = ("guide.", "blend.")
    plain.decoder.load_state_dict({k: v for k, v in state.items() if not k.startswith(told)})
    for aim, value in guided(batch()).maps.items():
        same = torch.allclose(value, plain(batch()).maps[aim], atol=1e-5)
        assert same is (aim != "ranking"), aim


@pytest.mark.parametrize("family", FAMILIES)
def test_the_decided_class_steers_all_heads_and_the_asked_one_only_its_own(family: str) -> None:
    model = steered(tiny_backbone(family))
    features = model.backbone(batch())
    rows = model.backbone.class_rows()
    one = torch.zeros(len(batch()), dtype=torch.long)
    pyramid = features.pyramid
    logits = features.logits
    first = model.decoder(pyramid, batch(), Classes(rows, logits, one))
    second = model.decoder(pyramid, batch(), Classes(rows, logits, one + 1))
    asked = model.decoder(pyramid, batch(), Classes(rows, logits, one, one + 1))
    for aim in AIMS:
        assert not torch.allclose(first[aim], second[aim], atol=1e-4), aim
        assert torch.equal(first[aim], asked[aim]) is (aim != "target"), aim


def test_stored_weights_keep_their_places() -> None:
    guide = ClassGuide(dims=5, coarse=7, width=3, levels=2)
    with torch.no_grad():
        guide.steer.bias.copy_(8 * torch.arange(19))  # of which an eighth comes out
    coarse, steps = guide(torch.zeros(9, 5), torch.tensor([3]))
    places = [coarse - 1, *(part for factor, shift in steps for part in (factor - 1, shift))]
    assert torch.cat(places, 1).flatten().tolist() == list(range(19))


@pytest.mark.parametrize("part", range(3))
def test_all_that_the_guide_says_is_followed(part: int) -> None:
    """Factors of the coarsest map, factors and shifts of the trunk: each alone."""
    model = steered(tiny_backbone())
    steer, sizes = model.decoder.guide.steer, model.decoder.guide.sizes
    with torch.no_grad():
        for place, rows in enumerate(steer.weight.split(sizes)):
            if part != (0 if place == 0 else 2 - place % 2):
                rows.zero_()
    features, rows = model.backbone(batch()), model.backbone.class_rows()
    one, other = (
        model.decoder(features.pyramid, batch(), Classes(rows, features.logits, decided))
        for decided in (torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long))
    )
    for aim in AIMS:
        assert not torch.allclose(one[aim], other[aim], atol=1e-3), aim


def test_the_most_probable_class_is_the_decided_one() -> None:
    model = steered(tiny_backbone())
    features = model.backbone(batch())
    best = features.logits.argmax(1)
    rows = model.backbone.class_rows()
    drawn = model.decoder(features.pyramid, batch(), Classes(rows, features.logits, best))
    expected = model(batch()).maps
    torch.testing.assert_close(enlarge(drawn["ranking"], SIZE), expected["ranking"])
    other = (best + 1) % model.backbone.num_classes
    elsewhere = model(batch(), other).maps
    torch.testing.assert_close(elsewhere["ranking"], expected["ranking"])
    assert not torch.allclose(elsewhere["target"], expected["target"], atol=1e-4)


def test_tables_give_what_the_layers_give_and_stay_away_from_many_classes() -> None:
    model = steered(tiny_backbone())
    expected = model(batch(), torch.arange(len(batch())) % 3).maps
    model.tabulate_()
    kinds = {type(module) for module in model.decoder.modules()}
    assert ClassTable in kinds
    assert ClassLinear not in kinds
    for aim, value in model(batch(), torch.arange(len(batch())) % 3).maps.items():
        torch.testing.assert_close(value, expected[aim])
    many = steered(tiny_backbone(num_classes=1000))
    many.tabulate_()
    assert ClassTable not in {type(module) for module in many.decoder.modules()}


def test_no_guide_without_heads_of_classes_or_a_linear_classifier() -> None:
    assert build_decoder("lite", tiny_backbone()).guide is None
    assert build_decoder("lite", tiny_backbone(), ("class",)).guide is not None
    assert build_decoder("lite", tiny_backbone(), ("class",), guide=False).guide is None
    assert not tiny_backbone(num_classes=0).has_class_rows
    curved = tiny_backbone()
    curved.model.fc = torch.nn.Sequential(torch.nn.Linear(curved.model.num_features, 5))
    assert not curved.has_class_rows
    assert build_decoder("lite", curved, ("class",)).guide is None
    with pytest.raises(ModelError, match="needs a linear classifier"):
        build_decoder("lite", curved, ("class",), guide=True)
