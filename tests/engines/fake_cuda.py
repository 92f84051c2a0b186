"""The part of `cuda.bindings.runtime` that is used, on host memory, as strict as the real one.

A GPU pointer is the address of a host buffer. What is put on a stream is done when the stream is
waited for, not before; while a stream is capturing it is only recorded. Copies beyond the ends of
an allocation, calls on a thread that has chosen no GPU, and anything after a fatal error fail.
"""

# ruff: noqa: N801, N802, N815 the names are those of CUDA

from __future__ import annotations

import ctypes
import enum
import threading
from collections import Counter
from types import ModuleType
from typing import Any


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


OK = cudaError_t.cudaSuccess
INVALID = cudaError_t.cudaErrorInvalidValue
HANDLE = cudaError_t.cudaErrorInvalidResourceHandle


class Handle:
    """A stream, graph or event: an object that `int` turns into its handle."""

    count = 1000

    def __init__(self) -> None:
        Handle.count += 1
        self.handle = Handle.count
        self.work: list[Any] = []
        self.capturing: list[Any] | None = None

    def __int__(self) -> int:
        return self.handle


class FakeCuda(ModuleType):
    """A module to be put in the place of the real one.

    Attributes:
        calls: how often each function was called.
        fail: name of a function to the error that its next call gives.
        memory: bytes of the GPU.
        lost: the fatal error that has happened.
        last: the error that the next one who asks for the last one gets.
    """

    cudaError_t, cudaMemcpyKind = cudaError_t, cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaStreamNonBlocking, cudaEventDisableTiming = 1, 2

    def __init__(self, devices: int = 1, memory: int = 1 << 30) -> None:
        super().__init__("cuda.bindings.runtime")
        self.calls: Counter[str] = Counter()
        self.fail: dict[str, cudaError_t] = {}
        self.devices, self.memory = devices, memory
        self.lost: cudaError_t | None = None
        self.last = OK
        self.on_device: dict[int, Any] = {}
        self.on_host: dict[int, Any] = {}
        self.handles: dict[int, Handle] = {}
        self.modes: list[int] = []
        self.waits: list[int] = []
        self.copied: Counter[str] = Counter()
        self._thread = threading.local()

    # What the tests and the fake TensorRT ask and do.

    def used(self) -> int:
        return sum(map(len, list(self.on_device.values())))

    def leaks(self) -> int:
        return len(self.on_device) + len(self.on_host) + len(self.handles)

    def put(self, stream: int, work: Any) -> bool:
        """Put work on a stream, as TensorRT does; False where that fails."""
        handle = self.handles.get(stream)
        if handle is None or self._begin("put") != OK:
            return False
        (handle.work if handle.capturing is None else handle.capturing).append(work)
        return True

    def inside(self, pointer: int, size: int, where: dict[int, Any]) -> bool:
        return any(
            start <= pointer and pointer + size <= start + len(memory)
            for start, memory in list(where.items())
        )

    # The functions.

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        if not 0 <= device < self.devices:
            return (cudaError_t.cudaErrorInvalidDevice,)
        self._thread.device = device
        return (self._begin("cudaSetDevice"),)

    # Of cuda.bindings.driver: the context of a GPU is its number and one.

    def cuCtxGetCurrent(self) -> tuple[Any, ...]:
        return OK, getattr(self._thread, "device", -1) + 1

    def cuCtxSetCurrent(self, context: int) -> tuple[Any, ...]:
        self._thread.device = context - 1
        return (OK,)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._take("cudaMalloc", size, self.on_device, self.memory)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        return self._take("cudaMallocHost", size, self.on_host, 1 << 40)

    def cudaFree(self, pointer: int) -> tuple[Any, ...]:
        return self._drop("cudaFree", pointer, self.on_device)

    def cudaFreeHost(self, pointer: int) -> tuple[Any, ...]:
        return self._drop("cudaFreeHost", pointer, self.on_host)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        return self._make("cudaStreamCreateWithFlags", flags == self.cudaStreamNonBlocking)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        return self._make("cudaEventCreateWithFlags", flags == self.cudaEventDisableTiming)

    def cudaStreamDestroy(self, stream: Handle) -> tuple[Any, ...]:
        return self._drop("cudaStreamDestroy", int(stream), self.handles)

    def cudaEventDestroy(self, event: Handle) -> tuple[Any, ...]:
        return self._drop("cudaEventDestroy", int(event), self.handles)

    def cudaGraphDestroy(self, graph: Handle) -> tuple[Any, ...]:
        return self._drop("cudaGraphDestroy", int(graph), self.handles)

    def cudaGraphExecDestroy(self, graph: Handle) -> tuple[Any, ...]:
        return self._drop("cudaGraphExecDestroy", int(graph), self.handles)

    def cudaEventRecord(self, event: Handle, stream: Any) -> tuple[Any, ...]:
        self.waits.append(int(stream))
        return (self._begin("cudaEventRecord"),)

    def cudaStreamWaitEvent(self, stream: Handle, event: Handle, flags: int) -> tuple[Any, ...]:
        return (self._begin("cudaStreamWaitEvent"),)

    def cudaMemcpyAsync(
        self, to: int, source: int, size: int, kind: cudaMemcpyKind, stream: Any
    ) -> tuple[Any, ...]:
        status = self._begin("cudaMemcpyAsync")
        if status != OK:
            return (status,)
        spaces = {1: (self.on_device, self.on_host), 2: (self.on_host, self.on_device)}
        target, origin = spaces.get(int(kind), (self.on_device, self.on_device))
        if not (self.inside(to, size, target) and self.inside(source, size, origin)):
            return (INVALID,)
        self.copied[kind.name] += size
        done = self.put(int(stream), lambda: ctypes.memmove(to, source, size))
        return (OK if done else HANDLE,)

    def cudaStreamSynchronize(self, stream: Handle) -> tuple[Any, ...]:
        if stream.capturing is not None:
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        status = self._begin("cudaStreamSynchronize")
        while stream.work and status == OK:
            stream.work.pop(0)()
        return (self.lost or status,)

    def cudaStreamBeginCapture(self, stream: Handle, mode: int) -> tuple[Any, ...]:
        status = self._begin("cudaStreamBeginCapture")
        if status == OK:
            self.modes.append(mode)
            stream.capturing = []
        return (status,)

    def cudaStreamEndCapture(self, stream: Handle) -> tuple[Any, ...]:
        recorded, stream.capturing = stream.capturing, None
        status, graph = self._make("cudaStreamEndCapture", recorded is not None)
        if graph is not None:
            graph.work = recorded
        return status, graph

    def cudaGraphInstantiate(self, graph: Handle, flags: int) -> tuple[Any, ...]:
        status, made = self._make("cudaGraphInstantiate", flags == 0)
        if made is not None:
            made.work = list(graph.work)
        return status, made

    def cudaGraphLaunch(self, graph: Handle, stream: Handle) -> tuple[Any, ...]:
        status = self._begin("cudaGraphLaunch")
        if status == OK and int(graph) not in self.handles:
            status = HANDLE
        if status == OK:
            stream.work += graph.work
        return (status,)

    def cudaGetLastError(self) -> tuple[Any, ...]:
        last, self.last = self.last, OK
        return (self.lost or last,)

    def cudaGetErrorString(self, status: cudaError_t) -> tuple[Any, ...]:
        return OK, status.name.removeprefix("cudaError").encode()

    # How they do it.

    def _begin(self, name: str) -> cudaError_t:
        """Count a call; its status before it does anything."""
        self.calls[name] += 1
        if getattr(self._thread, "device", None) is None:
            return cudaError_t.cudaErrorInvalidDevice
        if self.lost is None and self.fail.get(name) == cudaError_t.cudaErrorIllegalAddress:
            self.lost = cudaError_t.cudaErrorIllegalAddress
        status = self.lost or self.fail.pop(name, OK)
        self.last = status or self.last
        return status

    def _make(self, name: str, right: bool) -> tuple[Any, ...]:
        status = self._begin(name)
        if status != OK or not right:
            return (INVALID if status == OK else status), None
        made = Handle()
        self.handles[int(made)] = made
        return OK, made

    def _take(self, name: str, size: int, where: dict[int, Any], most: int) -> tuple[Any, ...]:
        status = self._begin(name)
        if status == OK and sum(map(len, list(where.values()))) + size > most:
            status = self.last = cudaError_t.cudaErrorMemoryAllocation
        if status != OK:
            return status, None
        memory = (ctypes.c_uint8 * size)(*b"\xa5" * min(size, 64))  # nobody may count on zeros
        where[ctypes.addressof(memory)] = memory
        return OK, ctypes.addressof(memory)

    def _drop(self, name: str, key: int, where: dict[int, Any]) -> tuple[Any, ...]:
        status = self._begin(name)
        if status == OK and where.pop(key, None) is None:
            status = INVALID
        return (status,)
