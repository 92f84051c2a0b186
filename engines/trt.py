"""TensorRT, the engine of an NVIDIA GPU: built once on the machine, then loaded from the store.

An engine has one frame size, and one batch or, if asked for, any number of frames up to one; all
heads are outputs of one graph. Building takes torch and minutes, running takes neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.base import Arrays, Frames
from engines.batches import fill_classes, filled, run_pieces
from engines.cuda_memory import DeviceArray, DeviceLostError
from engines.errors import EngineClosed, EngineUnavailable
from engines.gpus import Gpu, find_gpu
from engines.on_device import DeviceEngine
from engines.onnx_passes import CLASSES, EMBEDDING, FRAMES, SCORES, graph_outputs, map_name
from engines.store import Store
from engines.trt_api import Flavour
from engines.trt_build import PRECISIONS, BuildOptions
from engines.trt_open import open_runner
from nem.bundle import Bundle
from nem.explanation import Aim, class_names

NEEDS = {"bf16": (8, 0), "fp8": (8, 9)}
"""The first compute capability that computes in a precision, where not all GPUs do."""

_log = logging.getLogger(__name__)


class TensorRtEngine(DeviceEngine):
    """Runs a bundle with TensorRT.

    Args:
        bundle: an opened bundle.
        device: "cuda", "cuda:N", or "auto": the first GPU.
        precision: "f16", "f32", "bf16", or "auto", which is f16; "int8" or "fp8" around which the
            rest is f16. Sigmoid, softmax and all outputs are float32 in each.
        flavour: "tensorrt", or "tensorrt-rtx".
        frame_size: (height, width) of the frames that the engine takes and resizes itself;
            default: the model's input size.
        batch: frames per launch. Any number of frames can be run; the last launch is filled up.
        dynamic: build for 1 to `batch` frames per launch: the last launch computes what is left
            and no more. The first launch of each number of frames takes longer. Where the number
            is always `batch`, a fixed engine is faster.
        calibration: for int8 and fp8, what the engine is calibrated with: an image, a video or a
            folder of them, some 500 pictures of what will be looked at. They are part of the
            engine's key in the store.
        store: where engines are kept; default the user's cache folder.
        say: told in a line what takes long or was changed; default: a warning in the log.

    Attributes:
        batch: frames per launch; fewer than asked for where the GPU has too little memory.

    Raises:
        OptionError: another device, precision or flavour, a size or batch below 1, or a dynamic
            batch below 2.
        EngineUnavailable: no GPU, or a package is missing.
        EngineError: it can't be built, or what was built gives wrong answers.
    """

    name = "tensorrt"

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        precision: str = "auto",
        flavour: Flavour = "tensorrt",
        frame_size: tuple[int, int] | None = None,
        batch: int = 1,
        dynamic: bool = False,
        calibration: Path | None = None,
        store: Store | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        found = PRECISIONS[0] if precision == "auto" else precision
        options = BuildOptions(
            frame_size, found, batch, flavour, dynamic=dynamic, calibration=calibration
        )
        self.name = flavour
        self._lost: str | None = None
        gpu = find_gpu(device, flavour)
        check_capability(flavour, found, gpu)
        super().__init__(
            device=f"cuda:{gpu.index}",
            precision=found,
            input_size=(bundle.manifest.input_size,) * 2,
            names=(),
            aims=bundle.manifest.heads,
            frame_size=frame_size,
        )
        self.batch, self._runner = open_runner(
            bundle, options, gpu, store or Store(), say or _log.warning
        )
        scores = self._runner.outputs.get(SCORES)
        self.names = class_names(bundle.manifest.classes, scores.shape[1] if scores else 0)

    def _run_on_device(
        self, frames: Any, classes: NDArray[np.int64] | None, count: int, stream: int | None
    ) -> Mapping[str, DeviceArray]:
        with self._watched():  # the runner itself asks the frames for their stream
            found = self._runner.run_on_device(self._inputs(frames, classes, count))
        return {name: value.first(count) for name, value in found.items()}

    def _run(self, frames: Frames, aim: Aim, classes: NDArray[np.int64] | None) -> Arrays:
        names = graph_outputs((aim,), scores=SCORES in self._runner.outputs)

        def run(some: Frames, asked: NDArray[np.int64] | None) -> dict[str, NDArray[Any]]:
            # A fixed engine takes no fewer.
            given = some if self._runner.most else filled(some, self.batch)
            found = self._runner.run(self._inputs(given, asked, len(given)), names)
            return {name: found[name][: len(some)] for name in names}

        with self._watched():
            whole = run_pieces(run, frames, classes, self.batch)
        return Arrays(whole[map_name(aim)], whole.get(SCORES), whole[EMBEDDING])

    def _close(self) -> None:
        self._runner.close()

    def _inputs(self, frames: Any, classes: NDArray[np.int64] | None, count: int) -> dict[str, Any]:
        """A runner's inputs; without classes, each frame's most probable one."""
        port = self._runner.inputs.get(CLASSES)
        if port is None:
            return {FRAMES: frames}
        return {FRAMES: frames, CLASSES: fill_classes(classes, count, port.dtype)}

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Refuse runs on a GPU that failed; after that every call would fail in its own words."""
        if self._lost is not None:
            raise EngineClosed(
                f"engine {self.name} can't run any more, its GPU failed earlier: {self._lost}"
            )
        try:
            yield
        except DeviceLostError as error:
            self._lost = str(error)
            raise


def check_capability(engine: str, precision: str, gpu: Gpu) -> None:
    """Raises EngineUnavailable where the GPU does not compute in the precision."""
    found = tuple(int(part) for part in gpu.capability.split("."))
    least = NEEDS.get(precision, found)
    if found < least:
        other = "int8 or f16" if (engine, precision) == ("tensorrt", "fp8") else "f16"
        raise EngineUnavailable(
            f"engine {engine}: precision {precision} asked for, {gpu.name} has compute capability "
            f"{gpu.capability} and {precision} needs {'.'.join(map(str, least))}; use {other}"
        )
