"""What of OpenVINO is asked for, and what is done to a graph before it is compiled."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from engines.cpu import usable_cores
from engines.errors import EngineError
from engines.onnx_passes import CLASSES, FRAMES, PIXELS, RESIZED, map_name
from engines.ov_runtime import openvino as ov
from nem.explanation import AIMS, Aim

PRECISIONS = {"f32": ov.Type.f32, "bf16": ov.Type.bf16}

INT8 = "int8"
"""What is rounded further, see `engines.ov_int8`."""


def make_config(precision: str, calls: int = 1) -> dict[str, Any]:
    """How a graph is compiled: for so many calls at a time, in "f32" or "bf16"."""
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
    }
    if calls > 1:
        # Not tied to cores: what else the caller's threads do would wait for one of them.
        share = max(1, usable_cores() // calls)
        config |= {"INFERENCE_NUM_THREADS": share, "ENABLE_CPU_PINNING": False}
    return config


def has_port(ports: Any, name: str) -> bool:
    """Whether there is an input or output of that name."""
    return any(name in port.get_names() for port in ports)


def fix_sizes(model: Any, batch: int, size: tuple[int, int]) -> None:
    """Fix a graph to so many frames of (height, width) `size`."""
    shapes = {FRAMES: [batch, *size, 3], CLASSES: [batch]}
    model.reshape({name: s for name, s in shapes.items() if has_port(model.inputs, name)})


def keep_maps(model: Any, aims: Collection[Aim]) -> None:
    """Leave out the other aims' maps, and so what only they need."""
    names = {map_name(aim) for aim in AIMS if aim not in aims}
    for result in list(model.get_results()):
        if names & result.input(0).get_source_output().get_names():
            model.remove_result(result)


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
