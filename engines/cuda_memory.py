"""The GPU's memory, streams and graphs through `cuda.bindings.runtime`; every status is checked."""

from __future__ import annotations

import ctypes
import importlib
import logging
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineError, EngineUnavailable, FrameError

OUT_OF_MEMORY = "cudaErrorMemoryAllocation"

LOST = frozenset(
    f"cudaError{name}"
    for name in (
        "Assert",
        "ContextIsDestroyed",
        "Contained",
        "DevicesUnavailable",
        "ECCUncorrectable",
        "ExternalDevice",
        "HardwareStackError",
        "IllegalAddress",
        "IllegalInstruction",
        "InvalidAddressSpace",
        "InvalidPc",
        "LaunchFailure",
        "LaunchTimeout",
        "MisalignedAddress",
        "MpsClientTerminated",
        "MpsRpcFailure",
        "NvlinkUncorrectable",
        "TensorMemoryLeak",
        "Unknown",
    )
)
"""Errors after which a process can't use the GPU any more: all later calls fail, too."""

LEGACY_STREAM = 1
"""Handle of the legacy default stream, on which a caller works who tells no stream."""

_log = logging.getLogger(__name__)


class CudaError(EngineError):
    """A CUDA call failed; the message names what was being done and the CUDA error."""


class DeviceMemoryError(CudaError):
    """The GPU has too little free memory."""


class DeviceLostError(CudaError):
    """The GPU failed in a way that this process can't recover from."""


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A C-contiguous array on a GPU, as `__cuda_array_interface__` describes it. Owns nothing.

    Attributes:
        pointer: address of its first byte on the GPU.
        shape: of the array.
        dtype: of its elements.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "stream": None,  # whoever hands it out has waited for it
            "version": 3,
        }

    def first(self, count: int) -> DeviceArray:
        """The first `count` entries along the first axis."""
        return DeviceArray(self.pointer, (count, *self.shape[1:]), self.dtype)


def as_device_array(value: Any, name: str) -> tuple[DeviceArray, int | None]:
    """What an object with `__cuda_array_interface__` describes, and the stream to wait for.

    An object that can't tell its stream (interface below version 3) is taken to have been made on
    the legacy default stream, a tensor of torch on torch's current one.

    Raises:
        FrameError: it is not on a GPU, or not C-contiguous.
    """
    facts = getattr(value, "__cuda_array_interface__", None)
    if facts is None:
        raise FrameError(
            f"{name}: expected an array on the GPU (with __cuda_array_interface__), "
            f"got {type(value).__name__}"
        )
    shape, dtype = tuple(facts["shape"]), np.dtype(facts["typestr"])
    array = DeviceArray(int(facts["data"][0]), shape, dtype)
    steps = [math.prod(shape[i + 1 :]) * dtype.itemsize for i in range(len(shape))]
    strides = facts.get("strides")
    if strides is not None and any(
        length > 1 and step != found
        for length, step, found in zip(shape, steps, strides, strict=True)
    ):
        raise FrameError(f"{name}: expected a C-contiguous array, got strides {tuple(strides)}")
    return array, facts.get("stream") if facts["version"] >= 3 else _stream_of(value)


def _stream_of(value: Any) -> int:
    torch = sys.modules.get("torch")  # whoever made a tensor has loaded it
    if torch is None or not isinstance(value, torch.Tensor):
        return LEGACY_STREAM
    return int(torch.cuda.current_stream(value.device).cuda_stream) or LEGACY_STREAM


class Cuda:
    """One GPU, and all that was made on it here; `close` frees that, the last first.

    All other methods belong inside `current`.

    Args:
        device: number of the GPU.

    Raises:
        EngineUnavailable: cuda-bindings is not installed, or there is no driver.
        CudaError: there is no such GPU, or it can't be used.
    """

    def __init__(self, device: int) -> None:
        try:
            self._cuda = importlib.import_module("cuda.bindings.runtime")
            self._driver = importlib.import_module("cuda.bindings.driver")
        except ImportError:
            raise EngineUnavailable(
                "cuda-bindings is not installed: pip install 'nem-stream[tensorrt]'"
            ) from None
        self.device = device
        self.held = ExitStack()
        try:
            with self.current():
                pass
        except RuntimeError as error:  # of cuda-bindings, where there is no driver to be loaded
            raise EngineUnavailable(f"cuda:{device}: no NVIDIA driver here: {error}") from None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this GPU the calling thread's, and after that the one which was.

        Of a thread that used none nothing is put back: setting the first GPU would take memory on
        it.
        """
        status, context = self._driver.cuCtxGetCurrent()
        self._ask(self._cuda.cudaSetDevice(self.device), f"using cuda:{self.device}")
        try:
            yield
        finally:
            if not int(status) and int(context):
                self._driver.cuCtxSetCurrent(context)

    def stream(self) -> Any:
        """A stream of its own that does not wait for the default stream."""
        made = self._ask(
            self._cuda.cudaStreamCreateWithFlags(self._cuda.cudaStreamNonBlocking),
            "making a stream",
        )
        self._later(self._cuda.cudaStreamDestroy, made)
        return made

    def event(self) -> Any:
        """An event for `wait`."""
        made = self._ask(
            self._cuda.cudaEventCreateWithFlags(self._cuda.cudaEventDisableTiming),
            "making an event",
        )
        self._later(self._cuda.cudaEventDestroy, made)
        return made

    def on_device(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """Memory on the GPU, not initialised. Raises DeviceMemoryError."""
        size = max(1, math.prod(shape) * dtype.itemsize)
        pointer = self._ask(self._cuda.cudaMalloc(size), f"taking {size} bytes of GPU memory")
        self._later(self._cuda.cudaFree, pointer)
        return DeviceArray(int(pointer), shape, dtype)

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Page-locked host memory, filled with zeros; gone after `close`."""
        used = math.prod(shape) * dtype.itemsize
        size = max(1, used)
        pointer = self._ask(
            self._cuda.cudaMallocHost(size), f"taking {size} bytes of page-locked memory"
        )
        self._later(self._cuda.cudaFreeHost, pointer)
        memory = (ctypes.c_uint8 * size).from_address(int(pointer))
        array: NDArray[Any] = np.ctypeslib.as_array(memory)[:used].view(dtype).reshape(shape)
        array[...] = 0
        return array

    def up(self, to: DeviceArray, source: NDArray[Any], stream: Any) -> None:
        """Copy page-locked memory to the GPU when the stream comes to it."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(to.pointer, source.ctypes.data, to.nbytes, kind, stream)

    def down(self, to: NDArray[Any], source: DeviceArray, stream: Any) -> None:
        """Copy from the GPU to page-locked memory when the stream comes to it."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(to.ctypes.data, source.pointer, source.nbytes, kind, stream)

    def across(self, to: DeviceArray, source: DeviceArray, stream: Any) -> None:
        """Copy the whole source on the GPU when the stream comes to it."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._copy(to.pointer, source.pointer, source.nbytes, kind, stream)

    def wait(self, stream: Any, other: int, event: Any) -> None:
        """Let `stream` wait for what was put on the stream of handle `other` so far."""
        self._ask(self._cuda.cudaEventRecord(event, other), "marking the caller's stream")
        self._ask(self._cuda.cudaStreamWaitEvent(stream, event, 0), "waiting for the caller")

    def synchronize(self, stream: Any) -> None:
        """Wait until the stream is done. Errors of its work are raised here."""
        self._ask(self._cuda.cudaStreamSynchronize(stream), "running")

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        """A graph of what `work` puts on the stream, to be launched again and again.

        Only this thread is held to the rules of capturing; others may use the GPU meanwhile, but
        for waiting for all of it: see `engines.alone`.
        """
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._ask(self._cuda.cudaStreamBeginCapture(stream, mode), "beginning a CUDA graph")
        try:
            work()
        except BaseException:
            # Or the stream stays in that mode.
            _, graph = self._cuda.cudaStreamEndCapture(stream)
            if graph is not None and int(graph):
                self._cuda.cudaGraphDestroy(graph)
            raise
        graph = self._ask(self._cuda.cudaStreamEndCapture(stream), "ending a CUDA graph")
        try:
            made = self._ask(self._cuda.cudaGraphInstantiate(graph, 0), "making a CUDA graph")
        finally:
            self._cuda.cudaGraphDestroy(graph)
        self._later(self._cuda.cudaGraphExecDestroy, made)
        return made

    def launch(self, graph: Any, stream: Any) -> None:
        """Put a captured graph on the stream."""
        self._ask(self._cuda.cudaGraphLaunch(graph, stream), "launching a CUDA graph")

    def close(self) -> None:
        """Free all of it. On a lost GPU nothing can be freed."""
        with self.current():
            self.held.close()

    def _copy(self, to: int, source: int, size: int, kind: Any, stream: Any) -> None:
        self._ask(self._cuda.cudaMemcpyAsync(to, source, size, kind, stream), "copying")

    def _later(self, free: Callable[[Any], tuple[Any, ...]], what: Any) -> None:
        def release() -> None:
            (status,) = free(what)
            if int(status):
                _log.debug("%s: %s", free.__name__, status.name)

        self.held.callback(release)

    def _ask(self, answer: tuple[Any, ...], doing: str) -> Any:
        """The value of a CUDA call, whose first part is its status."""
        status, *values = answer
        if not int(status):
            return values[0] if values else None
        self._cuda.cudaGetLastError()  # or the next one who asks takes it for an error of his own
        _, text = self._cuda.cudaGetErrorString(status)
        line = f"cuda:{self.device}: {doing}: {status.name} ({text.decode(errors='replace')})"
        if status.name == OUT_OF_MEMORY:
            raise DeviceMemoryError(f"{line}; close other programs that use the GPU")
        if status.name in LOST:
            raise DeviceLostError(f"{line}; end this program and start it anew")
        raise CudaError(line)
