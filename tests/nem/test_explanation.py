"""One result for many pictures, and many for one each."""

from __future__ import annotations

import numpy as np

from nem.explanation import Explanation


def test_each_picture_can_be_had_by_itself() -> None:
    draw = np.random.default_rng(0)
    whole = Explanation(
        mask=draw.random((3, 4, 4), np.float32),
        scores=draw.random((3, 2), np.float32),
        embedding=draw.random((3, 5), np.float32),
        names=("a", "b"),
        seconds=0.6,
        method="nemt",
        target=np.array([1, 0, 1]),
        raw=draw.random((3, 4, 4), np.float32),
    )
    parts = whole.split()
    assert len(parts) == 3
    for name in ("mask", "scores", "embedding", "target", "raw"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    assert {(part.method, part.names, part.uncertainty) for part in parts} == {
        ("nemt", ("a", "b"), None)
    }
    assert sum(part.seconds for part in parts) == whole.seconds
    assert [part.top(1)[0][0] for part in parts] == [whole.top(1, i)[0][0] for i in range(3)]
    assert whole.top(0) == whole.top(-1) == []


def test_without_classes_there_is_nothing_of_them() -> None:
    whole = Explanation(np.zeros((2, 4, 4), np.float32), None, np.zeros((2, 5), np.float32), (), 1)
    assert [(part.scores, part.target) for part in whole.split()] == [(None, None)] * 2
