"""Execution contexts of the fake TensorRT: what they were told is what they run on."""

from __future__ import annotations

import ctypes
import enum
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.engines.fake_cuda import cudaError_t

DataType = enum.Enum("DataType", "FLOAT HALF BF16 INT32 INT64 UINT8")
TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
TensorLocation = enum.Enum("TensorLocation", "DEVICE HOST")
TYPES = {"float32": DataType.FLOAT, "uint8": DataType.UINT8, "int32": DataType.INT32}


ExecutionContextAllocationStrategy = enum.Enum("Strategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED")
DynamicShapesKernelSpecializationStrategy = enum.Enum("Specialization", "LAZY EAGER NONE")


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


@dataclass
class Tensor:
    mode: TensorIOMode
    shape: tuple[int, ...]
    dtype: DataType
    location: TensorLocation = TensorLocation.DEVICE

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(next(name for name, kind in TYPES.items() if kind is self.dtype))


class RuntimeConfig:
    """How an RTX context is to be made; by default it compiles for new shapes in the background."""

    def __init__(self) -> None:
        self.strategy = ExecutionContextAllocationStrategy.STATIC
        self.dynamic_shapes_kernel_specialization_strategy = (
            DynamicShapesKernelSpecializationStrategy.LAZY
        )

    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> None:
        self.strategy = strategy


class Context:
    """Its state is that of a capture, too: a graph is lost once anything is set anew."""

    def __init__(self, engine: Any, *, memory: bool) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.memory = memory
        self.profile: int | None = None
        self.counts: dict[str, int] = {}
        self.changes = 0

    def set_tensor_address(self, name: str, address: int) -> bool:
        if name not in self.engine.built.tensors:
            return False
        self.changes += 1
        self.addresses[name] = address
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        cuda = self.engine.runtime.fakes.cuda
        assert size >= self.engine.device_memory_size_v2
        assert cuda.inside(memory, size, cuda.on_device)
        self.changes += 1
        self.memory = True

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.changes += 1
        self.profile = profile
        return stream in self.engine.runtime.fakes.cuda.handles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        most = self.engine.built.tensors[name].shape
        if self.profile != 0 or not 1 <= shape[0] <= most[0] or shape[1:] != most[1:]:
            self.engine.runtime.logger.log(Severity.ERROR, f"{name}: {shape} is not in profile 0")
            return False
        self.changes += 1
        self.counts[name] = shape[0]
        return True

    def refused(self) -> str | None:
        built = self.engine.built
        if set(self.addresses) != set(built.tensors):
            return "no address"
        if not self.memory:
            return "no memory"
        inputs = [n for n, t in built.tensors.items() if t.mode is TensorIOMode.INPUT]
        counts = {self.counts.get(name) for name in inputs}
        return "no shape" if built.dynamic and (len(counts) != 1 or None in counts) else None

    def execute_async_v3(self, stream: int) -> bool:
        fakes = self.engine.runtime.fakes
        reason = fakes.refuse or self.refused()
        if reason is not None:
            self.engine.runtime.logger.log(Severity.ERROR, f"IExecutionContext: {reason}")
            return False
        if fakes.cuda.handles[stream].capturing is not None and not fakes.capturable:
            return False
        addresses, changes = dict(self.addresses), self.changes
        here = weakref.ref(self)  # what is on a stream, or captured, keeps no context alive

        def work() -> None:
            context = here()
            if context is None:
                fakes.cuda.lost = cudaError_t.cudaErrorIllegalAddress
            else:
                context.compute(addresses, changes)

        return fakes.cuda.put(stream, work)

    def is_stream_capturable(self, stream: int) -> bool:
        fakes = self.engine.runtime.fakes
        assert fakes.trt.__name__ == "tensorrt_rtx", "no other knows this"
        return bool(fakes.capturable and stream in fakes.cuda.handles)

    def compute(self, addresses: dict[str, int], changes: int) -> None:
        cuda, built = self.engine.runtime.fakes.cuda, self.engine.built
        if changes != self.changes:
            cuda.lost = cudaError_t.cudaErrorIllegalAddress
            return
        arrays = {}
        for name, tensor in built.tensors.items():
            shape = tensor.shape
            if built.dynamic:
                shape = (next(iter(self.counts.values())), *shape[1:])
            size = int(np.prod(shape)) * tensor.numpy.itemsize
            if not cuda.inside(addresses[name], size, cuda.on_device):
                cuda.lost = cudaError_t.cudaErrorIllegalAddress
                return
            memory = (ctypes.c_uint8 * size).from_address(addresses[name])
            arrays[name] = np.frombuffer(memory, tensor.numpy).reshape(shape)
        names = [n for n, t in reversed(built.tensors.items()) if t.mode is TensorIOMode.INPUT]
        outputs = [n for n, t in reversed(built.tensors.items()) if t.mode is TensorIOMode.OUTPUT]
        found = built.compute(*(arrays[name].copy() for name in names))
        for name, value in zip(outputs, found, strict=True):
            arrays[name][...] = value
