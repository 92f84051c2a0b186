"""OpenVINO, the engine of a CPU: one compiled model per batch size, one request, all cores in it.

All heads of a bundle are outputs of one graph and are computed together, so that another aim or
class is the next frame's; only the map that is asked for is copied out.

The base class hands over frames of model size, so the resize is cut out of the graph (as an
identity it would still cost a third of the time of a small model). Compiled models for one frame
are kept in the store: importing one takes half the time of reading and compiling the graph.
"""

from __future__ import annotations

import hashlib
import io
import platform
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.base import Arrays, Engine, Frames
from engines.cpu import cpu_flags, cpu_model, has_bf16
from engines.errors import EngineError, EngineUnavailable, OptionError, StoreError
from engines.onnx_passes import (
    CLASSES,
    EMBEDDING,
    FRAMES,
    PIXELS,
    RESIZED,
    SCORES,
    map_name,
)
from engines.ov_runtime import openvino as ov
from engines.signal_stack import kept_signal_stack
from engines.store import Store
from nem.bundle import Bundle
from nem.explanation import Aim, class_names
from nem.manifest import GRAPH

RECIPE = "2"
"""Version of what this module does to a graph before compiling; part of the store's key."""

SHAPES_KEPT = 4
"""Compiled batch sizes kept in memory; each holds the weights once more."""

PRECISIONS = {"f32": ov.Type.f32, "bf16": ov.Type.bf16}


class OpenVinoEngine(Engine):
    """Runs the bundle's graph with OpenVINO on the CPU.

    Args:
        bundle: an opened bundle.
        device: "cpu" or "auto".
        precision: "f32", "bf16", or "auto": bf16 where the CPU computes in it, else f32.
            Sigmoid and softmax and all outputs are float32 in both.
        store: where compiled models are kept; default the user's cache folder.
    """

    name = "openvino"

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        precision: str = "auto",
        store: Store | None = None,
    ) -> None:
        if device not in ("auto", "cpu"):
            raise OptionError(
                f"engine openvino: device {device!r}, allowed: auto, cpu (for a GPU: engine eager)"
            )
        with kept_signal_stack():
            self._core = ov.Core()
            found = find_precision(self._core, precision)
        self._bundle = bundle
        self._store = store or Store()
        self._requests: OrderedDict[int, Any] = OrderedDict()
        super().__init__(
            device="cpu",
            precision=found,
            input_size=(bundle.manifest.input_size,) * 2,
            names=(),
            aims=bundle.manifest.heads,
        )
        model = self._request(1).get_compiled_model()
        absent = [aim for aim in self.aims if not _has(model.outputs, map_name(aim))]
        self._targeted = _has(model.inputs, CLASSES)
        if absent or self._targeted != ("target" in self.aims):
            raise EngineError(
                f"{bundle.graph_path}: has not the heads of its manifest "
                f"({', '.join(self.aims)}); save the bundle again with engines.save_bundle"
            )
        self._classes = _width(model, SCORES) if _has(model.outputs, SCORES) else 0
        self.names = class_names(bundle.manifest.classes, self._classes)

    def _run(self, frames: Frames, aim: Aim, classes: NDArray[np.int64] | None) -> Arrays:
        request = self._request(len(frames))
        request.set_tensor(FRAMES, ov.Tensor(frames, shared_memory=True))
        if self._targeted:
            request.get_tensor(CLASSES).data[:] = -1 if classes is None else classes
        request.infer()
        scores = self._read(request, SCORES) if self._classes else None
        return Arrays(self._read(request, map_name(aim)), scores, self._read(request, EMBEDDING))

    def _close(self) -> None:
        with kept_signal_stack():
            self._requests.clear()
            del self._core

    @staticmethod
    def _read(request: Any, name: str) -> NDArray[np.float32]:
        return np.array(request.get_tensor(name).data, dtype=np.float32)  # a copy: reused inside

    def _request(self, batch: int) -> Any:
        """The request for frames (batch, S, S, 3), compiled when first asked for."""
        request = self._requests.pop(batch, None)
        if request is None:
            # Only single frames are stored: other batches are rare and each fills 4 bytes a weight.
            compiled = self._stored() if batch == 1 else self._compile(batch)
            request = compiled.create_infer_request()
        self._requests[batch] = request
        if len(self._requests) > SHAPES_KEPT:
            with kept_signal_stack():  # freeing a compiled model replaces it, too
                self._requests.popitem(last=False)
        return request

    def _stored(self) -> Any:
        manifest = self._bundle.manifest
        flags = hashlib.sha256(" ".join(sorted(cpu_flags())).encode()).hexdigest()
        facts = {
            "engine": self.name,
            "bundle": manifest.name,
            "graph": manifest.files[GRAPH],
            "recipe": RECIPE,
            "openvino": ov.get_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "device": self.device,
            "precision": self.precision,
            "shape": "x".join(map(str, (1, *self.input_size, 3))),
            "cpu": cpu_model(),
            "cpu_flags": flags[:16],
        }
        return self._store.fetch(
            facts, build=lambda: self._compile(1), dump=_dump, load=self._import
        )

    def _compile(self, batch: int) -> Any:
        path = self._bundle.graph_path
        try:
            model = self._core.read_model(path)
            cut_resize(model)
            shapes = {FRAMES: [batch, *self.input_size, 3], CLASSES: [batch]}
            model.reshape({name: s for name, s in shapes.items() if _has(model.inputs, name)})
            with kept_signal_stack():
                return self._core.compile_model(model, "CPU", self._config())
        except RuntimeError as error:
            raise EngineError(f"{path}: OpenVINO can't compile it: {_line(error)}") from None

    def _import(self, blob: bytes) -> Any:
        try:
            with kept_signal_stack():
                return self._core.import_model(blob, "CPU", self._config())
        except RuntimeError as error:
            raise StoreError(f"OpenVINO can't import it: {_line(error)}") from None

    def _config(self) -> dict[str, Any]:
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": PRECISIONS[self.precision],
        }


def find_precision(core: Any, asked: str) -> str:
    """The precision to compute in, "f32" or "bf16"; see `OpenVinoEngine`.

    Raises:
        OptionError: `asked` is unknown.
        EngineUnavailable: bf16 asked for on a CPU without it.
    """
    if asked not in ("auto", *PRECISIONS):
        allowed = ", ".join(("auto", *PRECISIONS))
        raise OptionError(f"engine openvino: precision {asked!r}, allowed: {allowed}")
    native = has_bf16(cpu_flags())  # OpenVINO also lists what it would only emulate
    able = native is not False and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if asked == "auto":
        return "bf16" if able else "f32"
    if asked == "bf16" and not able:
        raise EngineUnavailable(
            f"engine openvino: precision bf16 asked for, but this CPU ({cpu_model()}) does not "
            "compute in it; use f32 or auto"
        )
    return asked


def cut_resize(model: Any) -> None:
    """Feed the float frames to the readers of the resized ones: only for frames of model size.

    Raises:
        EngineError: the graph lacks the names that `engines.export` gives.
    """
    found = {
        name: output
        for node in model.get_ordered_ops()
        for output in node.outputs()
        for name in output.get_names() & {PIXELS, RESIZED}
    }
    if len(found) != 2:
        raise EngineError(
            f"graph without the tensors {PIXELS!r} and {RESIZED!r}; save the bundle again "
            "with engines.save_bundle"
        )
    for reader in list(found[RESIZED].get_target_inputs()):
        reader.replace_source_output(found[PIXELS])
    model.validate_nodes_and_infer_types()


def _dump(compiled: Any) -> bytes:
    stream = io.BytesIO()
    try:
        compiled.export_model(stream)
    except RuntimeError as error:
        raise StoreError(f"OpenVINO can't export it: {_line(error)}") from None
    return stream.getvalue()


def _has(ports: Any, name: str) -> bool:
    return any(name in port.get_names() for port in ports)


def _width(model: Any, name: str) -> int:
    return int(model.output(name).shape[1])


def _line(error: BaseException) -> str:
    """The telling line of an OpenVINO message: the last one, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
