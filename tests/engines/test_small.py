"""The fake engine, the timing, the shared resize, and explanations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from engines import EngineError, Explanation, FakeEngine, measure, resize
from nem.errors import BundleError
from nem.explanation import class_names


def grey(*levels: int) -> np.ndarray:
    """A frame whose columns have these levels."""
    return np.repeat(np.array(levels, np.uint8)[None, None, :, None], 3, axis=3).repeat(32, 1)


def test_fake_mask_is_brightness() -> None:
    engine = FakeEngine(input_size=(32, 4))
    explanation = engine.run(grey(100, 0, 200, 200))
    np.testing.assert_allclose(explanation.mask[0], [[0.5, 0, 1, 1]] * 32)
    np.testing.assert_allclose(explanation.scores, [[0.25, 0.25, 0, 0.5]])
    np.testing.assert_allclose(explanation.embedding, [[125 / 255] * 3], rtol=1e-5)


def test_fake_maps_of_a_class_are_nearness_to_its_step() -> None:
    engine = FakeEngine(input_size=(32, 4), names=("dark", "bright"))
    frames = grey(255, 255, 223, 0)  # 1.75 steps: a quarter from the middle of "bright"
    for explain in ("class", "target"):
        mask = engine.run(frames, explain).mask
        np.testing.assert_allclose(mask[0, 0], [0.5, 0.5, 0.75, 0], atol=0.002)
    np.testing.assert_allclose(engine.run(frames, target="dark").mask[0, 0], [0, 0, 0, 0.5])
    ranking = engine.run(frames, "ranking")
    assert ranking.raw.min() < -10
    assert np.argsort(ranking.mask[0, 0], kind="stable").tolist() == [3, 0, 1, 2]


def test_fake_flat_frame_has_an_empty_mask() -> None:
    assert FakeEngine().run(np.full((1, 8, 8, 3), 255, np.uint8)).mask.max() == 0


def test_fake_fails_where_told_and_goes_on() -> None:
    engine = FakeEngine(fail_at=3)
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    engine.run(frames)
    with pytest.raises(EngineError, match="frame 3"):
        engine.run(frames)
    engine.run(frames)


def test_measure_times_calls_in_turns() -> None:
    ticks: Iterator[float] = iter(range(0, 1000, 10))
    log: list[str] = []

    def clock() -> float:
        log.append("clock")
        return next(ticks)

    times = measure(
        {"a": lambda: log.append("a"), "b": lambda: log.append("b")},
        warmup=1,
        repeats=2,
        clock=clock,
    )
    turn = ["clock", "a", "clock", "clock", "b", "clock"]
    assert log == ["a", "b", *turn, *turn]
    assert times["a"].samples == (10, 10)
    assert (times["b"].median, times["b"].iqr) == (10, 0)


def test_measure_tells_median_and_spread() -> None:
    marks = iter([0, 1, 0, 2, 0, 3, 0, 4, 0, 50])
    latency = measure({"x": int}, warmup=0, repeats=5, clock=lambda: next(marks))["x"]
    assert (latency.median, latency.iqr) == (3, 2)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        measure({"x": int}, repeats=1)


@pytest.mark.parametrize("shape", [(40, 60, 3), (40, 60), (9, 70, 3)])
@pytest.mark.parametrize("size", [(16, 16), (80, 80), (40, 60), (16, 90), (1, 1)])
def test_resize_keeps_flat_pictures_and_the_mean(
    shape: tuple[int, ...], size: tuple[int, int]
) -> None:
    flat = np.full(shape, 77, np.uint8)
    assert (resize(flat, size) == 77).all()
    random = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    small = resize(random, size)
    assert small.shape == (*size, *shape[2:])
    assert small.dtype == np.uint8
    if size[0] <= shape[0] and size[1] <= shape[1]:  # averages keep the mean
        assert abs(float(small.mean()) - float(random.mean())) < 1


def test_resize_averages_over_area() -> None:
    stripes = np.zeros((8, 8), np.uint8)
    stripes[:, ::2] = 200
    assert (resize(stripes, (2, 2)) == 100).all()


def test_names_are_numbers_where_nobody_gave_any() -> None:
    assert class_names((), 2) == ("class 0", "class 1")
    assert class_names(("a", "b"), 2) == ("a", "b")
    assert class_names((), 0) == ()
    with pytest.raises(BundleError, match="2 class names for 3 classes"):
        class_names(("a", "b"), 3)


def test_explanation_shows_shapes_not_numbers() -> None:
    explanation = Explanation(
        np.zeros((1, 4, 4), np.float32), None, np.zeros((1, 8), np.float32), (), 0.5
    )
    assert repr(explanation) == (
        "Explanation(nem-u, mask=(1, 4, 4), classes=0, embedding=(1, 8), seconds=0.5000)"
    )
    assert explanation.top() == []
