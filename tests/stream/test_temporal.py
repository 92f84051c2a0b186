from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from stream.errors import UsageError
from stream.temporal import CutDetector, Smoother
from tests.builders import DATA, make_explanation, make_frame

CLIPS = sorted((DATA / "davis").glob("*.mp4"))
MS = Fraction(1, 1000)


def picture(seed: int, size: int = 160) -> np.ndarray:
    """Smooth coloured noise, RGB uint8; each seed has its own colours."""
    rng = np.random.default_rng(seed)
    noise = cv2.resize(rng.random((12, 12, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    low = rng.uniform(0, 150, 3)
    return np.clip(low + noise * rng.uniform(40, 100, 3), 0, 255).astype(np.uint8)


def explain(value: float):
    return make_explanation(mask=np.full((1, 8, 8), value, np.float32))


def run(smoother, steps, rgb=None):
    """Masks for (milliseconds, mask value) steps in one still scene."""
    rgb = picture(0) if rgb is None else rgb
    return [
        smoother(make_frame(rgb=rgb, pts=ms, time_base=MS), explain(value)).mask
        for ms, value in steps
    ]


def test_a_constant_mask_stays_bit_equal():
    mask = make_explanation().mask
    smoother = Smoother(0.1)
    for i in range(20):
        frame = make_frame(rgb=picture(0), pts=40 * i, time_base=MS)
        assert np.array_equal(smoother(frame, make_explanation(mask=mask)).mask, mask)


def test_half_is_forgotten_within_the_half_life():
    masks = run(Smoother(0.2), [(0, 0.0), (200, 1.0), (400, 1.0)])
    assert [float(m.mean()) for m in masks] == pytest.approx([0.0, 0.5, 0.75])
    assert masks[1].dtype == np.float32


def test_dropped_frames_change_nothing():
    every = run(Smoother(0.1), [(0, 0.2), *((10 * i, 0.9) for i in range(1, 11))])
    few = run(Smoother(0.1), [(0, 0.2), (30, 0.9), (100, 0.9)])
    assert every[-1] == pytest.approx(few[-1], abs=1e-6)


def test_a_cut_starts_anew():
    smoother = Smoother(1.0)
    run(smoother, [(0, 0.0), (40, 0.1)], picture(0))
    [after] = run(smoother, [(80, 1.0)], picture(1))
    assert (after == 1.0).all()
    [later] = run(smoother, [(120, 0.0)], picture(1))
    assert 0.9 < later.mean() < 1.0


def test_a_pan_does_not_start_anew():
    wide = picture(3, 640)
    is_cut = CutDetector()
    for step in range(40):
        x = step * 8
        assert not is_cut(make_frame(rgb=wide[100:260, x : x + 240]))


@pytest.mark.parametrize("change", [1, -1, 3])
def test_a_little_light_more_or_less_is_no_cut(change):
    """On a plain wall all pixels change together, and may all cross a bin's border."""
    for grey in range(20, 230, 7):
        is_cut = CutDetector()
        is_cut(make_frame(rgb=np.full((64, 64, 3), grey, np.uint8)))
        assert not is_cut(make_frame(rgb=np.full((64, 64, 3), grey + change, np.uint8)))


def test_a_clock_that_stands_or_goes_back_starts_anew():
    masks = run(Smoother(1.0), [(100, 0.0), (100, 1.0), (40, 0.5)])
    assert [float(m.mean()) for m in masks] == [0.0, 1.0, 0.5]


def test_another_mask_size_starts_anew():
    smoother = Smoother(1.0)
    run(smoother, [(0, 0.0)])
    frame = make_frame(rgb=picture(0), pts=40, time_base=MS)
    mask = np.ones((1, 16, 16), np.float32)
    assert np.array_equal(smoother(frame, make_explanation(mask=mask)).mask, mask)


def of(method, target=None):
    """What changes an explanation to one by `method`, of class `target`."""
    return {"method": method, "target": None if target is None else np.array([target])}


@pytest.mark.parametrize(
    ("before", "after", "anew"),
    [
        (of("nem-u"), of("nem-u"), False),
        (of("nem-u"), of("nemt", 1), True),
        (of("nemt", 1), of("ra-nem", 1), True),
        (of("nemt-target", 1), of("nemt-target", 2), True),
        (of("nemt-target", 2), of("nemt-target", 2), False),
        (of("ra-nem", 2), of("ra-nem", 2), False),
        (of("nemt", 1), of("nemt", 3), True),  # the most probable class changed
        (of("relax"), of("nem-u"), True),
    ],
)
def test_another_aim_or_class_starts_anew(before, after, anew):
    smoother = Smoother(1.0)
    first, second = (make_frame(rgb=picture(0), pts=ms, time_base=MS) for ms in (0, 40))
    smoother(first, replace(explain(0.0), **before))
    found = smoother(second, replace(explain(1.0), **after))
    assert found.method == after["method"]
    assert bool((found.mask == 1).all()) is anew
    assert anew or found.mask.max() < 0.1


def test_neither_argument_nor_earlier_results_change():
    smoother = Smoother(0.1)
    given = [explain(v) for v in (0.0, 1.0, 0.3)]
    results = []
    for i, explanation in enumerate(given):
        explanation.mask.setflags(write=False)
        result = smoother(make_frame(rgb=picture(0), pts=40 * i, time_base=MS), explanation)
        assert result.scores is explanation.scores
        assert result.embedding is explanation.embedding
        results.append((result.mask, result.mask.copy()))
    assert all(np.array_equal(now, then) for now, then in results)


@pytest.mark.parametrize("half_life", [0.0, -1.0, float("nan")])
def test_refuses_a_half_life_of_nothing(half_life):
    with pytest.raises(UsageError, match="half-life"):
        Smoother(half_life)


@pytest.mark.skipif(len(CLIPS) < 2, reason=f"no DAVIS clips in {DATA}")
def test_finds_the_cuts_between_real_clips_and_no_others():
    is_cut = CutDetector()
    found, expected, index = [], [], 0
    for clip in CLIPS:
        expected.append(index)
        with av.open(str(clip)) as video:
            for number, decoded in enumerate(video.decode(video=0)):
                if number == 20:
                    break
                small = decoded.to_ndarray(format="rgb24")[::2, ::2]
                if is_cut(make_frame(rgb=np.ascontiguousarray(small))):
                    found.append(index)
                index += 1
    assert found == expected[1:]


def test_a_result_is_the_callers_to_change():
    rgb, values = picture(0), [(0, 0.2), (40, 0.8), (80, 0.4)]
    kept, spoiled = run(Smoother(), values, rgb), []
    smoother = Smoother()
    for ms, value in values:
        mask = smoother(make_frame(rgb=rgb, pts=ms, time_base=MS), explain(value)).mask
        spoiled.append(mask.copy())
        mask[:] = 0
    np.testing.assert_array_equal(spoiled, kept)
