"""A TensorRT engine, run: numpy, the TensorRT package and cuda-bindings; no torch.

Frames have one size and a highest number, so memory is taken once, and what TensorRT launches is
captured once into a CUDA graph: a run is a copy up, one launch, and copies down. A dynamic engine
runs any number of frames, and has a graph for each number that was run.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.alone import alone
from engines.cuda_memory import Cuda, DeviceArray, as_device_array
from engines.errors import EngineClosed, EngineError, FrameError
from engines.trt_api import Flavour, load_trt, numpy_type
from engines.trt_launch import Launcher


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of an engine.

    Attributes:
        name: of the tensor.
        shape: of a dynamic engine for the most frames.
        dtype: of its elements.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def first(self, shape: tuple[int, ...]) -> Port:
        """This port for as many entries along the first axis as `shape` has, if it has fewer."""
        if not shape or not self.shape or not 0 < shape[0] < self.shape[0]:
            return self
        return Port(self.name, (shape[0], *self.shape[1:]), self.dtype)

    def check(self, value: NDArray[Any] | DeviceArray) -> None:
        """Refuse another shape or type. Raises FrameError."""
        if value.shape != self.shape or value.dtype != self.dtype:
            raise FrameError(
                f"{self.name}: expected {self.dtype} {self.shape}, got {value.dtype} {value.shape}"
            )


class TrtRunner:
    """One engine on one GPU. Calls from several threads are run one after the other.

    Args:
        engine: serialized; executable code, so only ever bytes that were made here or that the
            user vouches for.
        flavour: whose engine it is.
        device: number of the GPU.
        lean: run with `tensorrt_lean`.

    Attributes:
        inputs: by name.
        outputs: by name.
        most: frames of a run of a dynamic engine, which takes any number up to it; 0 of others,
            whose shapes are fixed.

    Raises:
        EngineUnavailable: a package is missing.
        DeviceMemoryError: the GPU has too little memory for it.
        CudaError: the GPU can't be used.
        EngineError: TensorRT refuses the engine, or its shapes vary in another way; the reason in
            a line.
    """

    def __init__(
        self,
        engine: bytes,
        *,
        flavour: Flavour = "tensorrt",
        device: int = 0,
        lean: bool = False,
    ) -> None:
        self._trt = load_trt(flavour, lean=lean)
        self._lock = threading.Lock()
        self._closed = False
        self.most = 0
        self.inputs: dict[str, Port] = {}
        self.outputs: dict[str, Port] = {}
        self._device: dict[str, DeviceArray] = {}
        self._pinned: dict[str, NDArray[Any]] = {}
        self._cuda = Cuda(device)
        try:
            with alone, self._cuda.current():
                self._stream, self._event = self._cuda.stream(), self._cuda.event()
                self._launcher = Launcher(self._trt, engine, flavour, self._cuda, self._stream)
                self._find_ports(self._launcher.engine)
                self._take_memory()
                self._warm_up()
        except BaseException:
            self.close()
            raise

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Collection[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Run once on arrays in host memory.

        Args:
            inputs: one array for each of `inputs`, of its shape and type; of a dynamic engine all
                with the same number of frames. The first run of a number takes longer.
            outputs: names of those to copy out; default all.

        Returns:
            The outputs by name; they belong to the caller.

        Raises:
            FrameError: an input is missing, unknown, or of another shape or type.
            EngineClosed: after `close`.
            DeviceLostError: the GPU failed for good.
            EngineError: the run failed; the reason in a line.
        """
        wanted = self._names(self.outputs if outputs is None else outputs)
        self._check_names(inputs)
        with self._running():
            count = self._count(inputs)
            for name, port in self.inputs.items():
                port.first((count,)).check(inputs[name])
                pinned, there = self._memory(name, count)
                np.copyto(pinned, inputs[name])
                self._cuda.up(there, pinned, self._stream)
            self._launcher.launch(count)
            places = {name: self._memory(name, count) for name in wanted}
            for pinned, there in places.values():
                self._cuda.down(pinned, there, self._stream)
            self._cuda.synchronize(self._stream)
            return {name: pinned.copy() for name, (pinned, _) in places.items()}

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, DeviceArray]:
        """Run once on arrays that are on this GPU; they never pass through host memory.

        Args:
            inputs: one C-contiguous object with `__cuda_array_interface__` for each of `inputs`,
                of its type, and of its shape or with fewer entries along the first axis: a dynamic
                engine computes only these, of others the rest is then what it was. Work on the
                stream it names, without one on the default stream, is waited for. Small inputs
                may be numpy arrays.

        Returns:
            The outputs by name, complete. They are the runner's own memory: the next run
            overwrites them, and `close` frees them.

        Raises:
            See `run`.
        """
        self._check_names(inputs)
        with self._running():
            found = {name: _described(inputs[name], name) for name in self.inputs}
            count = self._count({name: array for name, (array, _) in found.items()})
            for name, (array, stream) in found.items():
                self.inputs[name].first((count,) if self.most else array.shape).check(array)
                if isinstance(array, np.ndarray):
                    self._pinned[name][: len(array)] = array
                    self._cuda.up(self._device[name], self._pinned[name], self._stream)
                    continue
                if stream is not None:
                    self._cuda.wait(self._stream, stream, self._event)
                self._cuda.across(self._device[name], array, self._stream)
            self._launcher.launch(count)
            self._cuda.synchronize(self._stream)
            return {name: self._memory(name, count)[1] for name in self.outputs}

    def close(self) -> None:
        """Free the engine and its memory, once a run in progress is done. Never raises."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with suppress(Exception), alone:  # of a GPU that is lost
                self._cuda.close()

    def _find_ports(self, engine: Any) -> None:
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        shapes = {name: tuple(engine.get_tensor_shape(name)) for name in names}
        inputs = {n for n in names if engine.get_tensor_mode(n) == self._trt.TensorIOMode.INPUT}
        if any(-1 in shape for shape in shapes.values()):
            self.most = _most(engine, shapes, inputs)
        for name, shape in shapes.items():
            if engine.get_tensor_location(name) != self._trt.TensorLocation.DEVICE:
                raise EngineError(
                    f"tensor {name}: lies in host memory; only the GPU's is used here"
                )
            whole = (self.most, *shape[1:]) if self.most else shape
            port = Port(name, whole, numpy_type(engine.get_tensor_dtype(name), name))
            (self.inputs if name in inputs else self.outputs)[name] = port

    def _take_memory(self) -> None:
        for name, port in (self.inputs | self.outputs).items():
            self._device[name] = self._cuda.on_device(port.shape, port.dtype)
            self._pinned[name] = self._cuda.pinned(port.shape, port.dtype)
        self._launcher.bind(
            {name: array.pointer for name, array in self._device.items()},
            {name: port.shape for name, port in self.inputs.items()},
        )

    def _warm_up(self) -> None:
        """Run once on zeros, so that nothing is left to be made."""
        for name in self.inputs:
            self._cuda.up(self._device[name], self._pinned[name], self._stream)
        self._launcher.prepare(self.most)

    def _count(self, given: Mapping[str, Any]) -> int:
        """Frames of a run of a dynamic engine; 0 of others."""
        if not self.most:
            return 0
        name = next(iter(self.inputs))
        shape = given[name].shape
        if not shape or not 1 <= shape[0] <= self.most:
            raise FrameError(f"{name}: expected 1 to {self.most} frames, got shape {shape}")
        return int(shape[0])

    def _memory(self, name: str, count: int) -> tuple[NDArray[Any], DeviceArray]:
        """Where a tensor of `count` frames lies, on the host and on the GPU."""
        pinned, there = self._pinned[name], self._device[name]
        return (pinned[:count], there.first(count)) if count else (pinned, there)

    @contextmanager
    def _running(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise EngineClosed("the TensorRT runner is closed; open a new one")
            with self._cuda.current():
                yield

    def _check_names(self, given: Collection[str]) -> None:
        if set(given) != set(self.inputs):
            raise FrameError(
                f"inputs: expected {', '.join(sorted(self.inputs))}, "
                f"got {', '.join(sorted(given)) or 'none'}"
            )

    def _names(self, asked: Collection[str]) -> list[str]:
        unknown = sorted(set(asked) - set(self.outputs))
        if unknown:
            raise EngineError(
                f"outputs: {', '.join(unknown)} asked for, allowed: {', '.join(self.outputs)}"
            )
        return list(asked)


def _described(value: Any, name: str) -> tuple[NDArray[Any] | DeviceArray, int | None]:
    """An array and the stream to wait for. Raises FrameError."""
    return (value, None) if isinstance(value, np.ndarray) else as_device_array(value, name)


def _most(engine: Any, shapes: Mapping[str, tuple[int, ...]], inputs: Collection[str]) -> int:
    """The most frames of a dynamic engine, whose tensors all begin with any number from 1.

    Raises:
        EngineError: something else varies.
    """
    odd = [name for name, shape in shapes.items() if -1 in shape[1:]]
    odd += [name for name, shape in shapes.items() if shape[:1] != (-1,)]
    if odd:
        raise EngineError(
            f"tensor {odd[0]}: shape {shapes[odd[0]]}; only the number of frames, the first axis, "
            "may vary, and then of all tensors"
        )
    ranges = set()
    for name in inputs:
        least, _, most = engine.get_tensor_profile_shape(name, 0)
        ranges.add((least[0], most[0]))
    if len(ranges) != 1 or min(ranges)[0] != 1:
        told = ", ".join(f"{least} to {most}" for least, most in sorted(ranges))
        raise EngineError(f"its inputs take {told} frames; only ranges from 1, all alike, are run")
    return int(ranges.pop()[1])
