"""The graph for one frame size, batch and precision as an ONNX file. Needs the extra `train`.

Compilers that take their types from the graph (TensorRT, strongly typed) get here what they are to
compute: float16 weights and products where that is asked for, sizes that are numbers, and the
matrices of the resize as constants. Inputs and outputs are those of the free-size graph, but that
classes are int32.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.errors import EngineError, OptionError
from engines.fixed_graph import FixedGraph
from engines.graph import FrameGraph
from engines.onnx_export import export_program, need_exporter, open_checked
from engines.onnx_passes import CLASSES, FRAMES, strip_notes
from engines.parity import find_bound
from nem.model import NEM

PRECISIONS = ("f32", "f16")
"""What the file may compute in: runtimes and parsers that read bf16 from ONNX are rare."""

FOLD_LIMIT = 1 << 28
"""Constants up to this many bytes are computed at export. The exporter's own limits are smaller
than a classifier's rows, whose directions would be computed anew for every frame."""


def export_fixed(
    model: NEM,
    path: Path | str,
    *,
    frame_size: tuple[int, int] | None = None,
    precision: str = "f32",
    batch: int = 1,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write the graph for frames of one size as one ONNX file.

    Inputs `frames` uint8 (batch, H, W, 3) and, where the model has a target head, `target` int32
    (batch,), -1 for the most probable class. Outputs `mask_<aim>` for each aim, `scores` (only
    with classes) and `embedding`, all float32. Where onnxruntime is installed, the file's results
    are compared with those of torch in float32, within the bounds of `engines.parity`.

    Args:
        model: left as it is.
        path: the file. It is written in place: its name is the caller's matter.
        frame_size: (height, width) of the frames; default: the model's input size.
        precision: of `PRECISIONS`.
        batch: frames of a run.
        notes: words kept in the file's metadata, by key; default none.

    Raises:
        EngineUnavailable: onnx or onnxscript is missing.
        EngineError: the model can't be exported, or the file computes something else.
        OptionError: a precision or size that can't be had.
    """
    need_exporter()
    if precision not in PRECISIONS:
        raise OptionError(f"onnx: precision {precision!r}, allowed: {', '.join(PRECISIONS)}")
    path = Path(path)
    model = copy.deepcopy(model).cpu().float().eval()
    graph = FixedGraph(model, frame_size, precision)
    example = dict(zip((FRAMES, CLASSES), graph.example(batch), strict=False))
    program = export_program(graph, example, fold_limit=FOLD_LIMIT)
    strip_notes(program.model)
    program.model.metadata_props.update(notes or {})
    program.save(path, external_data=False)
    check_fixed(path, graph, model, batch)
    return path


def check_fixed(path: Path, graph: FixedGraph, model: NEM, batch: int) -> None:
    """Compare the file with torch in onnxruntime, where that is installed.

    Where there is a target head: for the most probable class, and for one that is asked for.
    """
    from engines.golden import check, golden_frames

    session = open_checked(path)
    if session is None:
        return
    frames = golden_frames(graph.frame_size, batch)
    reference = FrameGraph(model)
    targeted = "target" in model.aims
    for asked in [-1, model.backbone.num_classes - 1] if targeted else [-1]:
        given: dict[str, Any] = {FRAMES: frames}
        if targeted:
            given[CLASSES] = np.full(batch, asked, np.int32)
        with torch.no_grad():
            right = reference(*(torch.from_numpy(value) for value in given.values()))
        names = graph.outputs
        expected = {name: value.numpy() for name, value in zip(names, right, strict=True)}
        found = dict(zip(names, session.run(names, given), strict=True))
        problem = check(found, expected, find_bound("onnx", graph.precision))
        if problem is not None:
            raise EngineError(
                f"exported graph differs from torch: {problem}; is the model finite, and are its "
                f"values within {graph.precision}?"
            )
