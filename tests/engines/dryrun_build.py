"""Builds engines with the real converter and TensorRT-RTX; run by `test_dryrun` in an environment
which has them. Prints what it found as JSON.

RTX compiles without a GPU, but Torch-TensorRT asks for one and loads what it compiled: both are
answered here. What is looked at is the network that TensorRT compiled.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

HOME = "TRT_DRYRUN_HOME"

CASES = [((48, 100), "f16", 1, True), ((48, 100), "bf16", 2, False), (None, "f32", 1, True)]
DYNAMIC = [(None, "f16", 8, False), ((48, 100), "f16", 2, True)]


def python_with_rtx() -> Path | None:
    """What runs this module: that of the tool, else this one, where Torch-TensorRT-RTX is there."""
    if home := os.environ.get(HOME):
        return Path(home) / "venv" / "bin" / "python"
    try:
        distribution("torch-tensorrt-rtx")
    except PackageNotFoundError:
        return None
    return Path(sys.executable)


class Engine:
    """Stands for the engine that can't be loaded without a GPU."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def serialize(self) -> Any:
        return self.content

    def get_aliased_input_tensor(self, name: str) -> None:
        return None


class Runtime:
    def __init__(self, logger: Any) -> None:
        pass

    def deserialize_cuda_engine(self, content: Any) -> Engine:
        return Engine(content)


def ports(count: int, get: Any) -> list[list[Any]]:
    return [[t.name, t.dtype.name, list(t.shape)] for t in map(get, range(count))]


def through_onnx(path: Path, *, dynamic: bool) -> dict[str, Any]:
    """A bundle's own file, by the parser."""
    from engines import trt_onnx
    from engines.trt_build import BuildOptions

    found: dict[str, Any] = {}
    check = trt_onnx._check

    def look(trt: Any, network: Any, options: Any, name: str) -> None:
        found["inputs"] = ports(network.num_inputs, network.get_input)
        check(trt, network, options, name)

    trt_onnx._check = look
    options = BuildOptions((48, 100), "f32", 2, "tensorrt-rtx", dynamic=dynamic)
    found["bytes"] = len(trt_onnx.build_from_onnx(path, options))
    found["torch"] = "torch" in sys.modules
    return found


def through_torch(*, dynamic: bool) -> list[dict[str, Any]]:
    """nem-tiny, by Torch-TensorRT."""
    import torch

    torch.cuda.get_device_capability = lambda *_, **__: (8, 7)
    torch.cuda.current_device = lambda: 0
    torch.cuda.mem_get_info = lambda *_, **__: (64 << 30, 64 << 30)
    torch.cuda.empty_cache = lambda: None
    from engines.trt_build import BuildOptions, build_engine
    from engines.trt_convert import load_converter
    from nem.bundle import open_bundle
    from nem.bundle_io import load_model

    load_converter("tensorrt-rtx")
    importlib.import_module("tensorrt").Runtime = Runtime
    inside = importlib.import_module("torch_tensorrt.dynamo.conversion._TRTInterpreter")
    seen: dict[str, Any] = {}
    configured = inside.TRTInterpreter._populate_trt_builder_config

    def look(interpreter: Any, *args: Any) -> Any:
        network = interpreter.ctx.net
        seen["inputs"] = ports(network.num_inputs, network.get_input)
        seen["outputs"] = ports(network.num_outputs, network.get_output)
        return configured(interpreter, *args)

    inside.TRTInterpreter._populate_trt_builder_config = look
    model, found = load_model(open_bundle("nem-tiny")), []
    for size, precision, batch, overlay in DYNAMIC if dynamic else CASES:
        options = BuildOptions(size, precision, batch, "tensorrt-rtx", overlay, dynamic=dynamic)
        found.append({"bytes": len(build_engine(model, options)), **seen})
    return found


def module_case() -> tuple[Any, tuple[Any, ...]]:
    """For `trt-dryrun`: what the engine tensorrt-module compiles of nem-tiny."""
    from engines.trt_module import ModuleGraph
    from nem.bundle import open_bundle
    from nem.bundle_io import load_model

    graph = ModuleGraph(load_model(open_bundle("nem-tiny")), None, "f16")
    return graph, graph.example()


if __name__ == "__main__":
    if home := os.environ.get(HOME):
        sys.path[:0] = [str(Path(home) / part) for part in ("rtx", "common")]
    dynamic = sys.argv[2:] == ["dynamic"]
    with contextlib.redirect_stdout(sys.stderr):
        result = {
            "onnx": through_onnx(Path(sys.argv[1]), dynamic=dynamic),
            "torch": through_torch(dynamic=dynamic),
        }
    sys.stdout.write(json.dumps(result))
