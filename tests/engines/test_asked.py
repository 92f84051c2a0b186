"""What may be asked of a bundle without all heads or names, and how its refusals read."""

from __future__ import annotations

import numpy as np
import pytest

from engines import FakeEngine, OptionError, find_class, pick_aim
from tests.engines.conftest import random_frames

FRAMES = random_frames(1, 32, 32)


def test_without_a_target_head_it_says_who_has_none() -> None:
    engine = FakeEngine(aims=("class", "embedding"))
    assert engine.run(FRAMES).method == "nemt"
    none = "has no head .* only class, embedding; leave target out, or take an"
    with pytest.raises(OptionError, match=f"'cat': this engine {none} engine opened for it"):
        engine.run(FRAMES, target="cat")
    with pytest.raises(OptionError, match=f"'cat': this bundle {none}other bundle"):
        pick_aim(engine.aims, None, "cat")
    others = "explains class, embedding; take one of these, or an"
    with pytest.raises(OptionError, match=f"this engine {others} engine opened for it"):
        engine.run(FRAMES, "target")
    with pytest.raises(OptionError, match=f"this bundle {others}other bundle"):
        pick_aim(engine.aims, "target", None)


def test_a_model_without_classes_explains_its_features_only() -> None:
    engine = FakeEngine(names=())
    assert engine.aims == ("embedding",)
    assert engine.run(FRAMES).target is None
    with pytest.raises(OptionError, match="only embedding"):
        engine.run(FRAMES, target=0)


def test_a_given_target_is_the_aim() -> None:
    assert pick_aim(("embedding", "target"), None, 3) == "target"
    assert pick_aim(("embedding", "target"), None, None) == "embedding"
    assert pick_aim(("embedding", "target"), "target", None) == "target"


@pytest.mark.parametrize(
    ("names", "asked", "number"),
    [
        (("crane", "Crane"), "Crane", 1),  # as it is written, before any other way
        (("cat", "dog"), "DOG", 1),
        (("7", "1", "2"), "1", 1),  # a class that is called by a digit
        (("cat", "dog"), "1", 1),
        (("goldfish, Carassius auratus", "tench, Tinca tinca"), "Tench", 1),
        (("cock, rooster", "cock"), "cock", 1),  # the whole name before a part
        (("cat", "dog"), np.uint8(1), 1),
        (("cat", "dog"), "-1", -1),
    ],
)
def test_classes_by_name_and_number(names: tuple[str, ...], asked: object, number: int) -> None:
    assert find_class(names, asked) == number


@pytest.mark.parametrize("asked", ["dog", "3", 3, -1])
def test_without_classes_there_is_none_to_name(asked: object) -> None:
    with pytest.raises(OptionError, match="the model has no classes, only features"):
        find_class((), asked)


def test_a_name_of_two_classes_needs_its_number() -> None:
    with pytest.raises(OptionError, match="2 classes are called so; give a number: 0, 2"):
        find_class(("crane", "dog", "crane"), "crane")
    with pytest.raises(OptionError, match="give a number: 0, 2"):
        find_class(("crane, bird", "dog", "crane, machine"), "crane")
    with pytest.raises(OptionError, match="give a number: 0, 1"):
        find_class(("Crane", "crane"), "CRANE")


def test_nearest_names_hold_the_word_or_are_spelled_alike() -> None:
    names = ("tabby cat", "catamaran", "cab", "zebra", "Persian cat")
    with pytest.raises(OptionError, match=r"nearest: catamaran, tabby cat, Persian cat, cab;"):
        find_class(names, "Cat")
