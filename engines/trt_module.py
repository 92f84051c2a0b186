"""TensorRT inside torch: the graph compiled by Torch-TensorRT to a module, which torch runs.

The simpler form of `engines.trt`, for programs that have torch at work anyway. It is compiled at
each start: what Torch-TensorRT can save of it holds pickles, which nothing here loads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.base import Arrays, Engine, Frames
from engines.batches import fill_classes, filled, run_pieces
from engines.errors import EngineError, OptionError
from engines.fixed_graph import FixedGraph
from engines.golden import check, decided, golden_frames, reference
from engines.gpus import find_gpu
from engines.onnx_passes import EMBEDDING, SCORES, graph_outputs, map_name
from engines.parity import find_bound
from engines.torch_devices import find_device, torch_told
from engines.trt import check_capability
from engines.trt_api import load_trt
from engines.trt_build import PRECISIONS, BuildOptions, compile_graph
from engines.trt_convert import compile_module
from nem.bundle import Bundle
from nem.bundle_io import load_model
from nem.explanation import Aim, class_names
from nem.model import NEM

NAME = "tensorrt-module"

CURE = "end what else uses it, or use a smaller batch or frame size"

_log = logging.getLogger(__name__)


class ModuleGraph(FixedGraph):
    """A `FixedGraph` whose frames are float16, 0 to 255.

    Torch-TensorRT's runtime has no uint8; float16 holds all its values exactly. The rest of the
    graph is the same, as its first operator is a cast to float32 anyway.
    """

    def example(self, batch: int = 1) -> tuple[Tensor, ...]:
        """See `FixedGraph.example`."""
        frames, *classes = super().example(batch)
        return (frames.half(), *classes)


class TensorRtModuleEngine(Engine):
    """Runs a bundle with TensorRT inside torch.

    Args:
        bundle: an opened bundle.
        device: "cuda", "cuda:N", or "auto": the first GPU.
        precision: "f16", "f32", "bf16", or "auto", which is f16. Sigmoid, softmax and all outputs
            are float32 in each.
        frame_size: (height, width) of the frames that the engine takes and resizes itself;
            default: the model's input size.
        batch: frames per call. Any number of frames can be run; the last call is filled up.
        say: told in a line what takes long; default: a warning in the log.

    Attributes:
        batch: frames per call.

    Raises:
        OptionError: another device or precision, or a size or batch below 1.
        EngineUnavailable: no GPU, torch sees none, or a package is missing.
        DeviceMemoryError: the GPU has too little free memory.
        EngineError: it can't be compiled, or what was compiled gives wrong answers.
    """

    name = NAME

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        precision: str = "auto",
        frame_size: tuple[int, int] | None = None,
        batch: int = 1,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if precision not in ("auto", *PRECISIONS):
            allowed = ", ".join(("auto", *PRECISIONS))
            raise OptionError(f"engine {NAME}: precision {precision!r}, allowed: {allowed}")
        found = PRECISIONS[0] if precision == "auto" else precision
        options = BuildOptions(frame_size, found, batch)
        gpu = find_gpu(device, NAME)
        check_capability(NAME, found, gpu)
        load_trt("tensorrt")
        self._device = find_device(NAME, f"cuda:{gpu.index}")
        model = load_model(bundle)
        super().__init__(
            device=str(self._device),
            precision=found,
            input_size=(bundle.manifest.input_size,) * 2,
            names=class_names(bundle.manifest.classes, model.backbone.num_classes),
            aims=bundle.manifest.heads,
            frame_size=frame_size,
        )
        self.batch = batch
        self._module: Any = None
        tell = say or _log.warning
        tell(f"engine {NAME}: is compiled at each start; engine tensorrt keeps what it built")
        with self._told("compiling"):
            graph = ModuleGraph(model, self.frame_size, found)
            self._outputs = graph.outputs
            self._module = compile_graph(graph, options, compile_module, tell)
            del graph
        torch.cuda.empty_cache()  # what compiling took
        self._prove(model)

    def _run(self, frames: Frames, aim: Aim, classes: NDArray[np.int64] | None) -> Arrays:
        wanted = graph_outputs((aim,), scores=SCORES in self._outputs)

        def run(some: Frames, asked: NDArray[np.int64] | None) -> dict[str, NDArray[Any]]:
            found = self._call(some, asked)
            return {name: found[name].cpu().numpy() for name in wanted}

        with self._told("the run"):
            whole = run_pieces(run, frames, classes, self.batch)
        return Arrays(whole[map_name(aim)], whole.get(SCORES), whole[EMBEDDING])

    def _close(self) -> None:
        self._module = None

    def _call(self, frames: Frames, classes: NDArray[Any] | None) -> dict[str, Tensor]:
        """All outputs for up to `batch` frames, on the device."""
        given = torch.from_numpy(filled(frames, self.batch)).to(self._device)
        inputs = [given.to(torch.float16)]
        if "target" in self.aims:
            asked = torch.from_numpy(fill_classes(classes, self.batch))
            inputs.append(asked.to(self._device))
        found = self._module(*inputs)
        return {
            name: value[: len(frames)] for name, value in zip(self._outputs, found, strict=True)
        }

    def _prove(self, model: NEM) -> None:
        """Run the golden frames. Raises EngineError where the answer is not the right one."""
        frames = golden_frames(self.frame_size, self.batch)
        expected = reference(model, frames)
        with self._told("the first run"):
            made = self._call(frames, decided(expected))
            found = {name: value.cpu().numpy() for name, value in made.items()}
        reason = check(found, expected, find_bound(NAME, self.precision))
        if reason is not None:
            raise EngineError(
                f"engine {NAME}: the module just compiled does not compute what the model does: "
                f"{reason}; use another precision, or another version of TensorRT"
            )

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """On the GPU, without gradients, and with torch's errors in a line."""
        with (
            torch_told(f"engine {NAME}", self._device, what, CURE),
            torch.cuda.device(self._device),
            torch.no_grad(),
        ):
            yield
