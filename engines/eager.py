"""The reference engine: the model itself in torch, on the CPU or a GPU. Needs the extra `train`."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from engines.base import Arrays, Engine, Frames
from engines.batches import check_batch
from engines.errors import OptionError
from engines.graph import FrameGraph
from engines.torch_devices import exact_sums, find_device, torch_told
from nem.bundle import Bundle
from nem.bundle_io import load_model
from nem.explanation import Aim, class_names

CASTS = {"bf16": torch.bfloat16, "f16": torch.float16}
"""What torch's autocast computes in, by precision; f32 has none."""

CURE = "run fewer frames at once, end what else uses it, or use --device cpu"


class EagerEngine(Engine):
    """Runs the bundle's weights with torch.

    Args:
        bundle: an opened bundle.
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.
        precision: "f32", "bf16" or, on a GPU, "f16" (torch autocast; sigmoid and softmax stay
            float32), or "auto", which is f32: this engine is what the others are compared with.
        batch: frames that a stream should hand over at once; any number can be run.

    Raises:
        OptionError: another device or precision, or f16 on the CPU.
        EngineUnavailable: torch sees no such GPU, or can't use it.
        EngineError: the GPU has too little free memory, or fails; also when running.
    """

    name = "eager"

    def __init__(
        self, bundle: Bundle, *, device: str = "auto", precision: str = "auto", batch: int = 1
    ) -> None:
        check_batch(self.name, batch)
        if precision not in ("auto", "f32", *CASTS):
            allowed = ", ".join(("auto", "f32", *CASTS))
            raise OptionError(f"engine eager: precision {precision!r}, allowed: {allowed}")
        self._device = find_device(self.name, device)
        if precision == "f16" and self._device.type == "cpu":
            raise OptionError(
                "engine eager: precision f16 on the CPU, allowed there: auto, f32, bf16"
            )
        self._cast = CASTS.get(precision)
        model = load_model(bundle)
        with torch_told(f"engine {self.name}", self._device, "opening it", CURE):
            self._graph: FrameGraph | None = FrameGraph(model).eval().to(self._device)
        super().__init__(
            device=str(self._device),
            precision="f32" if self._cast is None else precision,
            input_size=(bundle.manifest.input_size,) * 2,
            names=class_names(bundle.manifest.classes, model.backbone.num_classes),
            aims=bundle.manifest.heads,
        )
        self.batch = batch

    def _run(self, frames: Frames, aim: Aim, classes: NDArray[np.int64] | None) -> Arrays:
        graph = self._graph
        assert graph is not None
        kind = self._device.type
        with (
            torch_told(f"engine {self.name}", self._device, "the run", CURE),
            torch.inference_mode(),
            exact_sums(),
        ):
            prepared = graph.prepare(torch.from_numpy(frames).to(self._device))
            target = None if classes is None else torch.from_numpy(classes).to(self._device)
            with torch.autocast(kind, self._cast, enabled=self._cast is not None):
                output = graph.model(prepared, target)
            scores = graph.scores(output)
            return Arrays(
                graph.map(output, aim).cpu().numpy(),
                None if scores is None else scores.cpu().numpy(),
                output.embedding.float().cpu().numpy(),
            )

    def _close(self) -> None:
        self._graph = None
