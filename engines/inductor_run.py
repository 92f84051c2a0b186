"""A loaded AOTInductor package, run: on the CPU as it is, on a GPU captured in a CUDA graph."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.alone import alone
from engines.batches import fill_classes
from engines.cuda_memory import LEGACY_STREAM
from engines.torch_capture import capture
from engines.torch_devices import exact_sums
from nem.setting import Setting

WARM_UPS = 3
"""Runs before the capture: the first folds constants, and cuDNN picks its kernels."""


def load_package(package: bytes, device: torch.device) -> Any:
    """Torch's loader of a package: executable code, so only ever bytes that were made here.

    Raises:
        RuntimeError: torch can't load it.
    """
    share_cpp_runtime()
    with tempfile.TemporaryDirectory(prefix="nem-inductor-") as folder:
        path = Path(folder) / "package.pt2"
        path.write_bytes(package)
        # What `torch._inductor.aoti_load_package` comes to, without importing the compiler first,
        # which takes seconds. It copies what it needs to a private folder of its own.
        # Arguments: model, run without thread logic (capturing forbids it), runners, device.
        return torch._C._aoti.AOTIModelPackageLoader(
            str(path), "model", True, 1, -1 if device.index is None else device.index
        )


def share_cpp_runtime() -> None:
    """Let packages use the C++ library that this process has, whatever they were linked with.

    Some compilers link a copy of it into what they build. Two copies share a part of their state,
    and the first regular expression, which each package parses its device with, then reads the
    wrong tables: "bad cast", or a crash. A library opened for all comes before a package's own.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # nothing has loaded it, so there is nothing to clash with
            mode = os.RTLD_NOLOAD | os.RTLD_GLOBAL | os.RTLD_LAZY
            ctypes.CDLL("libstdc++.so.6", mode=mode)


class CpuProgram:
    """A package on the CPU. Torch's loader keeps the interpreter to itself while it runs.

    One call at a time.

    Args:
        loader: of `load_package`.
        shapes: of the outputs, by name, in the graph's order.
        shape: of the frames that the package takes, (B, H, W, 3).
        targeted: whether it takes classes.
    """

    def __init__(
        self,
        loader: Any,
        shapes: Mapping[str, tuple[int, ...]],
        shape: tuple[int, ...],
        *,
        targeted: bool,
    ) -> None:
        self.shapes = dict(shapes)
        self._loader = loader
        self._frames = torch.zeros(shape, dtype=torch.uint8)
        self._targeted = targeted

    def run(
        self, frames: NDArray[np.uint8], classes: NDArray[Any] | None, wanted: Collection[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Run once.

        Args:
            frames: (N, H, W, 3), contiguous and writable; N up to the package's batch.
            classes: of each frame (N,), -1 for the most probable one, which None is for all.
            wanted: names of the outputs to give.

        Returns:
            By name, (N, ...); they belong to the caller.
        """
        count, given = len(frames), torch.from_numpy(frames)
        if count < len(self._frames):  # what the other places hold is computed and dropped
            self._frames[:count] = given
            given = self._frames
        inputs = [given]
        if self._targeted:
            inputs.append(torch.from_numpy(fill_classes(classes, len(self._frames))))
        found = dict(zip(self.shapes, self._loader.boxed_run(inputs), strict=True))
        return {name: found[name][:count].numpy().copy() for name in wanted}

    def close(self) -> None:
        """Free the package and its memory."""
        self._loader = None


class CudaProgram:
    """A package on a GPU: buffers taken once, one stream, and one CUDA graph that is replayed.

    To be made by one thread at a time, see `engines.alone`.

    Args:
        loader: of `load_package`.
        shapes: of the outputs, by name, in the graph's order.
        shape: of the frames that the package takes, (B, H, W, 3).
        targeted: whether it takes classes.
        device: with its number.
        exact: compute float32 in full, not as TF32.

    Raises:
        RuntimeError: the package does not run, or there is too little memory.
    """

    def __init__(
        self,
        loader: Any,
        shapes: Mapping[str, tuple[int, ...]],
        shape: tuple[int, ...],
        *,
        targeted: bool,
        device: torch.device,
        exact: bool,
    ) -> None:
        self.shapes = dict(shapes)
        self._device = device
        self._loader = loader
        cuda: Any = torch.cuda
        self._stream = cuda.Stream(device)
        with self._current(), exact_sums() if exact else nullcontext(), benchmarked():
            self._frames = torch.zeros(shape, dtype=torch.uint8, device=device)
            self._classes = None
            if targeted:
                self._classes = torch.full((shape[0],), -1, dtype=torch.int32, device=device)
            for _ in range(WARM_UPS):
                self._call()
            self._stream.synchronize()
            self._graph, made = capture(self._call)
            self._outputs = dict(zip(self.shapes, made, strict=True))
        self._host_frames = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        self._host_classes = torch.full((shape[0],), -1, dtype=torch.int32, pin_memory=True)
        self._host = {
            name: torch.zeros(value.shape, dtype=value.dtype, pin_memory=True)
            for name, value in self._outputs.items()
        }

    def run(
        self, frames: NDArray[np.uint8], classes: NDArray[Any] | None, wanted: Collection[str]
    ) -> dict[str, NDArray[np.float32]]:
        """See `CpuProgram.run`: a pinned copy up, one launch, pinned copies down."""
        count = len(frames)
        self._host_frames[:count].numpy()[...] = frames
        with self._current():
            # What the other places hold is computed and dropped.
            self._frames[:count].copy_(self._host_frames[:count], non_blocking=True)
            self._launch(classes)
            for name in wanted:
                self._host[name].copy_(self._outputs[name], non_blocking=True)
            self._stream.synchronize()
        return {name: self._host[name][:count].numpy().copy() for name in wanted}

    def run_on_device(
        self, frames: Any, classes: NDArray[Any] | None, stream: int | None
    ) -> dict[str, Tensor]:
        """Run once on frames that are on this GPU.

        Args:
            frames: with `__cuda_array_interface__`, uint8 (N, H, W, 3), C-contiguous, N up to the
                package's batch.
            classes: as for `run`.
            stream: handle of the stream to wait for; None for none. For a tensor of torch it is
                the current one instead.

        Returns:
            All outputs, complete; the next run overwrites them.
        """
        given = torch.as_tensor(frames, device=self._device)  # the same memory
        count = len(given)
        cuda: Any = torch.cuda
        if isinstance(frames, Tensor):
            after = cuda.current_stream(self._device)
        elif stream == LEGACY_STREAM:  # which torch knows by another handle
            after = cuda.default_stream(self._device)
        else:
            after = None if stream is None else cuda.ExternalStream(stream, self._device)
        with self._current():
            if after is not None:
                self._stream.wait_stream(after)
            self._frames[:count].copy_(given, non_blocking=True)
            self._launch(classes)
            self._stream.synchronize()
        return {name: value[:count] for name, value in self._outputs.items()}

    def close(self) -> None:
        """Free the package and its memory."""
        with alone:
            self._graph.reset()
            self._outputs, self._host = {}, {}
            self._loader = None

    def _call(self) -> list[Tensor]:
        # A new list: the loader takes what it is given.
        inputs = [self._frames] if self._classes is None else [self._frames, self._classes]
        # Maps share memory; each by itself is what can be copied and handed out.
        return [value.contiguous() for value in self._loader.boxed_run(inputs)]

    def _launch(self, classes: NDArray[Any] | None) -> None:
        if self._classes is not None:
            self._host_classes.numpy()[...] = fill_classes(classes, len(self._host_classes))
            self._classes.copy_(self._host_classes, non_blocking=True)
        self._graph.replay()

    @contextmanager
    def _current(self) -> Iterator[None]:
        with (
            torch.inference_mode(),
            torch.cuda.device(self._device),
            torch.cuda.stream(self._stream),
        ):
            yield


Program: TypeAlias = CpuProgram | CudaProgram
"""A package ready to run."""


def _benchmark() -> Callable[[], None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    return lambda: setattr(torch.backends.cudnn, "benchmark", before)


benchmarked = Setting(_benchmark)
"""Let cuDNN time its kernels: shapes never change, and a capture keeps what was picked."""
