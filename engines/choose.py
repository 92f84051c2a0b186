"""Which engine `auto` is, and why."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from engines.changes import installed
from engines.errors import EngineUnavailable
from engines.gpus import find_gpus
from engines.registry import available_engines

GPU_ORDER = ("tensorrt", "tensorrt-rtx", "inductor")
"""Engines of a GPU, the fastest first."""

RTX_GPUS = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities that TensorRT-RTX is made for. On another, an H200's 9.0, it did run, half
as fast as inductor, and told its log that it does not support it."""

TOOLKIT = Path("/usr/local/cuda")
"""Where the CUDA toolkit is, unless the environment tells another place."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What `auto` stands for on this machine.

    Attributes:
        engine: name of the engine.
        device: what it is to be asked for: never "auto", so that no engine chooses again.
        why: the reason, for people.
        wanting: there is a GPU, but no engine for it: people should be told.
    """

    engine: str
    device: str
    why: str
    wanting: bool = False


def choose_engine(device: str = "auto") -> Choice:
    """The engine for a device; loads no runtime.

    A GPU's engines are tensorrt, tensorrt-rtx and inductor, in this order, tensorrt-rtx last on a
    GPU that it is not made for: the first that can also be built here, where a GPU is asked for
    else the first that can run; on the CPU it is openvino. Only `device` auto may end on the CPU.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        EngineUnavailable: a GPU was asked for and no engine can use one.
    """
    if device == "cpu":
        return Choice("openvino", "cpu", "the CPU was asked for")
    try:
        gpu = find_gpus()[0]
    except EngineUnavailable as error:
        if device == "auto" or not str(device).startswith("cuda"):
            return Choice("openvino", "cpu" if device == "auto" else device, str(error))
        raise EngineUnavailable(f"device {device}: {error}; use --device cpu") from None
    found = {info.name: info for info in available_engines()}
    missing: list[str] = []
    built_only = ""
    unlisted = gpu.capability not in RTX_GPUS
    for name in sorted(GPU_ORDER, key=lambda name: unlisted and name == "tensorrt-rtx"):
        lacking = found[name].reason or _blind(name)
        no_build = found[name].no_build or _without_tools(name)
        if lacking is None and no_build is None:
            before = f"; {'; '.join(missing)}" if missing else ""
            asked = "cuda" if device == "auto" else device
            return Choice(name, asked, f"{gpu.name} is there{before}")
        if lacking is None and not built_only:
            built_only = name
        missing.append(f"{name}: {lacking or no_build}")
    text = "; ".join(missing)
    if device != "auto" and built_only:
        return Choice(built_only, device, f"it runs what is built already; {text}")
    if device != "auto":
        raise EngineUnavailable(f"device {device}: no engine can use it: {text}")
    return Choice("openvino", "cpu", f"{gpu.name} is there, but no engine for it: {text}", True)


def _blind(engine: str) -> str | None:
    """Why an engine of torch can't see the GPU, as far as that shows without loading torch."""
    version = installed("torch")
    if engine != "inductor" or not version.endswith("+cpu"):
        return None
    return f"torch {version} is built for CPUs; install one built for CUDA"


def _without_tools(engine: str) -> str | None:
    """What an engine of torch builds with and does not find where it looks, with the cure."""
    if engine != "inductor" or sys.platform != "linux":
        return None
    compiler, *_ = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if shutil.which(compiler) is None:
        return f"it builds with a C++ compiler, and {compiler} is not there; install g++"
    places = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), shutil.which("nvcc"))
    if not any(places) and not TOOLKIT.exists():
        return (
            "it builds with the CUDA toolkit, which is not there; install NVIDIA's toolkit and set "
            "CUDA_HOME to its folder"
        )
    return None
