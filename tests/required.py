"""What a machine must have for a test: skipped without it, or failed where it is required.

    NEM_REQUIRE=cuda,tensorrt pytest -m gpu

On a machine that is there to test GPUs a skipped test looks like a passed one. `NEM_REQUIRE` names
what must be there; what it names and is missing fails, with the same reason.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import pytest

from engines import EngineUnavailable, available_engines, find_gpus

VARIABLE = "NEM_REQUIRE"


def _no_cuda() -> str | None:
    try:
        gpus = find_gpus()
    except EngineUnavailable as error:
        return str(error)
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} can't use {gpus[0].name}; install a build for CUDA"
    return None


def _no_engine(name: str) -> str | None:
    infos = {info.name: info for info in available_engines()}
    return infos[name].reason if name in infos else f"there is no engine {name}"


def _no_decoder() -> str | None:
    from stream.nvidia import decoder_trouble

    return decoder_trouble()


def _no_encoder() -> str | None:
    from stream.nvidia import encoder_trouble

    return encoder_trouble()


def _no_builder(engine: str, package: str) -> Callable[[], str | None]:
    def reason() -> str | None:
        if (missing := _no_engine(engine)) is not None:
            return missing
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install 'nem-stream[{engine}]'"
        return None

    return reason


def _no_modelopt() -> str | None:
    if importlib.util.find_spec("modelopt") is None:
        return "nvidia-modelopt is not installed: pip install 'nem-stream[quantize]'"
    return None


THINGS: dict[str, Callable[[], str | None]] = {
    "cuda": _no_cuda,
    "tensorrt": _no_builder("tensorrt", "torch_tensorrt"),
    "tensorrt-rtx": _no_builder("tensorrt-rtx", "torch_tensorrt"),
    "modelopt": _no_modelopt,
    "nvdec": _no_decoder,
    "nvenc": _no_encoder,
}
"""By name, what tells why a thing is missing, or None where it is there."""


def required(text: str | None = None) -> frozenset[str]:
    """Names that `NEM_REQUIRE` lists, separated by commas.

    Args:
        text: instead of the variable's value.

    Raises:
        pytest.UsageError: a name that nobody knows.
    """
    text = os.environ.get(VARIABLE, "") if text is None else text
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in THINGS]
    if unknown:
        raise pytest.UsageError(
            f"{VARIABLE}: unknown {', '.join(unknown)}, allowed: {', '.join(THINGS)}"
        )
    return frozenset(names)


def need(name: str) -> None:
    """Go on where the thing is there; else skip, or fail where it is required.

    Raises:
        pytest.UsageError: a name that nobody knows, here or in `NEM_REQUIRE`.
    """
    listed = required()
    if name not in THINGS:
        raise pytest.UsageError(f"need({name!r}): unknown, allowed: {', '.join(THINGS)}")
    reason = THINGS[name]()
    if reason is None:
        return
    if name in listed:
        pytest.fail(f"{VARIABLE} asks for {name}, which is missing: {reason}", pytrace=False)
    pytest.skip(f"needs {name}: {reason}")
