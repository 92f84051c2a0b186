"""The contract every engine keeps; a new engine is one line in `conftest.OPENERS`.

What `Engine.run` does before a runtime has its turn is the same for all: see `test_base`.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest

from engines import (
    Engine,
    EngineClosed,
    EngineError,
    FrameError,
    OptionError,
    percentiles,
)
from nem.explanation import AIMS, METHOD_OF
from tests.engines.conftest import NAMES, SIZE, random_frames

# Kernels chosen for another batch size sum in another order: rounding of each precision.
BATCH_TOLERANCE = {"f32": 1e-4, "bf16": 2e-2}


@pytest.mark.parametrize("count", [1, 3])
def test_shapes_types_and_ranges(engine: Engine, count: int) -> None:
    explanation = engine.run(random_frames(count, SIZE, SIZE))
    assert explanation.mask.shape == (count, SIZE, SIZE)
    assert explanation.scores is not None
    assert explanation.scores.shape == (count, len(NAMES))
    assert explanation.embedding.ndim == 2
    assert explanation.embedding.shape[0] == count
    for array in (explanation.mask, explanation.scores, explanation.embedding):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    assert 0 <= explanation.mask.min() < explanation.mask.max() <= 1
    np.testing.assert_allclose(explanation.scores.sum(axis=1), 1, atol=1e-4)
    assert explanation.scores.min() >= 0
    assert explanation.names == engine.names == NAMES
    assert explanation.seconds > 0


def test_every_aim_has_its_map_its_method_and_its_class(engine: Engine) -> None:
    assert engine.aims == AIMS
    frames = random_frames(2, SIZE, SIZE)
    masks: list[np.ndarray] = []
    for aim in AIMS:
        explanation = engine.run(frames, aim)
        assert explanation.method == METHOD_OF[aim]
        mask = explanation.mask
        assert (mask.shape, mask.dtype) == ((2, SIZE, SIZE), np.float32)
        assert 0 <= mask.min() < mask.max() <= 1
        assert explanation.scores is not None
        if aim == "embedding":
            assert explanation.target is None
        else:
            assert explanation.target is not None
            assert explanation.target.dtype == np.int64
            np.testing.assert_array_equal(explanation.target, explanation.scores.argmax(1))
        # In the fake, target is class for the most probable class.
        least = 0 if engine.name == "fake" else 1e-3
        assert all(np.abs(mask - other).max() >= least for other in masks)
        masks.append(mask)
    for aim, mask in zip(AIMS, masks, strict=True):
        np.testing.assert_array_equal(engine.run(frames, aim).mask, mask)


def test_a_ranking_is_shown_as_percentiles_of_its_map(engine: Engine) -> None:
    explanation = engine.run(random_frames(2, SIZE, SIZE), "ranking")
    assert explanation.raw is not None
    assert not 0 <= explanation.raw.min() <= explanation.raw.max() <= 1
    np.testing.assert_array_equal(explanation.mask, percentiles(explanation.raw))
    for mask in explanation.mask:
        assert mask.mean() == pytest.approx(0.5, abs=1e-5)
    assert engine.run(random_frames(1, SIZE, SIZE), "class").raw is None


def test_any_class_can_be_asked_for(engine: Engine) -> None:
    frames = random_frames(2, SIZE, SIZE)
    wanted = [engine.run(frames, "target", number) for number in range(len(NAMES))]
    for number, explanation in enumerate(wanted):
        assert explanation.target.tolist() == [number] * 2
        for way in (NAMES[number], NAMES[number].upper(), np.int64(number), str(number)):
            again = engine.run(frames, target=way)
            np.testing.assert_array_equal(again.mask, explanation.mask)
            assert (again.method, again.target.tolist()) == ("nemt-target", [number] * 2)
    assert np.abs(wanted[0].mask - wanted[1].mask).max() > 1e-3
    best = wanted[0].scores.argmax(1)
    for target in (None, -1, [-1, -1], best):
        found = engine.run(frames, "target", target)
        np.testing.assert_array_equal(found.target, best)
        expected = np.stack([wanted[c].mask[i] for i, c in enumerate(best)])
        np.testing.assert_allclose(found.mask, expected, atol=BATCH_TOLERANCE[engine.precision])
    mixed = engine.run(frames, "target", [3, -1])
    assert mixed.target.tolist() == [3, best[1]]
    np.testing.assert_array_equal(mixed.mask[0], wanted[3].mask[0])
    np.testing.assert_array_equal(engine.run(frames, "target").target, best)  # nothing is kept


def test_goes_on_after_it_refused(engine: Engine) -> None:
    with pytest.raises(FrameError, match=r"expected .* got"):
        engine.run(np.zeros((1, 8, 8, 4), np.uint8))
    with pytest.raises(OptionError, match="nearest: dog"):
        engine.run(random_frames(1, SIZE, SIZE), target="dgo")
    assert engine.run(random_frames(1, SIZE, SIZE)).mask.shape == (1, SIZE, SIZE)


def test_batch_equals_single_frames(engine: Engine) -> None:
    frames = random_frames(3, 40, 90)
    batch = engine.run(frames)
    singles = [engine.run(frame[None]) for frame in frames]
    tolerance = BATCH_TOLERANCE[engine.precision]
    for index, single in enumerate(singles):
        np.testing.assert_allclose(batch.mask[index], single.mask[0], atol=tolerance)
        np.testing.assert_allclose(batch.scores[index], single.scores[0], atol=tolerance)
    spread = np.abs(batch.mask[0] - batch.mask[1]).max()
    assert spread > 3 * tolerance, "the frames must differ by more than what is tolerated"


def test_results_belong_to_the_caller(engine: Engine) -> None:
    first = engine.run(random_frames(1, SIZE, SIZE, seed=1))
    kept = [array.copy() for array in (first.mask, first.scores, first.embedding)]
    second = engine.run(random_frames(1, SIZE, SIZE, seed=2))
    assert np.abs(first.mask - second.mask).max() > 0
    for array, copy in zip((first.mask, first.scores, first.embedding), kept, strict=True):
        np.testing.assert_array_equal(array, copy)
        array[:] = 0  # writable, and nobody else's


def test_leaves_frames_alone_and_takes_read_only_and_strided_ones(engine: Engine) -> None:
    frames = random_frames(1, SIZE, 2 * SIZE)
    frames.flags.writeable = False
    view = frames[:, :, ::2]
    copy = view.copy()
    explanation = engine.run(view)
    np.testing.assert_array_equal(view, copy)
    np.testing.assert_array_equal(explanation.mask, engine.run(copy).mask)
    copy.flags.writeable = False
    np.testing.assert_array_equal(explanation.mask, engine.run(copy).mask)


def test_runs_in_other_threads_one_at_a_time(engine: Engine) -> None:
    frames = [random_frames(1 + i % 2, SIZE, SIZE, seed=i) for i in range(4)]
    expected = [engine.run(frame).mask for frame in frames]
    found: dict[int, list[np.ndarray]] = {}

    def work(index: int) -> None:
        found[index] = [engine.run(frames[index]).mask for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for index, masks in found.items():
        for mask in masks:
            np.testing.assert_array_equal(mask, expected[index])
    assert sorted(found) == [0, 1, 2, 3]


def test_closed_twice_and_run_after_close(engine: Engine) -> None:
    explanation = engine.run(random_frames(1, SIZE, SIZE))
    copy = explanation.mask.copy()
    engine.close()
    engine.close()
    np.testing.assert_array_equal(explanation.mask, copy)  # it outlives the engine
    with pytest.raises(EngineClosed, match=f"{engine.name} is closed"):
        engine.run(random_frames(1, SIZE, SIZE))
    with pytest.raises(EngineError, match="closed"):
        engine.run(np.zeros((1, 2, 2, 3), np.uint8))


def test_tells_how_it_runs(engine: Engine) -> None:
    assert engine.input_size == (SIZE, SIZE)
    assert engine.device == ("cuda:0" if engine.name == "tensorrt" else "cpu")
    assert engine.precision in ("f32", "bf16")


__all__ = [name for name in dir() if name.startswith("test_")]
