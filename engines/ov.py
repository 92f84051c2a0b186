"""OpenVINO, the engine of a CPU: all cores in one call, or shared out among calls side by side.

All heads of a bundle are outputs of one graph and are computed together, so that another aim or
class is the next frame's; only the map that is asked for is copied out. Of four heads three cost a
tenth of the time of a small model, so where it is known which will be asked for, the others are
left out.

The base class hands over frames of model size, so the resize is cut out of the graph (as an
identity it would still cost a third of the time of a small model). Compiled models for one frame
are kept in the store: importing one takes half the time of reading and compiling the graph. In int8
the rounded graph is kept in their place, see `engines.ov_int8`.
"""

from __future__ import annotations

import io
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.base import Arrays, Engine, Frames
from engines.batches import check_batch, fill_classes, filled, run_pieces
from engines.calibration import check_given, hash_files, read_pictures
from engines.changes import installed
from engines.cpu import cpu_flags, cpu_model, flags_digest, has_bf16
from engines.errors import EngineError, EngineUnavailable, OptionError, StoreError
from engines.forks import keep_in_children
from engines.onnx_passes import (
    CLASSES,
    EMBEDDING,
    FRAMES,
    SCORES,
    graph_outputs,
    map_name,
)
from engines.ov_graph import (
    INT8,
    PRECISIONS,
    cut_resize,
    fix_sizes,
    has_port,
    keep_maps,
    make_config,
)
from engines.ov_requests import Requests
from engines.ov_runtime import openvino as ov
from engines.signal_stack import kept_signal_stack
from engines.slots import Slots
from engines.store import Store
from nem.bundle import Bundle
from nem.explanation import Aim, class_names
from nem.manifest import GRAPH

RECIPE = "3"
"""Version of what this module does to a graph before compiling; part of the store's key."""

BUILD_SECONDS = 900.0
"""How long to wait for another process that finds ranges for the same: minutes, on a busy CPU."""


class OpenVinoEngine(Engine):
    """Runs the bundle's graph with OpenVINO on the CPU.

    Args:
        bundle: an opened bundle.
        device: "cpu" or "auto".
        precision: "f32", "bf16", or "auto": bf16 where the CPU computes in it, else f32.
            Sigmoid and softmax and all outputs are float32 in both. "int8" rounds further, after
            ranges found on pictures; what is not rounded is as with "auto".
        batch: frames computed at once. With 1, any number that comes is; with more, others are
            computed in turns, the last one filled up.
        calibration: those pictures, for int8 and nothing else: an image, a video or a folder.
        aims: heads that are computed, in the bundle's order; None is all of them.
        calls: runs at the same time; the cores are shared out among them.
        store: where compiled models are kept; default the user's cache folder.
        say: told in a line what takes long; default nobody.
    """

    name = "openvino"

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch: int = 1,
        calibration: Path | None = None,
        aims: Sequence[Aim] | None = None,
        calls: int = 1,
        store: Store | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if device not in ("auto", "cpu"):
            raise OptionError(
                f"engine openvino: device {device!r}, allowed: auto, cpu; for an NVIDIA GPU "
                "device cuda with engine auto"
            )
        check_batch(self.name, batch, calls)
        with kept_signal_stack():
            self._core = ov.Core()
            found = find_precision(self._core, precision)
            self._plain = find_precision(self._core, "auto" if found == INT8 else found)
        check_given(found, (INT8,), calibration)
        self._bundle, self._calibration = bundle, calibration
        self._say = say or (lambda _: None)
        self._rounded: Any = None
        self._store = store or Store()
        self._requests = Requests(self._compiled)
        super().__init__(
            device="cpu",
            precision=found,
            input_size=(bundle.manifest.input_size,) * 2,
            names=(),
            aims=bundle.manifest.heads if aims is None else tuple(aims),
            calls=calls,
        )
        self.batch = batch
        keep_in_children(self)
        if found == INT8:
            self._rounded = self._fetch_rounded()
        model = self._requests.make(batch, calls)
        absent = [aim for aim in self.aims if not has_port(model.outputs, map_name(aim))]
        self._targeted = has_port(model.inputs, CLASSES)
        if absent or self._targeted != ("target" in bundle.manifest.heads):
            raise EngineError(
                f"{bundle.graph_path}: has not the heads of its manifest "
                f"({', '.join(bundle.manifest.heads)}); save the bundle again with "
                "engines.save_bundle"
            )
        count = model.output(SCORES).shape[1] if has_port(model.outputs, SCORES) else 0
        self.names = class_names(bundle.manifest.classes, count)

    def _run(self, frames: Frames, aim: Aim, classes: NDArray[np.int64] | None) -> Arrays:
        names = graph_outputs((aim,), scores=bool(self.names))
        at_once = len(frames) if self.batch == 1 else self.batch

        def infer(some: Frames, asked: NDArray[np.int64] | None) -> dict[str, NDArray[np.float32]]:
            given = filled(some, at_once)
            with self._requests.lent(len(given)) as request:
                request.set_tensor(FRAMES, ov.Tensor(given, shared_memory=True))
                if self._targeted:
                    request.get_tensor(CLASSES).data[:] = fill_classes(asked, len(given))
                request.infer()
                outputs = {name: request.get_tensor(name).data[: len(some)] for name in names}
                # Copies: the memory is used again.
                return {name: np.array(value, np.float32) for name, value in outputs.items()}

        whole = run_pieces(infer, frames, classes, at_once)
        return Arrays(whole[map_name(aim)], whole.get(SCORES), whole[EMBEDDING])

    def _close(self) -> None:
        with kept_signal_stack():
            self._requests.clear()
            del self._core

    def forked(self) -> list[Any]:
        """What a forked process, which may close this but not run it, must not free."""
        self._busy = Slots(self.calls)  # threads of the parent may be in the one before
        self._requests.forked()
        return [vars(self).get("_core"), self._rounded, *self._requests.held()]

    def _compiled(self, batch: int) -> Any:
        """The model for frames (batch, S, S, 3)."""
        # Others than the batch asked for are rare, and each fills 4 bytes a weight.
        keep = batch == self.batch and self._rounded is None
        return self._stored() if keep else self._compile(batch)

    def _stored(self) -> Any:
        facts = self._facts(self.batch)
        if self.aims != self._bundle.manifest.heads:
            facts |= {"aims": " ".join(self.aims)}
        if self.calls > 1:
            facts |= {"calls": str(self.calls)}
        return self._store.fetch(
            facts,
            build=lambda: self._compile(self.batch),
            dump=_dump,
            load=self._import,
            say=self._say,
        )

    def _fetch_rounded(self) -> Any:
        from engines.ov_int8 import dump_graph, load_graph  # other precisions start without it

        assert self._calibration is not None
        facts = self._facts(1) | {  # ranges found once serve any batch
            "calibration": hash_files(self._calibration),
            "nncf": installed("nncf"),
        }
        return self._store.fetch(
            facts,
            build=self._round,
            dump=dump_graph,
            load=lambda blob: load_graph(self._core, blob),
            wait=BUILD_SECONDS,
            say=self._say,
        )

    def _round(self) -> Any:
        from engines.ov_int8 import load_nncf, make_int8

        assert self._calibration is not None
        load_nncf()  # said before pictures are read, which takes torch
        pictures = read_pictures(self._calibration, self.input_size[0], self._say)
        with kept_signal_stack():
            return make_int8(
                self._core, self._graph(1), self._plain, pictures, self._bundle.manifest, self._say
            )

    def _facts(self, batch: int) -> dict[str, str]:
        manifest = self._bundle.manifest
        return {
            "engine": self.name,
            "bundle": manifest.name,
            "graph": manifest.files[GRAPH],
            "recipe": RECIPE,
            "openvino": ov.get_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "device": self.device,
            "precision": self.precision,
            "batch": str(batch),
            "shape": "x".join(map(str, (batch, *self.input_size, 3))),
            "cpu": cpu_model(),
            "cpu_flags": flags_digest(),
        }

    def _graph(self, batch: int) -> Any:
        """What is compiled for so many frames of the model's own size."""
        if self._rounded is None:
            # Its bytes, of the hash that is in the key: the file may be another by now.
            model = self._core.read_model(self._bundle.read(GRAPH))
            cut_resize(model)
        else:
            model = self._rounded.clone()
        fix_sizes(model, batch, self.input_size)
        return model

    def _compile(self, batch: int) -> Any:
        try:
            model = self._graph(batch)
            keep_maps(model, self.aims)
            with kept_signal_stack():
                return self._core.compile_model(model, "CPU", self._config())
        except RuntimeError as error:
            path = self._bundle.graph_path
            raise EngineError(f"{path}: OpenVINO can't compile it: {_line(error)}") from None

    def _config(self) -> dict[str, Any]:
        return make_config(self._plain, self.calls)

    def _import(self, blob: bytes) -> Any:
        try:
            with kept_signal_stack():
                return self._core.import_model(blob, "CPU", self._config())
        except RuntimeError as error:
            raise StoreError(f"OpenVINO can't import it: {_line(error)}") from None


def find_precision(core: Any, asked: str) -> str:
    """The precision to compute in, "f32", "bf16" or "int8"; see `OpenVinoEngine`.

    Raises:
        OptionError: `asked` is unknown.
        EngineUnavailable: bf16 asked for on a CPU without it.
    """
    if asked not in ("auto", INT8, *PRECISIONS):
        allowed = ", ".join(("auto", *PRECISIONS, INT8))
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


def _dump(compiled: Any) -> bytes:
    stream = io.BytesIO()
    try:
        compiled.export_model(stream)
    except RuntimeError as error:
        raise StoreError(f"OpenVINO can't export it: {_line(error)}") from None
    return stream.getvalue()


def _line(error: BaseException) -> str:
    """The telling line of an OpenVINO message: the last one, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
