"""Which engine `auto` is, and why."""

from __future__ import annotations

from dataclasses import dataclass

from engines.errors import EngineUnavailable
from engines.gpus import find_gpus
from engines.registry import available_engines

GPU_ORDER = ("tensorrt", "tensorrt-rtx", "inductor")
"""Engines of a GPU, the fastest first."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What `auto` stands for on this machine.

    Attributes:
        engine: name of the engine.
        why: the reason, for people.
        wanting: there is a GPU, but no engine for it: people should be told.
    """

    engine: str
    why: str
    wanting: bool = False


def choose_engine(device: str = "auto") -> Choice:
    """The engine for a device; loads no runtime.

    A GPU's engines are tensorrt, tensorrt-rtx and inductor, in this order; on the CPU it is
    openvino. Only `device` auto may end on the CPU.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        EngineUnavailable: a GPU was asked for and no engine can use one.
    """
    if device == "cpu":
        return Choice("openvino", "the CPU was asked for")
    try:
        gpus = find_gpus()
        reason = "" if gpus else "the NVIDIA driver shows no GPU"
    except EngineUnavailable as error:
        gpus, reason = (), str(error)
    if not gpus:
        if device == "auto" or not device.startswith("cuda"):
            return Choice("openvino", reason)
        raise EngineUnavailable(f"device {device}: {reason}; use --device cpu")
    found = {info.name: info for info in available_engines()}
    missing: list[str] = []
    for name in GPU_ORDER:
        if found[name].available:
            before = f"; {'; '.join(missing)}" if missing else ""
            return Choice(name, f"{gpus[0].name} is there{before}")
        missing.append(f"{name}: {found[name].reason}")
    text = "; ".join(missing)
    if device != "auto":
        raise EngineUnavailable(f"device {device}: no engine can use it: {text}")
    return Choice("openvino", f"{gpus[0].name} is there, but no engine for it: {text}", True)
