"""Which NVIDIA GPUs this machine has, asked of the driver: no torch, no context on the GPU."""

from __future__ import annotations

import ctypes
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import EngineUnavailable, OptionError

VERSION_FILE = Path("/proc/driver/nvidia/version")
"""Where Linux tells the driver's full version; Jetson and other systems have none."""

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
"""The driver's own library, looked for first: asking for more takes time."""

INSTALL = "pip install 'nem-stream[train]'"

NO_GPU = "CUDA_ERROR_NO_DEVICE"
"""The driver's answer where it finds no GPU, or CUDA_VISIBLE_DEVICES hides all."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU.

    Attributes:
        index: its number, N of "cuda:N".
        name: as "NVIDIA H100 80GB HBM3".
        capability: compute capability, as "9.0".
        driver: version of the driver, as "580.65.06"; where only the CUDA version it supports
            is known, that one, as "CUDA 13.0".
    """

    index: int
    name: str
    capability: str
    driver: str

    @property
    def facts(self) -> dict[str, str]:
        """What an engine built for it depends on, by name."""
        return {
            "GPU": self.name,
            "compute capability": self.capability,
            "driver": self.driver,
        }


def find_gpus() -> tuple[Gpu, ...]:
    """All GPUs, at least one, in the driver's order (CUDA_VISIBLE_DEVICES counts).

    Raises:
        EngineUnavailable: there is no GPU, no driver, or no package to ask it with; the reason in
            a line.
    """
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        raise EngineUnavailable(f"no NVIDIA driver here ({LIBRARY} not found)") from None
    try:
        driver = importlib.import_module("cuda.bindings.driver")
    except ImportError:
        raise EngineUnavailable(f"cuda-bindings is not installed: {INSTALL}") from None
    found: tuple[Gpu, ...] = ()
    try:
        _ask(driver.cuInit(0))
        count = _ask(driver.cuDeviceGetCount())
        version = _driver_version(_ask(driver.cuDriverGetVersion()))
        found = tuple(_describe(driver, index, version) for index in range(count))
    except RuntimeError as error:
        if str(error) != NO_GPU:
            raise EngineUnavailable(f"the NVIDIA driver does not answer: {error}") from None
    if not found:
        raise EngineUnavailable(
            "the NVIDIA driver shows no GPU; look at nvidia-smi and at CUDA_VISIBLE_DEVICES"
        )
    return found


def find_gpu(device: str, engine: str) -> Gpu:
    """The GPU that `device` names.

    Args:
        device: "cuda" or "auto" (the first one), or "cuda:N".
        engine: who asks, for the message.

    Raises:
        OptionError: another device.
        EngineUnavailable: there is no such GPU.
    """
    kind, _, number = device.partition(":")
    if device not in ("auto", "cuda") and not (kind == "cuda" and number.isdecimal()):
        raise OptionError(f"engine {engine}: device {device!r}, allowed: auto, cuda, cuda:N")
    try:
        gpus = find_gpus()
    except EngineUnavailable as error:
        raise EngineUnavailable(f"engine {engine}: device {device}: {error}") from None
    index = int(number or 0)
    if index >= len(gpus):
        raise EngineUnavailable(
            f"engine {engine}: device {device} asked for, the driver shows {len(gpus)} GPU(s); "
            "use one of these, or --device cpu"
        )
    return gpus[index]


def _describe(driver: Any, index: int, version: str) -> Gpu:
    device = _ask(driver.cuDeviceGet(index))
    name = _ask(driver.cuDeviceGetName(128, device)).split(b"\0")[0].decode(errors="replace")
    kinds = driver.CUdevice_attribute
    major, minor = (
        _ask(driver.cuDeviceGetAttribute(kind, device))
        for kind in (
            kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    return Gpu(index, name, f"{major}.{minor}", version)


def _ask(answer: tuple[Any, ...]) -> Any:
    """The value of a driver call, whose first part is its status. Raises RuntimeError."""
    status, *values = answer
    if int(status):
        raise RuntimeError(status.name)
    return values[0] if values else None


def _driver_version(cuda: int) -> str:
    try:
        words = VERSION_FILE.read_text().split()
    except OSError:
        words = []
    full = [word for word in words if word.count(".") >= 1 and word.replace(".", "").isdecimal()]
    return full[0] if full else f"CUDA {cuda // 1000}.{cuda % 1000 // 10}"
