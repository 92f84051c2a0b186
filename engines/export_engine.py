"""A TensorRT engine as a file, with a file beside it that says what it is.

The engine fits this machine's GPU and TensorRT. It is judged before it is written: TensorRT picks
kernels anew at each build, so each engine runs the golden frames first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineError, EngineUnavailable
from engines.onnx_passes import CLASSES, EMBEDDING, FRAMES, SCORES, map_name
from nem.bundle import Bundle

if TYPE_CHECKING:
    from engines.trt_build import BuildOptions
    from engines.trt_runner import Port, TrtRunner

Say = Callable[[str], None]


def write_engine(
    bundle: Bundle,
    path: Path,
    *,
    frame_size: tuple[int, int],
    precision: str,
    batch: int,
    facts: Mapping[str, Any],
    say: Say,
) -> None:
    """Build an engine, try it, and write it and its `.json`.

    Args:
        bundle: an opened bundle.
        path: the engine's file, in a folder that belongs to the caller.
        frame_size: (height, width) of the frames.
        precision: of `engines.trt_build.PRECISIONS`; without torch only f32 can be had.
        batch: frames of a run.
        facts: what the `.json` says of the bundle; the engine's own are added.
        say: told in a line what is being done.

    Raises:
        EngineUnavailable: TensorRT, the GPU, or for f16 and bf16 torch is missing.
        EngineError: it can't be built, or answers wrongly.
    """
    from engines.gpus import find_gpu
    from engines.trt_api import load_trt, trt_version
    from engines.trt_build import BuildOptions
    from engines.trt_runner import TrtRunner

    trt = load_trt("tensorrt")
    gpu = find_gpu("cuda", "tensorrt")
    options = BuildOptions(frame_size=frame_size, precision=precision, batch=batch)
    engine, route = _build(bundle, options, path.parent, say)
    say("running the golden frames")
    with closing(TrtRunner(engine, device=gpu.index)) as runner:
        _judge(runner, bundle, frame_size, options)
        inputs, outputs = _listed(runner.inputs), _listed(runner.outputs)
    path.write_bytes(engine)
    told = {
        **facts,
        "engine": path.name,
        "sha256": hashlib.sha256(engine).hexdigest(),
        "size": len(engine),
        "inputs": inputs,
        "outputs": outputs,
        "built_with": route,
        "versions": {**facts.get("versions", {}), "tensorrt": trt_version(trt)},
        "gpu": asdict(gpu),
        "system": f"{platform.system()} {platform.machine()}",
    }
    path.with_suffix(".json").write_text(json.dumps(told, indent=1), encoding="utf-8")


def _build(bundle: Bundle, options: BuildOptions, folder: Path, say: Say) -> tuple[bytes, str]:
    """The engine and what built it: Torch-TensorRT, or where that can't be had TensorRT alone."""
    from engines.trt_build import build_engine
    from engines.trt_onnx import build_from_onnx

    if not _has_torch():
        if options.precision != "f32":
            raise EngineUnavailable(
                f"an engine in {options.precision} needs torch and timm: pip install "
                "'nem-stream[train]'; or take f32, or build from an ONNX file exported elsewhere"
            )
        return build_from_onnx(bundle.graph_path, options, say), "onnx"
    from nem.bundle_io import load_model

    model = load_model(bundle)
    try:
        return build_engine(model, options, say), "torch-tensorrt"
    except EngineUnavailable as error:
        say(f"going by way of ONNX: {error}")
    from engines.onnx_fixed import export_fixed

    graph = export_fixed(
        model,
        folder / "graph.onnx",
        frame_size=options.frame_size,
        precision=options.precision,
        batch=options.batch,
    )
    return build_from_onnx(graph, options, say), "onnx"


def _judge(
    runner: TrtRunner, bundle: Bundle, frame_size: tuple[int, int], options: BuildOptions
) -> None:
    """Run the golden frames. Raises EngineError where the answer is not the right one."""
    from engines.golden import check, golden_frames
    from engines.parity import find_bound
    from engines.trt_open import golden_answer

    frames = golden_frames(frame_size, options.batch)
    expected = _reference(bundle, frames)
    found = golden_answer(runner, frames, expected)
    problem = check(found, expected, find_bound("tensorrt", options.precision))
    if problem is not None:
        raise EngineError(
            f"the engine just built does not compute what the model does: {problem}; use another "
            "precision, or another version of TensorRT"
        )


def _reference(bundle: Bundle, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """The right answer: torch's, or where that is missing OpenVINO's, in float32."""
    if _has_torch():
        from engines.golden import reference
        from nem.bundle_io import load_model

        return reference(load_model(bundle), frames)
    from engines.ov_runtime import openvino as ov
    from engines.signal_stack import kept_signal_stack

    with kept_signal_stack():
        run = ov.Core().compile_model(
            bundle.graph_path, "CPU", {"INFERENCE_PRECISION_HINT": ov.Type.f32}
        )
        given = {FRAMES: frames, CLASSES: np.full(len(frames), -1, np.int64)}
        inputs = {name for port in run.inputs for name in port.get_names()}
        found = run({name: given[name] for name in inputs & given.keys()})
        there = {name for port in run.outputs for name in port.get_names()}
        names = [*map(map_name, bundle.manifest.heads), SCORES, EMBEDDING]
        return {name: np.array(found[name], np.float32) for name in names if name in there}


def _has_torch() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "timm"))


def _listed(ports: Mapping[str, Port]) -> list[dict[str, Any]]:
    return [
        {"name": port.name, "shape": list(port.shape), "dtype": str(port.dtype)}
        for port in ports.values()
    ]
