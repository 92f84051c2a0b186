"""Where torch runs: devices that exist, memory that runs out, sums that are not shortened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from engines.cuda_memory import DeviceMemoryError
from engines.errors import EngineError, EngineUnavailable, OptionError
from nem.errors import first_line
from nem.setting import Setting

ALLOWED = "auto, cpu, cuda, cuda:N"


def find_device(engine: str, device: str) -> torch.device:
    """The device that a name stands for; a GPU has its number.

    Args:
        engine: who asks, for the message.
        device: "cpu", "cuda" (the first GPU), "cuda:N", or "auto": a GPU where torch sees one.

    Raises:
        OptionError: no such name.
        EngineUnavailable: torch sees no such GPU, or can't use it.
    """
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise OptionError(f"engine {engine}: device {device!r}, allowed: {ALLOWED}") from None
    if found.type not in ("cpu", "cuda"):
        raise OptionError(f"engine {engine}: device {device!r}, allowed: {ALLOWED}")
    if found.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()  # of NVML, which an old driver answers, too
    if (found.index or 0) >= count:
        raise EngineUnavailable(
            f"engine {engine}: device {device} asked for, torch sees {count} CUDA device(s); "
            "use --device cpu, or install a torch built for your GPU"
        )
    cuda: Any = torch.cuda
    try:
        cuda.init()
    except RuntimeError as error:  # as where the driver is older than what torch was built for
        raise EngineUnavailable(
            f"engine {engine}: torch can't use {device}: {first_line(error)}; update the NVIDIA "
            "driver, install a torch that fits it, or use --device cpu"
        ) from None
    return torch.device("cuda", found.index or 0)


@contextmanager
def memory_told(who: str, device: torch.device, cure: str) -> Iterator[None]:
    """Turn torch's long words about memory into a line; other errors pass.

    Args:
        who: whose memory it is, as "engine eager".
        device: where.
        cure: what to do about it.

    Raises:
        DeviceMemoryError: the GPU has too little free memory.
    """
    try:
        yield
    except RuntimeError as error:
        # Libraries below torch say it in other types, so the words count, too.
        if not (isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()):
            raise
        forget_error(device)
        # Held by the error's frames until it is gone, so without `from error`.
        raise DeviceMemoryError(
            f"{who}: {device} has too little free memory ({first_line(error)}); {cure}"
        ) from None


@contextmanager
def torch_told(who: str, device: torch.device, what: str, cure: str) -> Iterator[None]:
    """Turn all that torch says of a failure into a line.

    Args:
        who: whose failure it is, as "engine eager".
        device: where.
        what: was being done.
        cure: what to do where memory is short.

    Raises:
        DeviceMemoryError: the GPU has too little free memory.
        EngineError: something else failed.
    """
    try:
        with memory_told(who, device, cure):
            yield
    except RuntimeError as error:
        advice = "end this program and start it anew"
        if "no kernel image" in str(error):
            advice = "install a torch built for this GPU, or use --device cpu"
        forget_error(device)
        raise EngineError(
            f"{who}: {what} failed on {device}: {first_line(error)}; {advice}"
        ) from error


def forget_error(device: torch.device) -> None:
    """Take the last error of a GPU, after a failure of what lies below torch.

    Such libraries leave it where it is, and torch would put it down to the next kernel it starts.
    """
    if device.type == "cuda":
        with suppress(RuntimeError):  # it is taken by being told of
            torch.ones(1, device=device)


def free_memory(device: torch.device) -> int:
    """Bytes free on a GPU, with what torch only keeps for later."""
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return int(free)


def _sum_exactly() -> Callable[[], None]:
    backends: Any = torch.backends
    matmuls = (backends.cuda.matmul, backends.mkldnn.matmul)
    newer = [matmul.fp32_precision for matmul in matmuls]
    try:
        older = torch.get_float32_matmul_precision()
    except RuntimeError:  # somebody used the newer way to set it, which the older one can't tell
        older = None
    torch.set_float32_matmul_precision("highest")  # sets it both ways
    cudnn = backends.cudnn
    convolutions = cudnn.conv.fp32_precision
    try:
        tf32 = cudnn.allow_tf32
        cudnn.allow_tf32 = False
    except RuntimeError:  # as above
        tf32 = None
    if cudnn.conv.fp32_precision not in ("ieee", "none"):  # a newer setting goes before the older
        cudnn.conv.fp32_precision = "ieee"

    def restore() -> None:
        cudnn.conv.fp32_precision = convolutions
        if tf32 is not None:
            cudnn.allow_tf32 = tf32
        if older is not None:
            torch.set_float32_matmul_precision(older)
        for matmul, value in zip(matmuls, newer, strict=True):
            matmul.fp32_precision = value

    return restore


exact_sums = Setting(_sum_exactly)
"""Multiply float32 as float32, not as TF32 or bf16, whatever the process is set to."""
