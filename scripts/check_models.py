"""Does every kind of model survive its export, and does TensorRT take it whole?

    python -m scripts.check_models
    TRT_DRYRUN_HOME=DIR python -m scripts.check_models --models resnet50 --json found.json

For nem-tiny and for NEM-U on other backbones (random weights; the head is scaled so that masks use
the whole range):

* the ONNX file in onnxruntime and OpenVINO, float32, against torch, on picture-like frames of
  model size and of another size: no mask pixel may differ by more than 1/255;
* where TRT_DRYRUN_HOME names an environment of the tool `trt-dryrun`, which needs no GPU, with
  this project's packages in it, too: the graph for 1080p, frames in and masks out, and with the
  overlay drawn, becomes exactly one block with nothing left to torch, and TensorRT-RTX compiles
  it. Nothing is run: no speed, no results.

Exit status 1 where anything is missed. Needs `pip install '.[train]'` and onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import EngineError, EngineUnavailable
from engines.golden import golden_frames
from engines.graph import FrameGraph
from engines.onnx_passes import CLASSES, FRAMES, graph_outputs
from engines.trt_build import PRECISIONS
from nem.model import NEM
from scripts.check_models_trt import HOME, MODELS, build_model, check_tensorrt
from scripts.ending import launch, new_file

ASKED = 1 / 255
"""Largest difference of a mask pixel: one step of an 8-bit picture of it."""
LEAST_SPREAD = 0.5
"""A mask has to use this much of [0, 1], or agreeing on it says nothing."""
OTHER_SIZE = (270, 481)
"""Frames that the graph has to resize, by unequal ratios."""
Arrays = Mapping[str, NDArray[Any]]
Runner = Callable[[Arrays], list[NDArray[np.float32]]]


def onnx_runners(path: Path) -> dict[str, Runner]:
    """The file in the runtimes it has to work in, all float32; outputs are the maps, then more."""
    from engines.onnx_export import open_checked
    from engines.ov_runtime import openvino as ov

    session = open_checked(path)
    if session is None:
        raise EngineUnavailable("onnxruntime is not installed: pip install onnxruntime")
    core = ov.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(path), "CPU", hints)

    def in_openvino(given: Arrays) -> list[NDArray[np.float32]]:
        return [np.array(value) for value in compiled(dict(given)).values()]

    return {
        "onnxruntime": lambda given: session.run(None, dict(given)),
        "openvino": in_openvino,
    }


def mask_differences(model: NEM, runners: Mapping[str, Runner]) -> dict[str, dict[str, float]]:
    """By runtime, then by "model size" and "other size": the largest difference of a mask pixel.

    A ranking is unbounded, so its difference is in units of its largest value.

    Raises:
        EngineError: the masks use too little of their range for agreement to mean anything.
    """
    graph = FrameGraph(model).eval()
    found: dict[str, dict[str, float]] = {name: {} for name in runners}
    for label, size in (("model size", graph.input_size), ("other size", OTHER_SIZE)):
        given: dict[str, NDArray[Any]] = {FRAMES: golden_frames(size, 2)}
        if "target" in model.aims:
            given[CLASSES] = np.array([-1, model.backbone.num_classes // 2])
        with torch.no_grad():
            tensors = [torch.from_numpy(value) for value in given.values()]
            expected = [value.numpy() for value in graph(*tensors)]
        first = expected[0]
        if model.aims[0] != "ranking" and not np.ptp(first) >= LEAST_SPREAD:
            raise EngineError(f"the mask only varies by {np.ptp(first):.2g}: a check of nothing")
        for name, run in runners.items():
            maps = zip(model.aims, run(given), expected, strict=False)
            # np.max and not max: a NaN has to win.
            found[name][label] = float(
                np.max([np.abs(a - b).max() / _unit(aim, b) for aim, a, b in maps])
            )
    return found


def _unit(aim: str, wanted: NDArray[np.float32]) -> float:
    return max(1.0, float(np.abs(wanted).max())) if aim == "ranking" else 1.0


def check_onnx(model: NEM) -> dict[str, Any]:
    """Export, run, compare; `missed` tells what is not as asked for."""
    from engines.export import export_onnx

    with tempfile.TemporaryDirectory(prefix="nem-check-") as folder:
        try:
            path = export_onnx(model, Path(folder) / "graph.onnx")
            found = mask_differences(model, onnx_runners(path))
        except (EngineError, RuntimeError) as error:
            return {"missed": [" ".join(str(error).split())[:300]]}
    missed = [
        f"{runtime} at {label}: mask off by {off:.2g}"
        for runtime, row in found.items()
        for label, off in row.items()
        if not off <= ASKED
    ]
    return {"differences": found, "missed": missed}


def check(name: str, precision: str) -> dict[str, Any]:
    """All that can be checked here of one model."""
    model = build_model(name)
    row: dict[str, Any] = {"model": name, "onnx": check_onnx(model)}
    if os.environ.get(HOME):
        for part, case in (("masks", "mask_case"), ("overlay", "overlay_case")):
            names = graph_outputs(model.aims, scores=model.backbone.num_classes > 0)
            outputs = len(names) + (part == "overlay")
            row[part] = check_tensorrt(name, precision, case, outputs)
    return row


def missed_by(row: Mapping[str, Any]) -> list[str]:
    """Everything one model misses."""
    return [line for part in row.values() if isinstance(part, dict) for line in part["missed"]]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows for people: largest mask differences, and what TensorRT made of the graphs."""
    heads = ("onnxruntime", "", "openvino", "", "TensorRT masks", "TensorRT overlay")
    widths = (12, 12, 12, 12, 28, 28)
    lines = [
        "".join([f"{'model':<24}", *(f"{h:<{w}}" for h, w in zip(heads, widths, strict=True))])
    ]
    sizes = ("model size", "other size") * 2
    lines.append(" " * 24 + "".join(f"{size:<12}" for size in sizes))
    for row in rows:
        found = row["onnx"].get("differences", {})
        cells = [
            f"{found[runtime][label]:.1e}" if found else "failed"
            for runtime in ("onnxruntime", "openvino")
            for label in sizes[:2]
        ]
        cells += [_built(row.get("masks")), _built(row.get("overlay"))]
        verdict = "MISSED" if missed_by(row) else "ok"
        text = "".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append(f"{row['model']:<24}{text}{verdict}")
        lines += [f"    {line}" for line in missed_by(row)]
    return lines


def _built(part: Mapping[str, Any] | None) -> str:
    if part is None:
        return "not checked"
    if part["missed"]:
        return "failed"
    return f"1 block, {part['layers']} layers, {part['engine_mb']:.0f} MB"


def main() -> int:
    """Parse, check, print."""
    parser = argparse.ArgumentParser(description="Check that models survive their export.")
    parser.add_argument(
        "--models", nargs="+", default=MODELS, help="bundles or timm names; default: seven of them"
    )
    parser.add_argument(
        "--precision", default="f16", choices=PRECISIONS, help="of the TensorRT graphs (f16)"
    )
    parser.add_argument("--json", type=new_file, help="write everything found here")
    args = parser.parse_args()
    if not os.environ.get(HOME):
        print(f"TensorRT is not checked: {HOME} names no environment of trt-dryrun")
    rows = []
    for name in args.models:
        print(f"checking {name}", file=sys.stderr)
        rows.append(check(name, args.precision))
    print("\n".join(table(rows)))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    missed = sum(bool(missed_by(row)) for row in rows)
    print(f"{len(rows) - missed} of {len(rows)} models as asked for (masks within {ASKED:.4f})")
    return 1 if missed else 0


if __name__ == "__main__":
    launch(main)
