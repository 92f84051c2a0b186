"""What the engines share that are built for a batch: pieces, batches that fit, arrays on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engines.base import Frames
from engines.cuda_memory import DeviceArray, DeviceMemoryError, as_device_array
from engines.errors import FrameError, OptionError

T = TypeVar("T")


class DeviceArrays(NamedTuple):
    """What `run_on_device` of an engine gives for N frames: memory of the engine, on the GPU.

    Attributes:
        map: of the asked aim, float32 (N, S, S); of `ranking` as it is, not as percentiles.
        scores: class probabilities, float32 (N, C), or None without classes.
        embedding: float32 (N, D).
    """

    map: DeviceArray
    scores: DeviceArray | None
    embedding: DeviceArray


def check_on_device(frames: Any, frame_size: tuple[int, int], batch: int) -> tuple[int, int | None]:
    """How many frames are there, and the stream they are made on, see `as_device_array`.

    Args:
        frames: what the caller gave.
        frame_size: (height, width) that is taken.
        batch: the most frames.

    Raises:
        FrameError: not RGB uint8 (N, *frame_size, 3) on a GPU with N from 1 to `batch`.
    """
    array, stream = as_device_array(frames, "frames")
    count = array.shape[0] if array.shape else 0
    right = (count, *frame_size, 3)
    if array.dtype != np.uint8 or array.shape != right or not 1 <= count <= batch:
        raise FrameError(
            f"frames: expected RGB uint8 (N, {right[1]}, {right[2]}, 3) with N from 1 to {batch}, "
            f"got {array.dtype} {array.shape}"
        )
    return count, stream


def check_batch(engine: str, batch: int, calls: int = 1) -> None:
    """Refuse a batch that is none, or such a number of calls at the same time.

    Raises:
        OptionError: names the engine.
    """
    if not (isinstance(batch, Integral) and batch >= 1):
        raise OptionError(
            f"engine {engine}: batch {batch!r}: frames per call, from 1, a whole number"
        )
    if not (isinstance(calls, Integral) and calls >= 1):
        raise OptionError(
            f"engine {engine}: calls {calls!r}: at the same time, from 1, a whole number"
        )


def run_pieces(
    run: Callable[[Frames, NDArray[np.int64] | None], dict[str, NDArray[Any]]],
    frames: Frames,
    classes: NDArray[np.int64] | None,
    batch: int,
) -> dict[str, NDArray[Any]]:
    """Outputs of any number of frames, at most `batch` at once.

    Args:
        run: of up to `batch` frames and their classes; its arrays belong to the caller.
        frames: (N, H, W, 3).
        classes: (N,), or None.
        batch: the most frames of a piece.
    """
    parts = []
    for start in range(0, len(frames), batch):
        piece = slice(start, start + batch)
        parts.append(run(frames[piece], None if classes is None else classes[piece]))
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def filled(frames: Frames, batch: int) -> Frames:
    """Frames made `batch` many by the last one."""
    missing = batch - len(frames)
    return np.concatenate([frames, frames[-1:].repeat(missing, axis=0)]) if missing else frames


def fill_classes(
    classes: NDArray[Any] | None, batch: int, dtype: DTypeLike = np.int32
) -> NDArray[Any]:
    """What a graph for `batch` frames takes: the classes (N,), then -1, the most probable ones.

    None is -1 for all.
    """
    asked = np.full(batch, -1, dtype)
    if classes is not None:
        asked[: len(classes)] = classes
    return asked


def fitting_batch(
    engine: str, batch: int, attempt: Callable[[int], T], say: Callable[[str], None]
) -> tuple[int, T]:
    """The largest batch the GPU's memory holds: `batch`, or half of it, and so on.

    Args:
        engine: its name, for the line that tells.
        batch: frames at once, as asked for.
        attempt: opens for so many.
        say: told in a line when it is not what was asked for.

    Returns:
        Frames at once, and what was opened.

    Raises:
        DeviceMemoryError: not even one frame fits.
    """
    while True:
        try:
            return batch, attempt(batch)
        except DeviceMemoryError as error:
            if batch == 1:
                raise
            say(
                f"engine {engine}: batch {batch} does not fit ({error}); going on with batch "
                f"{batch // 2}, which asked for spares this attempt"
            )
            batch //= 2
