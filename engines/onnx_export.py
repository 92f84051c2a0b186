"""Torch's ONNX exporter behind one call, and onnxruntime to check what came out."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engines.alone import alone
from engines.errors import EngineError, EngineUnavailable
from engines.graph import FrameGraph
from engines.quiet_logs import quiet_logs

OPSET = 18
"""ONNX operator set: the first with all operators used here, read by all runtimes of interest."""

LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")


def need_exporter() -> None:
    """Raise EngineUnavailable where a package of the exporter is missing."""
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise EngineUnavailable(
                f"export needs {package}, which is not installed: pip install 'nem-stream[train]'"
            )


def export_program(
    graph: FrameGraph,
    example: Mapping[str, Tensor],
    free: dict[str, Any] | None = None,
    fold_limit: int | None = None,
) -> Any:
    """The graph as torch's ONNX program, inlined, with its constants folded.

    Args:
        graph: in eval mode.
        example: inputs by name, in order.
        free: dynamic dimensions of each input, as `torch.export` takes them; None: all fixed.
        fold_limit: bytes up to which constants are computed; None: the exporter's own limits.

    Raises:
        EngineError: it can't be exported.
    """
    name = graph.model.backbone.name
    try:
        with alone, quiet_logs(*LOGGERS), torch.no_grad():
            program = torch.onnx.export(
                graph,
                tuple(example.values()),
                dynamo=True,
                input_names=list(example),
                output_names=graph.outputs,
                dynamic_shapes=free,
                opset_version=OPSET,
                optimize=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:240]
        raise EngineError(f"{name} can't be exported: {reason}") from error
    if program is None:
        raise EngineError(f"{name} can't be exported: the exporter gave none")
    from onnxscript import optimizer

    limits = {} if fold_limit is None else dict.fromkeys(
        ("input_size_limit", "output_size_limit"), fold_limit
    )  # fmt: skip
    with alone, quiet_logs(*LOGGERS):
        optimizer.inline(program.model)
        optimizer.fold_constants(program.model, **limits)
        optimizer.remove_unused_nodes(program.model)
    return program


def open_checked(path: Path) -> Any:
    """A session in onnxruntime (None without it) of a file that ONNX's own checker accepts."""
    import onnx

    onnx.checker.check_model(str(path))
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # its threads spin, which slows whatever else runs
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
