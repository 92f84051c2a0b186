import itertools
from typing import Any

import pytest
import torch

from nem.backbone import Features
from nem.config import Score, TrainConfig
from nem.explanation import METHOD_OF, Aim
from nem.losses import class_score, nem_u_loss, nemt_loss, ra_nem_loss, target_loss
from nem.masking import replacements
from nem.objectives import Seen, Values, absent_from, aim_terms, draw_targets
from tests.nem.toys import SIZE, batch, tiny_backbone

TARGET = torch.tensor([3, 0, 1, 4])
ABSENT = torch.tensor([False, True, False, True])


def masks() -> torch.Tensor:
    """Random ones, each of another area."""
    drawn = torch.rand(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return drawn * torch.tensor([0.3, 0.9, 0.6, 0.45]).view(4, 1, 1, 1)


@pytest.mark.parametrize(
    ("aim", "score"),
    [("embedding", "softmax"), *itertools.product(("class", "target"), ("softmax", "logits"))],
)
def test_the_values_of_a_batch_are_those_of_its_pictures(aim: Aim, score: Score) -> None:
    backbone, x, mask = tiny_backbone(), batch(), masks()
    config = TrainConfig(data=("-",), out="-", methods=(METHOD_OF[aim],), score=score)

    def judged(pick: Any) -> Values:
        generator = torch.Generator().manual_seed(0)
        asked = (TARGET[pick], ABSENT[pick])
        with torch.no_grad():
            full = backbone(x[pick])
            term = aim_terms(x[pick], {aim: mask[pick]}, full, config, generator, 0.05, asked, {})[
                aim
            ]
            seen = [backbone(pictures) for pictures in term.pictures]
        return term.judge([Seen(one.embedding, one.logits) for one in seen])

    together, apart = judged(slice(None)), [judged(slice(i, i + 1)) for i in range(4)]
    assert "loss" in together
    for name, value in together.items():
        assert value.shape == (4,), name
        single = torch.cat([one[name] for one in apart])
        torch.testing.assert_close(value, single, rtol=1e-4, atol=1e-5, equal_nan=True, msg=name)
        there = value[~value.isnan()]
        assert there.max() - there.min() > 1e-4, name
    if aim == "target":
        assert torch.equal(together["drop"].isnan(), ABSENT)
        assert torch.equal(together["absent_area"].isnan(), ~ABSENT)


def test_terms_are_the_losses_of_what_is_seen_with_the_weights_that_were_set() -> None:
    backbone, x, mask = tiny_backbone(), batch(), masks()
    config = TrainConfig(
        data=("-",), out="-", methods=tuple(METHOD_OF.values()), score="logits", loss="code",
        area_weight=2.0, class_area_weight=0.25, ks=3, deletion_weight=0.5,
    )  # fmt: skip
    with torch.no_grad():
        full, kept, hidden = (backbone(z) for z in (x, mask * x, (1 - mask) * x))
        ranking = torch.where(mask > 0.2, 1e3, -1e3)  # no noise of the draw turns it round
        maps = {aim: ranking if aim == "ranking" else mask for aim in METHOD_OF}
        generator = torch.Generator().manual_seed(0)
        terms = aim_terms(x, maps, full, config, generator, 0.05, (TARGET, ABSENT), {})
        found = {}
        for aim, term in terms.items():
            runs = [backbone(pictures) for pictures in term.pictures]
            found[aim] = term.judge([Seen(run.embedding, run.logits) for run in runs])["loss"]

    def score(features: Features, target: torch.Tensor) -> torch.Tensor:
        assert features.logits is not None
        return class_score(features.logits, target, "logits", 0.05)

    best = full.logits.argmax(1)
    parts = (full.embedding, kept.embedding, hidden.embedding)
    expected = {
        "embedding": nem_u_loss(*parts, mask, "code", area_weight=2.0).loss,
        "class": nemt_loss(score(full, best), score(hidden, best), mask, 0.25),
        "target": target_loss(
            *(score(seen, TARGET) for seen in (full, hidden, kept)), mask, ABSENT, 0.25
        ),
    }
    for aim, loss in expected.items():
        torch.testing.assert_close(found[aim], loss, rtol=1e-4, atol=1e-5, msg=aim)
    other = replacements(x, torch.Generator().manual_seed(0))
    pictures = terms["ranking"].pictures
    assert len(pictures) == 6
    numbers: list[float] = []
    for k in range(3):
        own = pictures[k] == x
        torch.testing.assert_close(pictures[k], torch.where(own, x, other))
        torch.testing.assert_close(pictures[k + 3], torch.where(own, other, x))
        shown = own[:, :1].float()
        numbers += shown.sum((1, 2, 3)).tolist()
        assert (shown * (mask > 0.2)).sum() > 0
        few = shown.sum((1, 2, 3)) < (mask > 0.2).sum((1, 2, 3))
        assert ((shown * (mask <= 0.2)).sum((1, 2, 3))[few] == 0).all()
    assert max(numbers) > mask[0].numel() / 2  # of all pixels
    runs = [class_score(backbone(z).logits, best) for z in pictures]
    scores = torch.stack(runs, 1)
    torch.testing.assert_close(found["ranking"], ra_nem_loss(scores[:, :3], scores[:, 3:], 0.5))


@pytest.mark.parametrize(("aim", "expected"), [("class", -0.25 + 0.5), ("ranking", -0.4)])
def test_the_class_is_the_best_of_the_whole_picture_not_of_what_is_left(
    aim: Aim, expected: float
) -> None:
    whole, left = torch.tensor([[0.1, 0.9]]).log(), torch.tensor([[0.6, 0.4]]).log()
    config = TrainConfig(data=("-",), out="-", methods=(METHOD_OF[aim],))
    full = Features([], torch.zeros(1, 2), whole)
    drawn, generator = torch.ones(1, 1, 8, 8), torch.Generator()
    term = aim_terms(batch(1, 8), {aim: drawn}, full, config, generator, 1.0, None, {})[aim]
    loss = term.judge([Seen(torch.zeros(1, 2), left)] * len(term.pictures))["loss"]
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 6, 40])
def test_half_of_the_asked_classes_are_the_best_and_a_fifth_are_absent(classes: int) -> None:
    logits = torch.randn(4000, classes, generator=torch.Generator().manual_seed(0))
    target, absent = draw_targets(logits, torch.Generator().manual_seed(0))
    places = (logits.argsort(1, descending=True) == target[:, None]).int().argmax(1)
    far = absent_from(classes)
    assert far == {2: 1, 6: 5, 40: 8}[classes]
    assert absent.float().mean().item() == pytest.approx(0.2, abs=0.02)
    top = min(5, far)
    there = places[~absent].bincount(minlength=top) / 4000
    assert there.tolist() == pytest.approx([0.5 + 0.3 / top, *[0.3 / top] * (top - 1)], abs=0.03)
    assert set(places[absent].tolist()) == set(range(far, classes))
