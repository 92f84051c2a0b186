"""From a model to the portable graph: one ONNX file, checked, with weights in 16 bits.

Needs the extra `train`. Nothing is fused during export: BatchNorm folded into a convolution would
change its weights, and they are stored as float16 only because `nem.bundle_io.round_weights_` made
that lossless. Runtimes fold the casts and the BatchNorm themselves when they compile.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import Dim

from engines.errors import EngineError, ExportError
from engines.graph import FrameGraph
from engines.onnx_export import export_program, need_exporter, open_checked
from engines.onnx_passes import (
    CLASSES,
    FRAMES,
    halve_weights,
    mark_resize,
    strip_notes,
)
from nem.bundle import Bundle
from nem.bundle_io import round_weights_, write_bundle
from nem.model import NEM

TOLERANCE = 1e-3
"""Largest allowed difference between onnxruntime and torch, both in float32: of masks and scores,
and of embedding and ranking in units of their largest value. Sums in another order move them by
about 1e-6, a wrong operator or a lost resize by far more."""


def export_onnx(model: NEM, path: Path | str) -> Path:
    """Write the fused graph of `model` as one ONNX file.

    Inputs `frames` uint8 (N, H, W, 3), N, H and W free, and, where the model has a target head,
    `target` int64 (N,). Outputs `mask_<aim>` for each aim, `scores` (only with classes) and
    `embedding`, as in `engines.graph.FrameGraph`. Convolution and linear weights that are exact in
    16 bits are stored so. Where onnxruntime is installed, the file's results are
    compared with torch's before it gets its name.

    Args:
        model: left as it is.
        path: the file; written beside it first, then renamed.

    Raises:
        EngineUnavailable: onnx or onnxscript is missing.
        EngineError: the model can't be exported, or the file computes something else.
    """
    need_exporter()
    path = Path(path)
    model = copy.deepcopy(model).cpu().float()
    model.tabulate_()
    graph = FrameGraph(model).eval()
    program = _export(graph)
    mark_resize(program.model)
    halve_weights(program.model)
    strip_notes(program.model)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        program.save(partial, external_data=False)
        check_onnx(partial, graph)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def save_bundle(
    model: NEM,
    folder: Path | str,
    *,
    name: str,
    training: Mapping[str, Any] | None = None,
    quality: Mapping[str, float] | None = None,
    card: str | None = None,
    **info: Any,
) -> Bundle:
    """Round the model's weights in place, export its graph and write the bundle.

    Args:
        model: NEM; its convolution and linear weights are rounded to 16 bits.
        folder: the bundle's folder.
        name: the bundle's name.
        training: how it was made; default nothing.
        quality: measured figures; default none.
        card: the model card; default a few lines saying what is known.
        **info: further arguments of `nem.bundle_io.write_bundle`.

    Raises:
        BundleError, WriteError, EngineError: see `write_bundle` and `export_onnx`.
        ExportError: the folder for temporary files doesn't take the graph.
    """
    round_weights_(model)
    with tempfile.TemporaryDirectory(prefix="nem-export-") as temporary:
        try:
            graph = export_onnx(model, Path(temporary) / "graph.onnx")
        except OSError as error:
            reason = error.strerror or error
            raise ExportError(
                f"graph of bundle {name}: can't be written to {temporary}: {reason}; make room "
                "there, or set TMPDIR to another folder"
            ) from None
        return write_bundle(
            Path(folder),
            model,
            graph,
            name=name,
            training=training or {},
            quality=quality or {},
            card=_default_card(model, name) if card is None else card,
            **info,
        )


def _export(graph: FrameGraph) -> Any:
    height, width = graph.input_size
    # Odd and unequal sizes, so that no dimension is taken for another or for a constant.
    example: dict[str, torch.Tensor] = {
        FRAMES: torch.zeros((2, height + 11, width + 6, 3), dtype=torch.uint8)
    }
    batch = Dim("batch")
    free: dict[str, Any] = {FRAMES: {0: batch, 1: Dim("height"), 2: Dim("width")}}
    if "target" in graph.model.aims:
        example[CLASSES] = torch.tensor([-1, 0])
        free[CLASSES] = {0: batch}
    return export_program(graph, example, free)


def check_onnx(path: Path, graph: FrameGraph) -> None:
    """Compare the file with torch in onnxruntime (where installed), at and off model size.

    Where there is a target head: for the most probable class, and for one that is asked for.
    """
    session = open_checked(path)
    if session is None:
        return
    random = np.random.default_rng(0)
    size, classes = graph.input_size[0], graph.model.backbone.num_classes
    cases = [((1, size, size, 3), [-1]), ((2, size + 7, size // 2 + 1, 3), [classes - 1, -1])]
    for shape, target in cases:
        given = {FRAMES: random.integers(0, 256, shape, dtype=np.uint8)}
        if "target" in graph.model.aims:
            given[CLASSES] = np.array(target, np.int64)
        with torch.no_grad():
            expected = graph(*(torch.from_numpy(value) for value in given.values()))
        found = session.run(graph.outputs, given)
        for name, value, reference in zip(graph.outputs, found, expected, strict=True):
            scale = max(1.0, float(reference.abs().max()))
            difference = float(np.abs(value - reference.numpy()).max()) / scale
            if not difference <= TOLERANCE:
                raise EngineError(
                    f"exported graph differs from torch in {name} by {difference:.2g} on frames "
                    f"{shape}, allowed is {TOLERANCE:g}; is the model finite?"
                )


def _default_card(model: NEM, name: str) -> str:
    backbone = model.backbone
    return (
        f"# {name}\n\nExplains `{backbone.name}` (weights: {backbone.source}) at "
        f"{backbone.input_size} px with a `{model.decoder_kind}` decoder, heads: "
        f"{', '.join(model.aims)}. Masks show what the model's features and decisions depend on; "
        "they are no segmentation.\n"
    )
