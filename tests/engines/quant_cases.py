"""Quantised graphs of the default model, for the tool `trt-dryrun` in its own environment.

Calibrated on golden frames: which operators there are does not hang on the pictures.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.calibration import Pictures
from engines.golden import golden_frames
from engines.parity import Parity, compare_answers
from engines.quant_check import HeldOut
from engines.trt_build import BuildOptions, make_graph
from engines.trt_quant import load_modelopt
from nem.bundle import open_bundle
from nem.bundle_io import load_model
from scripts.check_models_trt import HOME


def fp8_case() -> tuple[Any, ...]:
    return _case(BuildOptions((270, 480), "fp8", flavour="tensorrt-rtx", calibration=_pictures()))


def int8_case() -> tuple[Any, ...]:
    """On a CPU modelopt computes where on a GPU it puts in an operator; that is put in here.

    What looks for constants is given what `engines.trt_quant.exporting` gives it.
    """
    load_modelopt()
    import modelopt.torch.quantization.tensor_quant as quant

    def put_in(x: Any, amax: Any, bits: int, unsigned: bool, narrow: bool) -> Any:
        return quant.quantize_op(x, amax, bits, 0, unsigned, narrow)

    quant.fake_quant_impl, quant._tensor_quant = quant._tensor_quant, put_in
    return _case(BuildOptions((270, 480), "int8", calibration=_pictures()))


def _pictures() -> Pictures:
    side = open_bundle("nem-tiny").manifest.input_size
    return Pictures(golden_frames((side, side), 4), golden_frames((side, side), 1))


def _case(options: BuildOptions) -> tuple[Any, ...]:
    from modelopt.torch.quantization.utils import export_torch_mode

    graph = make_graph(load_model(open_bundle("nem-tiny")), options)
    with torch.no_grad():
        return graph, graph.example(), None, export_torch_mode


def simulate(precision: str, *, dark: bool = False) -> Parity:
    """How the default model differs from itself when modelopt rounds it on the CPU."""
    model = load_model(open_bundle("nem-tiny"))
    side = model.backbone.input_size
    frames = golden_frames((side, side), 24)
    seen = np.zeros_like(frames[8:]) if dark else frames[8:]
    options = BuildOptions(precision=precision, calibration=Pictures(seen, frames[:8]))
    graph = make_graph(model, options)

    def run(some: Any, expected: Any) -> dict[str, Any]:
        best = torch.from_numpy(expected["scores"].argmax(1))
        with torch.inference_mode():
            found = graph(torch.from_numpy(some), best)
        return {name: value.numpy() for name, value in zip(expected, found, strict=True)}

    held_out = HeldOut.of(model, frames[:8], (side, side))
    found = run(held_out.frames, held_out.expected)
    return compare_answers(
        found, held_out.expected, model.aims, engine="tensorrt", precision=precision
    )


def dry_run(precision: str) -> dict[str, Any]:
    """What the tool tells; fp8 is built as well, int8 can't be without a GPU."""
    build = ["--flavour", "rtx", "--build"] if precision == "fp8" else []
    root, tool = Path(__file__).parents[2], Path(os.environ[HOME]) / "bin" / "trt-dryrun"
    case = f"tests.engines.quant_cases:{precision}_case"
    done = subprocess.run(
        [tool, case, *build, "--runtime", "engine", "--json"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout)
    return report
