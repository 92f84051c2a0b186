"""The default's card says of the backbone what was done, and nothing else."""

import pytest

from scripts.default_card import model_card


@pytest.mark.parametrize("tuned", [True, False])
@pytest.mark.parametrize("start", [None, "before"])
def test_the_backbone_is_told_of_as_it_was_made(start: str | None, tuned: bool) -> None:
    training = {"command": "python", "data": "10 pictures", "seed": 0, "versions": {"torch": "2"}}
    card = model_card(
        name="tiny", backbone="resnet10t", backbone_params=1.0, decoder_params=1.0, classes=3,
        size=64, validation=10, start=start, tuned=tuned, training=training, quality={"a": 1.0},
    )  # fmt: skip
    assert ("trained from scratch" in card) == ("SGD" in card) == (start is None)
    assert ("bundle `before`" in card) == (start is not None)
    assert ("Then tuned" in card) == tuned
