"""The default's card and manifest say of the backbone what was done, and nothing else."""

from pathlib import Path

import pytest

from nem.bundle import open_bundle
from scripts.default_card import model_card, weights_source
from tests.stream.cli.support import make_paper_bundle


@pytest.mark.parametrize("tuned", [True, False])
@pytest.mark.parametrize(("start", "slim"), [(None, False), ("before", False), ("before", True)])
def test_the_backbone_is_told_of_as_it_was_made(start: str | None, slim: bool, tuned: bool) -> None:
    training = {"command": "python", "data": "10 pictures", "seed": 0, "versions": {"torch": "2"}}
    card = model_card(
        name="tiny", backbone="resnet10t", backbone_params=1.0, decoder_params=1.0, classes=3,
        size=64, validation=10, start=start, slim=slim, tuned=tuned, training=training,
        quality={"a": 1.0},
    )  # fmt: skip
    assert ("trained from scratch" in card) == (start is None)
    assert ("SGD" in card) == (start is None or slim)
    assert ("cut out of" in card) == slim
    assert ("bundle `before`" in card) == (start is not None)
    assert ("Then tuned" in card) == tuned


def test_the_manifest_tells_where_the_weights_came_from(tmp_path: Path) -> None:
    start = open_bundle(make_paper_bundle(tmp_path / "before"))  # "made by a test"
    by = "by scripts/train_default"
    for tuned in (True, False):
        assert weights_source(None, False, tuned) == f"trained from scratch {by}"
        cut = f"cut out of bundle before (made by a test), trained {by}"
        assert weights_source(start, True, tuned) == cut
    assert weights_source(start, False, False) == "made by a test"  # the same weights
    assert weights_source(start, False, True) == f"bundle before (made by a test), tuned {by}"
