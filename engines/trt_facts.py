"""What a TensorRT engine depends on: the key it is stored under."""

from __future__ import annotations

import platform

from engines.changes import installed
from engines.gpus import Gpu
from engines.trt_build import BuildOptions
from nem.bundle import Bundle
from nem.manifest import GRAPH, WEIGHTS

RECIPE = "3"
"""Version of what `engines.fixed_graph`, `engines.trt_build` and `engines.golden` do; part of the
store's key."""


def engine_facts(
    bundle: Bundle, options: BuildOptions, gpu: Gpu, *, trt: str, calibration: str | None = None
) -> dict[str, str]:
    """All that an engine depends on, by name. Imports no runtime.

    Args:
        bundle: what is explained.
        options: what it is built for.
        gpu: where it runs.
        trt: TensorRT's version.
        calibration: hash of the pictures of a quantised engine; None for others.
    """
    quantised = {}
    if calibration is not None:
        quantised = {"calibration": calibration, "modelopt": installed("nvidia-modelopt")}
    files, flavour = bundle.manifest.files, options.flavour
    height, width = options.frame_size or (bundle.manifest.input_size,) * 2
    return {
        "engine": flavour,
        "bundle": bundle.manifest.name,
        "weights": files[WEIGHTS],
        "graph": files[GRAPH],
        "recipe": RECIPE,
        "precision": options.precision,
        **quantised,
        "frame": f"{width}x{height}",
        "batch": options.frames,
        "TensorRT": trt,
        "torch": installed("torch"),
        "Torch-TensorRT": installed(f"torch-{flavour}"),
        **gpu.facts,
        "system": f"{platform.system()} {platform.machine()}",
    }
