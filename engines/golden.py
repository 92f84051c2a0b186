"""The golden frame: what an engine has to answer before it is trusted, and how it is stored.

TensorRT picks kernels on the machine, engines come back from a disk, and drivers change under
them. So every engine, just built or just loaded, runs a known frame whose right answer is kept
beside it. A stored engine is one safetensors blob: the engine's bytes and that answer.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from engines.errors import StoreError
from engines.onnx_passes import EMBEDDING, SCORES, map_name
from engines.parity import Bound, same_class
from nem.explanation import AIMS
from nem.ranks import percentiles

if TYPE_CHECKING:
    from nem.model import NEM

ENGINE, EXPECTED = "engine", "expected."
"""Names in the blob: the engine's bytes, and before each array of the answer."""

MAPS = tuple(map(map_name, AIMS))
RANKING = map_name("ranking")

STRAY = 2
"""How much further than the mean over many frames, which parity bounds, that of one may be off."""


def golden_frames(size: tuple[int, int], count: int = 1) -> NDArray[np.uint8]:
    """Picture-like frames: shading, discs with sharp edges, a little noise.

    Without fine patterns, on which even a right answer at 16 bits is less steady. Made by integer
    arithmetic alone, so that they are the same on every machine.

    Args:
        size: (height, width).
        count: how many; each is another picture.

    Returns:
        RGB uint8 (count, height, width, 3).
    """
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.int64)
    frames = np.empty((count, height, width, 3), np.uint8)
    for index, frame in enumerate(frames):
        # An odd multiplier scatters the pixels' numbers over all 32 bits.
        noise = ((y * width + x + 7919 * index) * 2654435761 % 2**32) >> 30
        for channel in range(3):
            shade = 40 + (x * (3 - channel) + y * (1 + channel)) * 50 // (height + width)
            frame[..., channel] = shade + noise
        for disc in range(3):
            turn = 5 * index + 3 * disc
            dy = y * 16 - height * (3 + turn * 7 % 11)
            dx = x * 16 - width * (3 + turn * 5 % 11)
            inside = dy * dy + dx * dx < (min(size) * (4 - disc)) ** 2
            frame[inside] = [(60 + 70 * (disc + k) + 40 * turn) % 256 for k in range(3)]
    return frames


def reference(model: NEM, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """The right answer for some frames: torch, float32, on the CPU. Needs torch.

    Returns:
        Maps of all aims, scores (where there are classes) and embedding, by the names of
        `engines.onnx_passes`; the target head's map is of the most probable class.
    """
    import torch

    from engines.graph import FrameGraph

    graph = FrameGraph(copy.deepcopy(model).cpu().float()).eval()
    with torch.inference_mode():
        found = [output.numpy() for output in graph(torch.from_numpy(frames))]
    return dict(zip(graph.outputs, found, strict=True))


def decided(answer: Mapping[str, NDArray[Any]]) -> NDArray[np.int64] | None:
    """The classes (N,) that an answer decides on, None without classes.

    An engine is asked for the reference's: it may decide near ties differently, see
    `engines.parity`.
    """
    return answer[SCORES].argmax(1) if SCORES in answer else None


def check(
    found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]], bound: Bound
) -> str | None:
    """Why an engine's answer is not the expected one, in a line; None where it is.

    Largest differences are held to the bound, means to `STRAY` times it. The embedding has no
    bound of its own: as a mask's, in units of its largest value. Maps are compared on frames of
    the same best class, see `same_class`.
    """
    same = same_class(found, expected)
    for name, right in expected.items():
        got = found.get(name)
        if got is None:
            return f"it has no output {name}"
        if got.shape != right.shape:
            return f"{name}: shape {got.shape}, expected {right.shape}"
        if not np.isfinite(got).all():
            return f"{name}: not finite"
        if name in MAPS and same is not None:
            got, right = got[same], right[same]
            if not len(got):
                continue
        for what, off, most in _differences(name, got, right, bound):
            if not off <= most:
                return f"{name}: {what} difference {off:.2g}, allowed {most:.2g}"
    return None


def _differences(
    name: str, got: NDArray[Any], right: NDArray[Any], bound: Bound
) -> list[tuple[str, float, float]]:
    """What differs how much, and how much may."""
    if name == RANKING:
        got, right = percentiles(got), percentiles(right)
    off = np.abs(got - right)
    largest, mean = float(off.max()), float(off.mean())
    if name == RANKING:
        return [("mean rank", mean, STRAY * bound.rank_mean)]
    if name == SCORES:
        return [("largest", largest, bound.score_max)]
    if name == EMBEDDING:
        scale = float(np.abs(right).max()) or 1.0
        return [("largest relative", largest / scale, bound.mask_max)]
    return [("largest", largest, bound.mask_max), ("mean", mean, STRAY * bound.mask_mean)]


@dataclass(frozen=True, slots=True)
class GoldenEngine:
    """What is kept of a built engine.

    Attributes:
        engine: serialized.
        expected: the golden frames' right answer, float32, by output.
    """

    engine: bytes
    expected: dict[str, NDArray[np.float32]]


def pack(stored: GoldenEngine) -> bytes:
    """One blob of it."""
    arrays: dict[str, NDArray[Any]] = {ENGINE: np.frombuffer(stored.engine, np.uint8)}
    for name, value in stored.expected.items():
        arrays[EXPECTED + name] = np.ascontiguousarray(value, np.float32)
    return save(arrays)


def unpack(blob: bytes) -> GoldenEngine:
    """What `pack` packed.

    Raises:
        StoreError: the blob is damaged, or was not made by `pack`.
    """
    try:
        arrays = load(blob)
    except (SafetensorError, ValueError, KeyError) as error:
        raise StoreError(f"it is damaged: {' '.join(str(error).split())[:120]}") from None
    engine = arrays.pop(ENGINE, None)
    if engine is None or engine.dtype != np.uint8 or not engine.size or not arrays:
        raise StoreError("it holds no engine with a golden frame")
    expected = {name.removeprefix(EXPECTED): value for name, value in arrays.items()}
    return GoldenEngine(engine.tobytes(), expected)
