"""A TensorRT engine loaded and launched: execution contexts, and the CUDA graphs made from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engines.alone import alone
from engines.cuda_memory import Cuda, DeviceMemoryError
from engines.errors import EngineError
from engines.trt_api import Flavour, make_logger, tells_no_memory, trt_version

CAUSES = (
    # In this order: a wrong magic number is also reported as an incompatible version.
    (("magictag", "magic tag"), "it is damaged, or no engine of {flavour} {version}"),
    (
        ("version tag", "serialization version", "kserialization_version"),
        "it was built by another version than the installed {flavour} {version}; build it anew",
    ),
    (
        ("incompatible device", "expecting compute", "compute capability"),
        "it was built for another GPU than cuda:{device}; build it anew on this one",
    ),
    (("loadrunner",), "it was not built version-compatible, as the lean runtime needs it"),
)
"""What TensorRT says when it refuses an engine, and what that means."""


class Launcher:
    """An engine on one GPU. `close` of its `Cuda` lets go of all of it.

    A captured graph counts on its context staying as it was. So in a dynamic engine each number
    of frames has a context of its own, made when it is first used. They never run at the same
    time and share the memory for passing results.

    Args:
        trt: the TensorRT package.
        engine: serialized.
        flavour: whose engine it is.
        cuda: the GPU.
        stream: on it, where everything is launched.

    Attributes:
        engine: TensorRT's own object.

    Raises:
        DeviceMemoryError: the GPU has too little memory for it.
        EngineError: TensorRT refuses the engine; the reason in a line.
    """

    def __init__(self, trt: Any, engine: bytes, flavour: Flavour, cuda: Cuda, stream: Any) -> None:
        self._trt, self._flavour = trt, flavour
        self._cuda, self._stream = cuda, stream
        self._logger = make_logger(trt)
        self._contexts: list[Any] = []
        self._ready: dict[int, Callable[[], None]] = {}
        self._addresses: dict[str, int] = {}
        self._inputs: dict[str, tuple[int, ...]] = {}
        self._shared: tuple[int, int] | None = None
        self.engine: Any = None
        cuda.held.callback(self._unload)
        self._runtime = self._give(trt.Runtime(self._logger), "has no runtime")
        self._runtime.engine_host_code_allowed = False
        self._logger.clear()
        self.engine = self._give(self._runtime.deserialize_cuda_engine(engine), "can't be loaded")

    def bind(self, addresses: Mapping[str, int], inputs: Mapping[str, tuple[int, ...]]) -> None:
        """Say where all inputs and outputs lie on the GPU.

        Args:
            addresses: by name.
            inputs: shapes of the inputs, for the most frames; of a dynamic engine alone.
        """
        self._addresses, self._inputs = dict(addresses), dict(inputs)

    def launch(self, count: int) -> None:
        """Put a run of `count` frames, 0 for as many as it always has, on the stream.

        Raises:
            DeviceMemoryError: the GPU has too little memory for it.
            CudaError: the GPU fails.
            EngineError: TensorRT refuses; the reason in a line.
        """
        if count not in self._ready:
            self.prepare(count)
        self._attempt(self._ready[count])

    def prepare(self, count: int) -> None:
        """Make all that runs of `count` frames need, see `launch`; runs once on what is there."""
        with alone:  # so that nothing breaks the capture
            self._prepare(count)

    def _prepare(self, count: int) -> None:
        context = self._context(count)

        def execute() -> None:
            self._logger.clear()
            if not context.execute_async_v3(int(self._stream)):
                raise self._refused("can't be run")

        self._attempt(execute)  # so that nothing is left to be made in a capture
        self._attempt(lambda: self._cuda.synchronize(self._stream))
        rtx = self._flavour == "tensorrt-rtx"  # of which some take memory while they run
        if rtx and not context.is_stream_capturable(int(self._stream)):
            self._ready[count] = execute
        else:
            graph = self._cuda.capture(self._stream, execute)
            self._ready[count] = lambda: self._cuda.launch(graph, self._stream)
        self._contexts.append(context)

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except EngineError:
            self._cuda.synchronize(self._stream)  # a GPU that is lost says so here
            raise

    def _context(self, count: int) -> Any:
        """A context that knows its shapes and addresses."""
        self._logger.clear()
        made = self._shaped(count) if count else self.engine.create_execution_context()
        context = self._give(made, "can't be prepared")
        for name, address in self._addresses.items():
            if not context.set_tensor_address(name, address):
                raise self._refused(f"can't be given the address of {name}")
        return context

    def _shaped(self, count: int) -> Any:
        """A context of a dynamic engine for one number of frames; None where there is none."""
        if self._shared is None:
            size = int(self.engine.device_memory_size_v2)
            memory = self._cuda.on_device((size,), np.dtype(np.uint8))
            self._shared = memory.pointer, size
        ours = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._flavour == "tensorrt-rtx":
            # It would compile kernels for a new shape in the background and capture others.
            config = self.engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(ours)
            config.dynamic_shapes_kernel_specialization_strategy = (
                self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            context = self.engine.create_execution_context(config)
        else:
            context = self.engine.create_execution_context(ours)
        if context is None:
            return None
        context.set_device_memory(*self._shared)
        # The first context has chosen it already, later ones have not.
        if not context.set_optimization_profile_async(0, int(self._stream)):
            raise self._refused(f"can't be prepared for {count} frames")
        for name, shape in self._inputs.items():
            if not context.set_input_shape(name, (count, *shape[1:])):
                raise self._refused(f"can't be given {count} frames as {name}")
        return context

    def _unload(self) -> None:
        """Let go of what TensorRT made, the last first."""
        self._ready.clear()
        self._contexts.clear()
        self.engine = None
        self._runtime = None

    def _give(self, made: Any, trouble: str) -> Any:
        """What TensorRT made; where that is None, an error."""
        if made is None:
            raise self._refused(trouble)
        return made

    def _refused(self, trouble: str) -> EngineError:
        """What TensorRT does not do, with the reason that its logger has."""
        text = self._logger.text() or "TensorRT gave no reason"
        if tells_no_memory(text):
            return DeviceMemoryError(f"cuda:{self._cuda.device}: too little GPU memory: {text}")
        facts = {
            "flavour": self._flavour,
            "version": trt_version(self._trt),
            "device": self._cuda.device,
        }
        causes = [means for words, means in CAUSES if any(word in text.lower() for word in words)]
        cause = f": {causes[0].format(**facts)}" if causes else ""
        return EngineError(f"{self._flavour} engine {trouble}{cause} ({text})")
