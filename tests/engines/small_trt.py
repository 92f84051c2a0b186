"""A small engine for the tests of the runner, with its right answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.engines.fake_tensorrt import Fakes


def compute(frames: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    """Two outputs that can't be taken for each other, whatever is swapped."""
    total = frames.astype(np.float32).sum((1, 2, 3))
    return [total + target.astype(np.float32), frames[..., 0] / np.float32(2)]


def engine_of(fakes: Fakes, batch: int = 2, *, dynamic: bool = False) -> bytes:
    frames, target = np.zeros((batch, 3, 4, 3), np.uint8), np.zeros(batch, np.int32)
    total, half = compute(frames, target)
    inputs, outputs = {"frames": frames, "target": target}, {"total": total, "half": half}
    return fakes.add(compute, inputs, outputs, dynamic=dynamic)


def some(seed: int, batch: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (batch, 3, 4, 3), dtype=np.uint8)
    return {"frames": frames, "target": random.integers(0, 9, batch).astype(np.int32)}


def assert_right(found: dict[str, Any], given: dict[str, np.ndarray]) -> None:
    total, half = compute(given["frames"], given["target"])
    np.testing.assert_array_equal(found["total"], total)
    np.testing.assert_array_equal(found["half"], half)
