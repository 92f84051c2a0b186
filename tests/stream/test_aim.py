import numpy as np
import pytest

from engines import FakeEngine, OptionError
from nem.explanation import AIMS
from stream.aim import AimDial, aim_of, in_words
from stream.pipeline import Pipeline
from tests.stream.fakes import FakeSource

GREYS = np.repeat(np.array([10, 90, 100, 150], np.uint8), [40, 30, 20, 10]).reshape(10, 10)
FRAME = np.repeat(GREYS[None, ..., None], 3, axis=3)


@pytest.fixture
def engine():
    with FakeEngine(input_size=(10, 10)) as opened:
        yield opened


def test_begins_with_what_was_asked_for(engine):
    assert AimDial(engine).asked == ("embedding", None)
    assert AimDial(engine, "ranking").asked == ("ranking", None)
    assert AimDial(engine, target="bright").asked == ("target", 2)
    assert AimDial(engine, "target", 3).asked == ("target", 3)
    assert AimDial(engine, target="-1").asked == ("target", None)
    assert [str(AimDial(engine, target=t)) for t in (None, "-1", 3)] == [
        "embedding",
        "target",
        "target white",
    ]


def test_unknown_aims_and_classes_are_refused_with_the_nearest(engine):
    for explain, target, reason in (
        ("clas", None, "did you mean class"),
        (None, "brigt", "nearest: bright"),
        (None, 9, "0 to 3"),
        ("class", "dark", "goes with explain target"),
    ):
        with pytest.raises(OptionError, match=reason):
            AimDial(engine, explain, target)


def test_aims_go_round(engine):
    dial = AimDial(engine)
    seen = [dial.asked[0]]
    for _ in AIMS:
        assert dial.next_aim() == f"explains {dial.asked[0]}"
        seen.append(dial.asked[0])
    assert seen == [*AIMS, AIMS[0]]


def test_the_next_aim_leaves_the_class_behind(engine):
    dial = AimDial(engine, target="white")
    for _ in AIMS:
        dial.next_aim()
        assert dial.asked[1] is None
        engine.run(FRAME, *dial.asked)  # which refuses a class with another aim


def test_of_many_classes_the_best_five_go_round():
    with FakeEngine(input_size=(10, 10), names=tuple("abcdefgh")) as many:
        dial, shown = AimDial(many), many.run(FRAME)
        told = [dial.next_target(shown) for _ in range(6)]
    assert told == [f"target {name}" for name, _ in [*shown.top(5), *shown.top(1)]]


def test_targets_go_through_the_best_classes_of_the_frame_and_round(engine):
    dial = AimDial(engine)
    shown = engine.run(FRAME)
    order = [name for name, _ in shown.top(4)]
    told = [dial.next_target(shown) for _ in range(5)]
    assert told == [f"target {name}" for name in [*order, order[0]]]


def test_two_classes_of_one_name_are_two_targets():
    with FakeEngine(input_size=(10, 10), names=("crane", "bird", "crane")) as engine:
        dial, shown = AimDial(engine), engine.run(FRAME)
        numbers = []
        for _ in range(4):
            dial.next_target(shown)
            numbers.append(dial.asked[1])
    assert sorted(numbers[:3]) == [0, 1, 2]
    assert numbers[3] == numbers[0]


def test_a_class_that_left_the_best_five_gives_way_to_the_best(engine):
    names = tuple("abcdefgh")
    with FakeEngine(input_size=(10, 10), names=names) as many:
        shown = many.run(FRAME)
        dial = AimDial(many, target=shown.top(8)[-1][0])
        assert dial.next_target(shown) == f"target {shown.top(1)[0][0]}"


def test_a_bundle_without_the_head_says_so():
    with FakeEngine(input_size=(10, 10), aims=("embedding",)) as plain:
        dial = AimDial(plain)
        assert "no other class" in dial.next_target(plain.run(FRAME))
        assert dial.next_aim() == "this bundle explains embedding only"
        assert dial.asked == ("embedding", None)


def test_words(engine):
    assert in_words(engine.run(FRAME)) == ""
    assert in_words(engine.run(FRAME, "class")) == f"class: {engine.run(FRAME).top(1)[0][0]}"
    assert in_words(engine.run(FRAME, target="dark")) == "target: dark"
    assert aim_of(engine.run(FRAME, "ranking")) == "ranking"


def test_the_next_frame_is_explained_by_the_new_aim(engine):
    dial = AimDial(engine)
    seen = []
    with_aim = Pipeline(FakeSource(60), engine, aim=dial)
    for index, (_, explanation) in enumerate(with_aim.frames()):
        seen.append(aim_of(explanation))
        if index == 2:
            dial.next_aim()
    # Frames under way keep the aim they were explained by; then the new one holds.
    turned = seen.index("class")
    assert 2 < turned < 20
    assert seen == ["embedding"] * turned + ["class"] * (60 - turned)
