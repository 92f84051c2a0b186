"""What `Engine.run` does for every engine: what it takes, what it refuses and in which words."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import engines.base
from engines import EngineClosed, FakeEngine, FrameError, OptionError
from engines.base import Arrays
from nem.explanation import METHOD_OF, Aim
from tests.engines.conftest import NAMES, random_frames

SHAPE = (48, 64)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(input_size=SHAPE, names=NAMES)


def test_the_first_aim_is_the_default(engine: FakeEngine) -> None:
    frames = random_frames(1, *SHAPE)
    np.testing.assert_array_equal(engine.run(frames).mask, engine.run(frames, engine.aims[0]).mask)
    assert engine.run(frames).method == METHOD_OF[engine.aims[0]]


@pytest.mark.parametrize(
    ("explain", "target", "say"),
    [
        ("clas", None, "embedding, class, ranking, target; did you mean class"),
        ("pixels", None, "explains embedding, class, ranking, target"),
        ("class", "dog", "goes with explain target, not with explain class"),
        ("embedding", 0, "goes with explain target"),
        (None, "dgo", "nearest: dog"),
        ("target", "at", "nearest: cat, ant"),
        ("target", "zzz", "the first are ant, bee"),
        ("target", 5, "5 classes; give 0 to 4, or -1"),
        ("target", "17", "5 classes; give 0 to 4"),
        ("target", -2, "give 0 to 4"),
        ("target", [0], "shape .1,. for 2 pictures"),
        ("target", [[0, 1]], "one for each picture"),
        ("target", [0, 9], "give 0 to 4"),
        ("target", 1.5, "got float"),
        ("target", True, "got bool"),
    ],
)
def test_refuses_what_it_can_not_explain(
    engine: FakeEngine, explain: Aim | None, target: object, say: str
) -> None:
    with pytest.raises(OptionError, match=say) as caught:
        engine.run(random_frames(2, *SHAPE), explain, target)
    assert "\n" not in str(caught.value)


def test_top_names_the_best_class_first(engine: FakeEngine) -> None:
    explanation = engine.run(random_frames(2, *SHAPE))
    assert explanation.scores is not None
    top = explanation.top(2, index=1)
    assert top[0] == (NAMES[explanation.scores[1].argmax()], explanation.scores[1].max())
    assert top[0][1] >= top[1][1]


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (37, 53), (48, 200), (360, 641)])
def test_takes_frames_of_any_size(engine: FakeEngine, size: tuple[int, int]) -> None:
    explanation = engine.run(random_frames(2, *size))
    assert explanation.mask.shape == (2, *SHAPE)
    assert np.isfinite(explanation.mask).all()


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((1, 8, 8, 3), np.int8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((1, 8, 8), np.uint8),
        np.zeros((1, 3, 8, 8), np.uint8),
        np.zeros((1, 8, 8, 4), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((1, 0, 8, 3), np.uint8),
        [[[[0, 0, 0]]]],
    ],
    ids=lambda frames: f"{getattr(frames, 'dtype', 'list')}-{np.shape(frames)}",
)
def test_refuses_other_frames(engine: FakeEngine, frames: np.ndarray) -> None:
    with pytest.raises(FrameError, match=r"expected .* got"):
        engine.run(frames)
    assert engine.run(random_frames(1, *SHAPE)).mask.shape == (1, *SHAPE)


def test_closing_waits_for_a_run_in_progress() -> None:
    """Or memory would be freed that a runtime is at work on."""
    began, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    class Slow(FakeEngine):
        def _run(self, *given: Any) -> Arrays:
            began.set()
            assert go_on.wait(60)
            done.append("run")
            return super()._run(*given)

        def _close(self) -> None:
            done.append("closed")

    engine = Slow(input_size=SHAPE)
    run = threading.Thread(target=engine.run, args=(random_frames(1, *SHAPE),))
    run.start()
    assert began.wait(60)
    close = threading.Thread(target=engine.close)
    close.start()
    close.join(0.1)
    assert done == []
    go_on.set()
    for thread in (run, close):
        thread.join(60)
    assert done == ["run", "closed"]


def test_closed_while_a_run_was_on_its_way(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pick = engines.base.pick_aim

    def close_and_pick(*given: Any, **how: Any) -> Aim:
        engine.close()
        return pick(*given, **how)

    monkeypatch.setattr(engines.base, "pick_aim", close_and_pick)
    with pytest.raises(EngineClosed, match="fake is closed"):
        engine.run(random_frames(1, *SHAPE))
