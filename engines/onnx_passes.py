"""What export changes in the ONNX graph: names to cut by, weights in 16 bits, no notes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from engines.errors import EngineError
from nem.explanation import Aim

FRAMES, CLASSES = "frames", "target"
"""Names of the graph's inputs; the second is there where the bundle has a target head."""

SCORES, EMBEDDING = "scores", "embedding"
"""Names of the outputs behind the maps; the first is there where the model has classes."""

OVERLAY = "overlay"
"""Name of the output that holds the drawn frames."""

PIXELS = "pixels"
"""Name of the float frames, before the resize."""

RESIZED = "resized"
"""Name of the resized frames, before normalising. A runtime that only gets frames of model size
joins the two and so loses the resize, see `engines.ov`."""

SMALLEST_HALF = 1024
"""Weights with fewer numbers stay float32: nothing is gained on them."""


def map_name(aim: Aim) -> str:
    """Name of the output that holds the map of an aim."""
    return f"mask_{aim}"


def graph_outputs(aims: Iterable[Aim], *, scores: bool) -> list[str]:
    """Names of what `engines.graph.FrameGraph.forward` gives, in order."""
    return [*map(map_name, aims), *([SCORES] if scores else []), EMBEDDING]


def mark_resize(model: Any) -> None:
    """Name the tensors before and behind the two matrix products of the resize.

    Raises:
        EngineError: the graph does not begin with the cast and the resize of `engines.graph`.
    """
    casts = [use.node for use in model.graph.inputs[0].uses() if use.node.op_type == "Cast"]
    products = 0
    value = casts[0].outputs[0] if len(casts) == 1 else None
    if value is not None:
        value.name = PIXELS
    while value is not None and products < 2:
        nodes = [use.node for use in value.uses()]
        value = nodes[0].outputs[0] if len(nodes) == 1 else None
        products += len(nodes) == 1 and nodes[0].op_type == "MatMul"
    if value is None:
        raise EngineError("export: the resize is not where it was expected; please report this")
    value.name = RESIZED


def halve_weights(model: Any) -> None:
    """Store weights of convolutions and products as float16 and a cast, where that is exact."""
    import onnx_ir as ir

    heavy = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    first = model.graph[0]
    for value in list(model.graph.initializers.values()):
        weight = value.const_value.numpy()
        if weight.dtype != np.float32 or weight.size < SMALLEST_HALF:
            continue
        if not {use.node.op_type for use in value.uses()} <= heavy:
            continue
        with np.errstate(over="ignore"):
            half = weight.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), weight):
            continue
        name = f"{value.name}.half"
        stored = ir.Value(
            name=name,
            shape=value.shape,
            type=ir.TensorType(ir.DataType.FLOAT16),
            const_value=ir.tensor(half, name=name),
        )
        cast = ir.node("Cast", [stored], attributes={"to": ir.DataType.FLOAT})
        cast.outputs[0].shape, cast.outputs[0].type = value.shape, value.type
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del model.graph.initializers[value.name]
        cast.outputs[0].name = value.name
        model.graph.initializers.add(stored)
        model.graph.insert_before(first, cast)


def strip_notes(model: Any) -> None:
    """Drop the exporter's notes: half the file of a small model, with paths of this machine."""
    graph = model.graph
    for item in (model, graph, *graph, *graph.inputs, *graph.initializers.values()):
        item.metadata_props.clear()
        item.doc_string = None
    for node in graph:
        for value in node.outputs:
            value.metadata_props.clear()
