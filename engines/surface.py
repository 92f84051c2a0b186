"""A video picture that stays on the GPU between a decoder and an encoder.

It is made small and drawn on by the arithmetic of `stream.frame` and `stream.paint`, to a level.
All work goes to the device's default stream, on which FFmpeg's does in torch's context: each step
finds the one before done. Any device of torch will do, so that tests need no GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from engines.errors import EngineError
from engines.resizing import resize_planes, resize_weights
from engines.torch_devices import torch_told
from nem.errors import first_line

PITCH = 512
"""Bytes between rows are a multiple, as of FFmpeg's own frames, which are aligned as textures."""
CURE = "decode by the CPU (--decode cpu)"
FIRST = torch.device("cuda", 0)
"""The GPU that FFmpeg decodes and encodes on."""


def torch_trouble() -> str | None:
    """Why torch can't use the first GPU, or None."""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    try:
        with torchs_context(FIRST):
            return None
    except RuntimeError as error:
        return f"torch can't use the GPU ({first_line(error)})"


@contextmanager
def torchs_context(device: torch.device = FIRST) -> Iterator[None]:
    """Make torch's context on a GPU this thread's current one, for FFmpeg to take it.

    Whatever used the thread before may have left another GPU's there, as an engine's.
    """
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        torch.zeros(1, device=device)  # the first call that needs a context makes it current
        yield


class Surface:
    """A picture in NVIDIA's layout, NV12: luma, and below it U and V side by side.

    It is one piece of memory: NVENC is told of its beginning and takes U and V for what follows.

    Args:
        height: even, in pixels.
        width: even, in pixels.
        device: where.

    Attributes:
        y: luma, uint8 (H, W).
        uv: uint8 (H / 2, W / 2, 2).

    Raises:
        DeviceMemoryError: no memory left there, as of all methods.
        EngineError: the device failed, as of all methods.
    """

    def __init__(self, height: int, width: int, device: torch.device) -> None:
        with _work(device, "making a picture"):
            pitch = -(-width // PITCH) * PITCH
            memory = torch.empty(height * 3 // 2, pitch, dtype=torch.uint8, device=device)
        self.y = memory[:height, :width]
        self.uv = memory[height:, :width].view(height // 2, width // 2, 2)

    @classmethod
    def take(cls, planes: Sequence[Any]) -> Self:
        """Copy a picture on its device.

        Args:
            planes: luma (H, W) and U and V (H / 2, W / 2, 2), uint8, with `__dlpack__`.
        """
        with _handing_over():
            # As capsules: torch would ask for its stream, which PyAV refuses, as it is the same.
            y, uv = (from_dlpack(plane.__dlpack__()) for plane in planes)
        new = cls(y.shape[0], y.shape[1], y.device)
        with _work(y.device, "taking a picture over"):
            new.y.copy_(y)
            new.uv.copy_(uv)
        return new

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.y.shape[0], self.y.shape[1]

    def small(self, size: tuple[int, int]) -> list[NDArray[np.uint8]]:
        """Y, U and V, all resized to `size` = (height, width), in host memory."""
        with _work(self.y.device, "making a picture small"):
            planes = _resized(self.y[None], size), _resized(self.uv.permute(2, 0, 1), size)
            return list(_level(torch.cat(planes)).to(torch.uint8).cpu().numpy())

    def tinted(
        self, levels: NDArray[np.uint8], tables: NDArray[np.uint8], *, squares: bool = False
    ) -> Surface:
        """A new picture, blended with the colour of each pixel's mask level.

        Args:
            levels: uint8 (S, S), stretched over the whole picture.
            tables: uint8 (4, 256), by level: share of the picture to keep (255 is all), and Y, U
                and V to add.
            squares: 2x2 pixels share a level as they share their colour; for even sides.
        """
        device = self.y.device
        new = Surface(*self.size, device)
        with _work(device, "drawing"):
            table, index = (torch.from_numpy(array).to(device) for array in (tables, levels))
            tints = table[:, index.int()].float()[None]
            tints[:, 0] /= 255
            half = self.uv.shape[0], self.uv.shape[1]
            keep, y, u, v = resize_planes(tints, half)[0]
            new.uv.copy_(_blend(self.uv, keep[..., None], torch.stack([u, v], -1)))
            if squares:
                keep, y = _squares(keep), _squares(y)
            else:
                keep, y = resize_planes(tints[:, :2], self.size)[0]
            new.y.copy_(_blend(self.y, keep, y))
        return new

    def paste(self, y: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8]) -> None:
        """Overwrite the top left corner by a picture of even sides, planes as of a frame."""
        device = self.y.device
        rows, columns = y.shape
        with _work(device, "drawing"):
            self.y[:rows, :columns] = torch.from_numpy(y).to(device)
            uv = torch.from_numpy(np.stack([u, v], axis=-1))
            self.uv[: rows // 2, : columns // 2] = uv.to(device)

    def planes(self, steps: tuple[int, int] = (1, 1)) -> list[NDArray[np.uint8]]:
        """Y, U and V in host memory.

        Args:
            steps: take every so manyth row and column of luma, of U and V.
        """
        device = self.y.device
        with _work(device, "bringing a picture down"):
            luma, chroma = steps
            found = [self.y[::luma, ::luma]]
            found += [self.uv[::chroma, ::chroma, i] for i in range(2)]
            # Pinned memory, in which the copy needs no second one on the way.
            pinned = device.type == "cuda"
            down = [
                torch.empty(plane.shape, dtype=torch.uint8, device="cpu", pin_memory=pinned)
                for plane in found
            ]
            for plane, target in zip(found, down, strict=True):
                target.copy_(plane, non_blocking=True)
            self._finish()
            return [plane.numpy() for plane in down]

    @contextmanager
    def complete(self) -> Iterator[None]:
        """Wait until the picture is complete; within, FFmpeg finds torch's context there."""
        device = self.y.device
        with ExitStack() as held:
            with _told(device, "completing a picture"):
                held.enter_context(torchs_context(device))
                self._finish()
            held.enter_context(_handing_over())
            yield

    def _finish(self) -> None:
        if self.y.device.type == "cuda":
            torch.cuda.default_stream(self.y.device).synchronize()


def _squares(values: Tensor) -> Tensor:
    """Each of (H, W) four times, as a square."""
    height, width = values.shape
    twice = values[:, None, :, None].expand(height, 2, width, 2)
    return twice.reshape(2 * height, 2 * width)


def _resized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Planes (C, H, W) resized as `resize_planes` does, the weights kept."""
    down = _weights(planes.shape[1], size[0], planes.device)
    across = _weights(planes.shape[2], size[1], planes.device)
    return down @ (planes.float() @ across.T)


@lru_cache(maxsize=8)  # small pictures of one size: two for luma, two for colour
def _weights(length: int, size: int, device: torch.device) -> Tensor:
    return resize_weights(length, size, device)


def _blend(plane: Tensor, keep: Tensor, add: Tensor) -> Tensor:
    return _level(torch.addcmul(add, plane, keep))


def _level(values: Tensor) -> Tensor:
    """Whole levels, in place: a picture has many pixels, and few passes over them are quick."""
    return values.round_().clamp_(0, 255)


@contextmanager
def _work(device: torch.device, what: str) -> Iterator[None]:
    """Work on a device: on its default stream, whichever is the caller's; failures in a line."""
    with _told(device, what):
        if device.type != "cuda":
            yield
            return
        with torch.cuda.stream(torch.cuda.default_stream(device)):
            yield


@contextmanager
def _handing_over() -> Iterator[None]:
    """What torch and FFmpeg refuse of each other's pictures, in a line."""
    try:
        yield
    except (BufferError, TypeError, RuntimeError) as error:
        raise EngineError(
            f"pictures on the GPU: not handed over: {first_line(error)}; {CURE}"
        ) from error


def _told(device: torch.device, what: str) -> AbstractContextManager[None]:
    return torch_told("pictures on the GPU", device, what, CURE)
