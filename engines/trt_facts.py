"""What a TensorRT engine depends on: the key it is stored under."""

from __future__ import annotations

import platform

from engines.changes import installed
from engines.gpus import Gpu
from engines.trt_api import Flavour
from nem.bundle import Bundle
from nem.manifest import GRAPH, WEIGHTS

RECIPE = "2"
"""Version of what `engines.fixed_graph`, `engines.trt_build` and `engines.golden` do; part of the
store's key."""


def engine_facts(
    bundle: Bundle,
    *,
    flavour: Flavour,
    precision: str,
    frame_size: tuple[int, int],
    batch: int,
    dynamic: bool = False,
    trt: str,
    gpu: Gpu,
    calibration: str | None = None,
) -> dict[str, str]:
    """All that an engine depends on, by name. Imports no runtime.

    Args:
        bundle: what is explained.
        flavour: of TensorRT.
        precision: of the arithmetic.
        frame_size: (height, width) of the frames.
        batch: frames per call.
        dynamic: whether a call may have fewer.
        trt: TensorRT's version.
        gpu: where it runs.
        calibration: hash of the pictures of a quantised engine; None for others.
    """
    quantised = {}
    if calibration is not None:
        quantised = {"calibration": calibration, "modelopt": installed("nvidia-modelopt")}
    files = bundle.manifest.files
    return {
        "engine": flavour,
        "bundle": bundle.manifest.name,
        "weights": files[WEIGHTS],
        "graph": files[GRAPH],
        "recipe": RECIPE,
        "precision": precision,
        **quantised,
        "frame": f"{frame_size[1]}x{frame_size[0]}",
        "batch": f"1 to {batch}" if dynamic else str(batch),
        "TensorRT": trt,
        "torch": installed("torch"),
        "Torch-TensorRT": installed(f"torch-{flavour}"),
        **gpu.facts,
        "system": f"{platform.system()} {platform.machine()}",
    }
