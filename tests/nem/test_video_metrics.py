import cv2
import numpy as np
import pytest

from nem.errors import ArgumentError
from nem.video_metrics import mean_change, motion, warp, warped_error

SIZE = 96


def scene(shifts, seed=0):
    """A textured plane that moves by whole pixels: frames, and a mask that is part of it."""
    rng = np.random.default_rng(seed)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8), (0, 0), 2)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    part = np.zeros((200, 200), np.float32)
    cv2.circle(part, (100, 100), 20, 1.0, -1)
    part = cv2.GaussianBlur(part, (0, 0), 3)
    cut = [(slice(52 - dy, 52 - dy + SIZE), slice(52 - dx, 52 - dx + SIZE)) for dx, dy in shifts]
    return np.stack([wide[c] for c in cut]), np.stack([part[c] for c in cut])


def test_change_is_the_mean_absolute_difference():
    masks = np.zeros((3, 4, 4), np.float32)
    masks[1, 0] = 1
    masks[2] = 1
    assert mean_change(masks).tolist() == [0.25, 0.75]
    assert mean_change(masks[:1]).tolist() == []


def test_a_mask_that_moves_with_the_video_has_no_warped_error():
    frames, masks = scene([(0, 0), (3, 1), (6, 2), (6, 2)])
    change = mean_change(masks)
    assert (change[:2] > 0.02).all()
    assert change[2] == 0
    errors = warped_error(masks, frames)
    assert (errors[:2] < 0.15 * change[:2]).all()
    assert errors[2] < 1e-3


def test_a_mask_that_stays_behind_has_one():
    frames, masks = scene([(0, 0), (5, 0)])
    stuck = masks[[0, 0]]
    assert mean_change(stuck).tolist() == [0]
    assert warped_error(stuck, frames)[0] > 0.02


def test_flow_points_back_to_the_last_frame():
    frames, masks = scene([(0, 0), (4, -2)])
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    moved = motion(*grey)
    middle = moved.flow[20:-20, 20:-20]
    np.testing.assert_allclose(np.median(middle, (0, 1)), [-4, 2], atol=0.1)
    np.testing.assert_allclose(warp(masks[0], moved.flow)[20:-20, 20:-20],
                               masks[1, 20:-20, 20:-20], atol=0.15)  # fmt: skip
    # What came in at the edges was not in the last frame.
    assert moved.seen[20:-20, 20:-20].mean() > 0.97
    assert not moved.seen[:, :3].any()
    assert not moved.seen[-1:].any()


def test_what_was_uncovered_does_not_count():
    """A square moves over a still plane; behind it appears what was not to be seen before."""
    frames, _ = scene([(0, 0), (0, 0)])
    square, _ = scene([(0, 0)], seed=1)
    frames = frames.copy()
    frames[0, 24:72, 24:72] = square[0, :48, :48]
    frames[1, 24:72, 32:80] = square[0, :48, :48]
    seen = motion(*(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames)).seen
    uncovered, moved, still = seen[28:68, 24:32], seen[28:68, 36:72], seen[:, 84:]
    assert uncovered.mean() < 0.2 < 0.9 < min(moved.mean(), still.mean())
    masks = np.stack([np.zeros_like(seen), ~seen]).astype(np.float32)
    assert warped_error(masks, frames).tolist() == [0]


def test_a_cut_with_nothing_in_common_is_left_out(monkeypatch):
    frames, masks = scene([(0, 0), (0, 0)])
    far = np.full((SIZE, SIZE, 2), 1000, np.float32)
    monkeypatch.setattr("nem.video_metrics._flow", lambda of, to: far)
    assert np.isnan(warped_error(masks, frames)).all()


def test_what_is_refused():
    frames, masks = scene([(0, 0), (0, 0)])
    with pytest.raises(ArgumentError, match="one per frame"):
        mean_change(masks[0])
    with pytest.raises(ArgumentError, match="resize them"):
        warped_error(masks[:, ::2], frames)
    with pytest.raises(ArgumentError, match="float32"):
        warped_error(masks, frames.astype(np.float32))
    for small in (np.s_[:, :15], np.s_[:, :, :8]):  # the first would end the process
        with pytest.raises(ArgumentError, match="from 16 x 16"):
            warped_error(masks[small], frames[small])
    assert np.isfinite(warped_error(masks[:, :16, :16], frames[:, :16, :16])).all()
