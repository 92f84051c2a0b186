"""AOTInductor: the model compiled ahead of time by torch, for an NVIDIA GPU or the CPU.

A package has one frame size and one batch; all heads are outputs of one graph. Building takes a
C++ compiler, running takes torch alone. On a GPU a run is a pinned copy up, one launch of a CUDA
graph, and pinned copies down.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.base import Arrays, Frames
from engines.batches import check_batch, run_pieces
from engines.cuda_memory import DeviceArray, as_device_array
from engines.errors import EngineUnavailable, OptionError
from engines.gpus import Gpu, find_gpu
from engines.inductor_open import CURE, NAME, Wish, open_program
from engines.inductor_run import CudaProgram, Program
from engines.on_device import DeviceEngine
from engines.onnx_passes import EMBEDDING, SCORES, graph_outputs, map_name
from engines.store import Store
from engines.torch_devices import find_device, torch_told
from nem.bundle import Bundle
from nem.explanation import Aim, class_names

PRECISIONS = {"cuda": ("f16", "f32", "bf16"), "cpu": ("f32", "bf16")}
"""What a package computes in, by kind of device; the first is `auto`."""

NEEDS = {"f16": 7.0, "f32": 7.0, "bf16": 8.0}
"""The first compute capability that Triton compiles for, by precision."""

_log = logging.getLogger(__name__)


class InductorEngine(DeviceEngine):
    """Runs a bundle compiled by AOTInductor.

    Args:
        bundle: an opened bundle.
        device: "cuda", "cuda:N", "cpu", or "auto": a GPU where torch sees one.
        precision: "f32", "bf16", on a GPU "f16", or "auto": f16 on a GPU, f32 on the CPU. Sigmoid,
            softmax and all outputs are float32 in each.
        frame_size: (height, width) of the frames that the engine takes and resizes itself;
            default: the model's input size.
        batch: frames per call. Any number of frames can be run; the last call is filled up.
        store: where packages are kept; default the user's cache folder.
        say: told in a line what takes long or was changed; default: a warning in the log.

    Attributes:
        batch: frames per call; fewer than asked for where the GPU has too little memory.

    Raises:
        OptionError: another device or precision, or a size or batch below 1.
        EngineUnavailable: no such GPU, or one too old, or something needed to build is missing.
        EngineError: it can't be built, or what was built gives wrong answers.
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
        store: Store | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if frame_size is not None and min(frame_size) < 1:
            raise OptionError(f"engine {NAME}: frame size {frame_size}: height and width from 1")
        check_batch(NAME, batch)
        where = find_device(NAME, device)
        allowed = PRECISIONS[where.type]
        if precision not in ("auto", *allowed):
            raise OptionError(
                f"engine {NAME}: precision {precision!r} on {where}, allowed there: "
                f"{', '.join(('auto', *allowed))}"
            )
        found = allowed[0] if precision == "auto" else precision
        gpu = find_gpu(str(where), NAME) if where.type == "cuda" else None
        if gpu is not None:
            _check_capability(found, gpu)
        super().__init__(
            device=str(where),
            precision=found,
            input_size=(bundle.manifest.input_size,) * 2,
            names=(),
            aims=bundle.manifest.heads,
            frame_size=frame_size,
        )
        wish = Wish(bundle, found, self.frame_size, where, gpu)
        self._device = where
        self._program: Program
        self.batch, self._program = open_program(wish, batch, store or Store(), say or _log.warning)
        self.names = class_names(
            bundle.manifest.classes, self._program.shapes.get(SCORES, (0, 0))[1]
        )

    def _run_on_device(
        self, frames: Any, classes: NDArray[np.int64] | None, count: int, stream: int | None
    ) -> Mapping[str, DeviceArray]:
        assert isinstance(self._program, CudaProgram)
        with self._told():
            found = self._program.run_on_device(frames, classes, stream)
        return {name: as_device_array(value, name)[0] for name, value in found.items()}

    def _run(self, frames: Frames, aim: Aim, classes: NDArray[np.int64] | None) -> Arrays:
        wanted = graph_outputs((aim,), scores=SCORES in self._program.shapes)
        with self._told():
            whole = run_pieces(
                lambda some, asked: self._program.run(some, asked, wanted),
                frames,
                classes,
                self.batch,
            )
        return Arrays(whole[map_name(aim)], whole.get(SCORES), whole[EMBEDDING])

    def _close(self) -> None:
        self._program.close()

    def _told(self) -> AbstractContextManager[None]:
        return torch_told(f"engine {NAME}", self._device, "the run", CURE)


def _check_capability(precision: str, gpu: Gpu) -> None:
    """Raises EngineUnavailable where Triton compiles nothing for the GPU at this precision."""
    least = NEEDS[precision]
    if float(gpu.capability) < least:
        other = "f16" if float(gpu.capability) >= NEEDS["f16"] else "engine eager"
        raise EngineUnavailable(
            f"engine {NAME}: precision {precision} needs compute capability {least}, {gpu.name} "
            f"has {gpu.capability}; use {other}"
        )
