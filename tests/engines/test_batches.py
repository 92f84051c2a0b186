"""Pieces of a batch, and batches that fit."""

from __future__ import annotations

import numpy as np
import pytest

from engines.batches import check_batch, check_on_device, fitting_batch, run_pieces
from engines.cuda_memory import DeviceMemoryError
from engines.errors import FrameError, OptionError


class OnGpu:
    """Something that says it lies on a GPU."""

    def __init__(self, shape: tuple[int, ...], kind: str = "|u1") -> None:
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": kind, "data": (4096, False), "version": 3, "stream": 7,
        }  # fmt: skip


@pytest.mark.parametrize(("count", "pieces"), [(1, [1]), (3, [3]), (7, [3, 3, 1])])
def test_any_number_of_frames_is_run_in_pieces(count: int, pieces: list[int]) -> None:
    frames = np.arange(count, dtype=np.uint8)[:, None, None, None]
    seen = []

    def run(some: np.ndarray, asked: np.ndarray | None) -> dict[str, np.ndarray]:
        seen.append(len(some))
        assert asked is not None
        return {"a": some[:, 0, 0, 0] + 1, "b": asked * 2}

    found = run_pieces(run, frames, np.arange(count), 3)
    assert seen == pieces
    np.testing.assert_array_equal(found["a"], np.arange(count) + 1)
    np.testing.assert_array_equal(found["b"], np.arange(count) * 2)
    assert run_pieces(lambda some, asked: {"none": np.array([asked is None])}, frames[:1], None, 3)


@pytest.mark.parametrize("batch", [0, -1, 2.5, "2", None])
def test_a_batch_is_a_whole_number_from_1(batch: object) -> None:
    check_batch("tensorrt", np.int64(2))
    with pytest.raises(OptionError, match=r"tensorrt: batch .*, from 1, a whole number"):
        check_batch("tensorrt", batch)


def test_a_batch_is_halved_until_it_fits() -> None:
    said: list[str] = []

    def attempt(batch: int) -> str:
        if batch > 2:
            raise DeviceMemoryError("9 GB asked for")
        return f"for {batch}"

    assert fitting_batch("tensorrt", 8, attempt, said.append) == (2, "for 2")
    assert [line.split(" does")[0] for line in said] == [
        "engine tensorrt: batch 8", "engine tensorrt: batch 4",
    ]  # fmt: skip

    def never(batch: int) -> str:
        raise DeviceMemoryError("no byte left")

    with pytest.raises(DeviceMemoryError, match="no byte left"):
        fitting_batch("tensorrt", 2, never, said.append)


def test_frames_on_a_gpu_are_checked_by_their_description() -> None:
    assert check_on_device(OnGpu((2, 4, 6, 3)), (4, 6), 2) == (2, 7)
    for wrong in (
        OnGpu((0, 4, 6, 3)), OnGpu((3, 4, 6, 3)), OnGpu((2, 6, 4, 3)),
        OnGpu((2, 4, 6, 3), "<f4"), OnGpu(()),
    ):  # fmt: skip
        with pytest.raises(FrameError, match=r"\(N, 4, 6, 3\) with N from 1 to 2, got"):
            check_on_device(wrong, (4, 6), 2)
