"""A TensorRT whose engines are torch graphs, run on the addresses that they were told.

The bytes of an engine only name a graph that was built in this process; what a context does with
its addresses is real. So a wrong binding, a stale buffer or a missing wait gives wrong arrays.
"""

from __future__ import annotations

import ctypes
import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from engines.fixed_graph import FixedGraph
from engines.gpus import Gpu
from engines.onnx_passes import CLASSES, EMBEDDING, FRAMES, SCORES, map_name
from engines.trt_build import BuildOptions
from nem.model import NEM
from tests.engines.fake_cuda import FakeCuda
from tests.engines.fake_trt_context import (
    TYPES,
    Context,
    DataType,
    DynamicShapesKernelSpecializationStrategy,
    ExecutionContextAllocationStrategy,
    RuntimeConfig,
    Severity,
    Tensor,
    TensorIOMode,
    TensorLocation,
)

MAGIC = b"FAKE-TRT"
GPU = Gpu(0, "NVIDIA Fake 1", "8.9", "550.54.14")


class ILogger:
    def __init__(self) -> None:
        self.made = True

    def log(self, severity: Severity, msg: str) -> None:
        raise AssertionError("a logger has to say what it does with messages")


@dataclass
class Built:
    """An engine: what it computes, and what it is for; of a dynamic one for the most frames."""

    compute: Callable[..., list[np.ndarray]]
    tensors: dict[str, Tensor]
    dynamic: bool = False


@dataclass
class Fakes:
    """All fakes of a test.

    Attributes:
        cuda: the GPU's runtime.
        trt: the TensorRT package.
        gpus: what the driver shows.
        builds: what was built.
        wrong: added to the maps of engines that are built from now on.
        workspace: bytes of GPU memory that a context takes for each frame.
        refuse: why nothing is run; None where it is.
        capturable: whether a run of an RTX engine may be captured.
    """

    cuda: FakeCuda
    trt: ModuleType
    gpus: list[Gpu] = field(default_factory=lambda: [GPU])
    builds: list[BuildOptions] = field(default_factory=list)
    engines: dict[str, Built] = field(default_factory=dict)
    wrong: float = 0.0
    workspace: int = 1
    contexts: int = 0
    configs: list[RuntimeConfig] = field(default_factory=list)
    refuse: str | None = None
    capturable: bool = True

    def build(self, model: NEM, options: BuildOptions, say: Any = None) -> bytes:
        """In the place of `engines.trt_build.build_engine`."""
        self.builds.append(options)
        graph = FixedGraph(model, options.frame_size, options.precision)
        example = graph.example(options.batch)
        with torch.inference_mode():
            found = [each.numpy() for each in graph(*example)]
        wrong = self.wrong

        def compute(*given: np.ndarray) -> list[np.ndarray]:
            with torch.inference_mode():
                outputs = graph(*map(torch.from_numpy, given))
            return [each.numpy() + wrong for each in outputs]

        inputs = dict(zip((FRAMES, CLASSES), (each.numpy() for each in example), strict=False))
        outputs = [map_name(aim) for aim in model.aims]
        outputs += [SCORES, EMBEDDING] if len(found) > len(outputs) + 1 else [EMBEDDING]
        outputs = dict(zip(outputs, found, strict=True))
        return self.add(compute, inputs, outputs, dynamic=options.dynamic)

    def add(self, compute: Any, inputs: Any, outputs: Any, *, dynamic: bool = False) -> bytes:
        """The bytes of an engine for arrays of these shapes and types."""
        tensors = {  # in an order that nobody should rely on
            name: Tensor(mode, value.shape, TYPES[value.dtype.name])
            for mode, group in ((TensorIOMode.OUTPUT, outputs), (TensorIOMode.INPUT, inputs))
            for name, value in reversed(group.items())
        }
        name = f"engine {len(self.engines)}"
        self.engines[name] = Built(compute, tensors, dynamic)
        return MAGIC + json.dumps([name, self.trt.__version__, self.gpus[0].capability]).encode()


class Runtime:
    fakes: Fakes

    def __init__(self, logger: ILogger) -> None:
        assert isinstance(logger, ILogger)
        assert logger.made
        self.logger, self.engine_host_code_allowed = logger, False

    def deserialize_cuda_engine(self, engine: bytes) -> Any:
        assert not self.engine_host_code_allowed
        reason = None
        if not engine.startswith(MAGIC):
            reason = (
                "(Serialization assertion magicTagRead == kMAGIC_TAG failed."
                "Magic tag does not match)"
            )
        else:
            name, version, capability = json.loads(engine.removeprefix(MAGIC))
            if version != self.fakes.trt.__version__:
                reason = (
                    "(Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed."
                    "Version tag does not match. Note: Current Version: 239, Serialized Engine "
                    "Version: 237)"
                )
            elif capability != self.fakes.gpus[0].capability:
                reason = (
                    "(The engine plan file is generated on an incompatible device, expecting "
                    f"compute {self.fakes.gpus[0].capability} got compute {capability}, please "
                    "rebuild.)"
                )
        if reason is not None:
            text = f"IRuntime::deserializeCudaEngine: Error Code 1: Serialization {reason}"
            self.logger.log(Severity.WARNING, "Using an engine plan file is not recommended.")
            self.logger.log(Severity.ERROR, text)
            return None
        return Engine(self, self.fakes.engines[name])


class Engine:
    def __init__(self, runtime: Runtime, built: Built) -> None:
        self.runtime, self.built = runtime, built
        self.num_io_tensors = len(built.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.built.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self.built.tensors[name].mode

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.built.tensors[name].dtype

    def get_tensor_shape(self, name: str) -> list[int]:
        shape = self.built.tensors[name].shape
        return [-1, *shape[1:]] if self.built.dynamic else list(shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (profile, self.get_tensor_mode(name)) == (0, TensorIOMode.INPUT)
        shape = self.built.tensors[name].shape
        return [(1, *shape[1:]), shape, shape]

    @property
    def device_memory_size_v2(self) -> int:
        shapes = [t.shape for t in self.built.tensors.values() if t.mode is TensorIOMode.INPUT]
        return self.runtime.fakes.workspace * shapes[-1][0]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return self.built.tensors[name].location

    def create_runtime_config(self) -> RuntimeConfig:
        assert self.runtime.fakes.trt.__name__ == "tensorrt_rtx"
        return RuntimeConfig()

    def create_execution_context(self, how: Any = None) -> Any:
        fakes, log = self.runtime.fakes, self.runtime.logger.log
        need = self.device_memory_size_v2
        if isinstance(how, RuntimeConfig):
            fakes.configs.append(how)
            how = how.strategy
        if how is ExecutionContextAllocationStrategy.USER_MANAGED:
            need = 0
        if fakes.cuda.used() + need > fakes.cuda.memory:
            log(
                Severity.ERROR,
                "[defaultAllocator.cpp::allocate::19] Error Code 1: Cuda Runtime (out of memory)",
            )
            log(
                Severity.WARNING,
                f"Requested amount of GPU memory ({need} bytes) could not be allocated.",
            )
            log(Severity.ERROR, "IExecutionContext: Error Code 2: OutOfMemory (no more said)")
            return None
        fakes.contexts += 1
        return Context(self, memory=bool(need))


def make_fakes(flavour: str = "tensorrt") -> Fakes:
    """New fakes, with nothing built."""
    trt = ModuleType(flavour.replace("-", "_"))
    fakes = Fakes(FakeCuda(), trt)
    trt.__version__ = "11.1.0.106"
    vars(trt).update(
        Runtime=type("Runtime", (Runtime,), {"fakes": fakes}),
        ILogger=ILogger,
        DataType=DataType,
        TensorIOMode=TensorIOMode,
        TensorLocation=TensorLocation,
        ExecutionContextAllocationStrategy=ExecutionContextAllocationStrategy,
        DynamicShapesKernelSpecializationStrategy=DynamicShapesKernelSpecializationStrategy,
    )
    return fakes


shared_fakes = functools.cache(make_fakes)
"""The same fakes each time, so that engines stored by one test are loaded by the next."""


def install(patch: pytest.MonkeyPatch, fakes: Fakes) -> Fakes:
    """Put the fakes in the place of TensorRT, CUDA, the driver and the builder."""
    patch.setitem(sys.modules, fakes.trt.__name__, fakes.trt)
    patch.setitem(sys.modules, "cuda.bindings.runtime", fakes.cuda)
    patch.setitem(sys.modules, "cuda.bindings.driver", fakes.cuda)
    patch.setattr("engines.gpus.find_gpus", lambda: tuple(fakes.gpus))
    patch.setattr("engines.trt_build.build_engine", fakes.build)
    return fakes


def on_gpu(fakes: Fakes, array: np.ndarray, **facts: Any) -> SimpleNamespace:
    """An array of another library, on the fake GPU."""
    _, pointer = fakes.cuda.cudaMalloc(array.nbytes)
    ctypes.memmove(pointer, array.ctypes.data, array.nbytes)
    interface = {"shape": array.shape, "typestr": array.dtype.str, "data": (pointer, False)}
    return SimpleNamespace(__cuda_array_interface__=interface | {"version": 2} | facts)


def to_host(device: Any) -> np.ndarray:
    """What a device array holds."""
    facts = device.__cuda_array_interface__
    dtype, size = np.dtype(facts["typestr"]), int(np.prod(facts["shape"]))
    memory = (ctypes.c_uint8 * (size * dtype.itemsize)).from_address(facts["data"][0])
    return np.frombuffer(memory, dtype).reshape(facts["shape"]).copy()
