"""The reference engine: the model itself in torch, on the CPU or a GPU. Needs the extra `train`."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from engines.base import Arrays, Engine, Frames
from engines.errors import EngineUnavailable, OptionError
from engines.graph import FrameGraph
from nem.bundle import Bundle
from nem.bundle_io import load_model
from nem.explanation import Aim, class_names


class EagerEngine(Engine):
    """Runs the bundle's weights with torch.

    Args:
        bundle: an opened bundle.
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.
        precision: "f32", "bf16" (torch autocast; sigmoid and softmax stay float32) or "auto",
            which is f32: this engine is what the others are compared with.
    """

    name = "eager"

    def __init__(self, bundle: Bundle, *, device: str = "auto", precision: str = "auto") -> None:
        if precision not in ("auto", "f32", "bf16"):
            raise OptionError(f"engine eager: precision {precision!r}, allowed: auto, f32, bf16")
        self._device = _find_device(device)
        self._half = precision == "bf16"
        self._graph: FrameGraph | None = FrameGraph(load_model(bundle)).eval().to(self._device)
        super().__init__(
            device=str(self._device),
            precision="bf16" if self._half else "f32",
            input_size=(bundle.manifest.input_size,) * 2,
            names=class_names(bundle.manifest.classes, self._graph.model.backbone.num_classes),
            aims=bundle.manifest.heads,
        )

    def _run(self, frames: Frames, aim: Aim, classes: NDArray[np.int64] | None) -> Arrays:
        graph = self._graph
        assert graph is not None
        kind = self._device.type
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            prepared = graph.prepare(torch.from_numpy(frames).to(self._device))
            target = None if classes is None else torch.from_numpy(classes).to(self._device)
            with torch.autocast(kind, torch.bfloat16, enabled=self._half):
                output = graph.model(prepared, target)
            scores = graph.scores(output)
            return Arrays(
                graph.map(output, aim).cpu().numpy(),
                None if scores is None else scores.cpu().numpy(),
                output.embedding.float().cpu().numpy(),
            )

    def _close(self) -> None:
        self._graph = None


def _find_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise OptionError(
            f"engine eager: device {device!r}, allowed: auto, cpu, cuda, cuda:N"
        ) from None
    if found.type == "cuda":
        count = torch.cuda.device_count()
        if (found.index or 0) >= count:
            raise EngineUnavailable(
                f"engine eager: device {device} asked for, torch sees {count} CUDA device(s); "
                "use --device cpu, or install a torch built for your GPU"
            )
    elif found.type != "cpu":
        raise OptionError(f"engine eager: device {device!r}, allowed: auto, cpu, cuda, cuda:N")
    return found
