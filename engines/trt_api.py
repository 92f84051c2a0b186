"""TensorRT's Python package: found when asked for, its messages kept, its types in numpy's words.

Three packages speak this interface: `tensorrt`, `tensorrt_rtx`, and `tensorrt_lean`, which runs
engines and builds none. Nothing is imported before `load_trt` is called.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import re
from collections import deque
from typing import Any, Literal

import numpy as np

from engines.changes import reinstall
from engines.errors import EngineError, EngineUnavailable, OptionError

Flavour = Literal["tensorrt", "tensorrt-rtx"]

INSTALL = {
    "tensorrt": "pip install 'nem-stream[tensorrt]'",
    "tensorrt_rtx": "pip install 'nem-stream[tensorrt-rtx]'",
    "tensorrt_lean": "pip install tensorrt-lean",
}
"""How to get each package."""

DTYPES: dict[str, type[np.generic]] = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT32": np.int32,
    "INT64": np.int64,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}
"""Types of tensors by TensorRT's name. numpy has no bfloat16 and no 8-bit floats, and no engine
made here has them at its edges."""

NO_MEMORY = ("out of memory", "outofmemory", "could not be allocated", "allocator.cpp::allocate")
"""What TensorRT, CUDA or torch says where the GPU has too little memory, in small letters."""

MESSAGES_KEPT = 20
LONGEST_TEXT = 400

_NOISE = re.compile(r"\s*In \S+ at \S+:\d+|^\[[\w.]+::[^\]]*\]\s*|IRuntime::\w+: |\s+")

_log = logging.getLogger(__name__)


def load_trt(flavour: Flavour, *, lean: bool = False) -> Any:
    """The package that runs engines of a flavour.

    Args:
        flavour: "tensorrt" or "tensorrt-rtx".
        lean: take the package that only runs engines, and only those built version-compatible.

    Raises:
        OptionError: no such flavour, or lean with a flavour that has no such package.
        EngineUnavailable: it is not installed, or its libraries don't load; names the cure.
    """
    if flavour not in ("tensorrt", "tensorrt-rtx"):
        raise OptionError(f"flavour {flavour!r}, allowed: tensorrt, tensorrt-rtx")
    if lean and flavour != "tensorrt":
        raise OptionError(f"flavour {flavour} has no lean runtime; leave lean out")
    name = "tensorrt_lean" if lean else flavour.replace("-", "_")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            reason = f"{name} is not installed: {INSTALL[name]}"
        else:
            reason = f"{name} needs {error.name}, which is missing; {INSTALL[name]}"
    except (ImportError, OSError, RuntimeError) as error:  # installed, but its libraries don't load
        told = " ".join(str(error).split())[:200] or type(error).__name__
        reason = f"{name} does not load ({told}); reinstall it: {reinstall(name)}"
    raise EngineUnavailable(f"engine {flavour}: {reason}")


def trt_version(trt: Any) -> str:
    """The package's version with all its numbers: an engine fits one version."""
    return str(trt.__version__)


def numpy_type(dtype: Any, tensor: str) -> np.dtype[Any]:
    """The numpy type of a `trt.DataType`.

    Raises:
        EngineError: numpy has no such type.
    """
    if dtype.name not in DTYPES:
        raise EngineError(f"tensor {tensor}: type {dtype.name}, allowed: {', '.join(DTYPES)}")
    return np.dtype(DTYPES[dtype.name])


def tells_no_memory(text: str) -> bool:
    """Whether a message tells of too little memory."""
    return any(words in text.lower() for words in NO_MEMORY)


class RecordingLogger:
    """Keeps TensorRT's warnings and errors: a refusal tells its reason nowhere else.

    Made by `make_logger`, which joins it with the package's own logger type.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[bool, str]] = deque(maxlen=MESSAGES_KEPT)

    def log(self, severity: Any, msg: str) -> None:
        """Called by TensorRT from any thread; severities: 0 internal error, 1 error, 2 warning."""
        level = int(severity)
        if level <= 2:
            self._kept.append((level < 2, msg))
            _log.info("TensorRT: %s", msg)

    def clear(self) -> None:
        """Forget what was said so far."""
        self._kept.clear()

    def text(self) -> str:
        """The telling part in one line: errors, where there are none warnings; may be empty."""
        kept = list(self._kept)
        errors = [message for is_error, message in kept if is_error]
        lines = [
            _NOISE.sub(" ", message).strip() for message in errors or [each[1] for each in kept]
        ]
        return "; ".join(dict.fromkeys(line for line in lines if line))[:LONGEST_TEXT]


@functools.cache
def make_logger(trt: Any) -> Any:
    """The process's `trt.ILogger`, a `RecordingLogger`, that goes to all that is made by a package.

    Never freed: TensorRT remembers the first it is given, without holding it, and calls it for as
    long as anything is open that was made with it or with another.
    """

    class TrtLogger(RecordingLogger, trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            RecordingLogger.__init__(self)
            trt.ILogger.__init__(self)  # the binding checks that its own was called

    return TrtLogger()
