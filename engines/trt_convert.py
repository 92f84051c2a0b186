"""Torch-TensorRT's converter and compiler behind functions of named arguments.

They swallow keywords they do not know without a word, print, log and warn; what they have to say
of a failure is in the log, not in the exception. All of that ends here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.changes import reinstall
from engines.errors import EngineError, EngineUnavailable
from engines.quiet_logs import hidden
from engines.trt_api import Flavour
from engines.trt_names import naming

if TYPE_CHECKING:
    from engines.trt_build import BuildOptions

OLDEST = (2, 11)
"""The oldest Torch-TensorRT that this was tried with."""

LOGGERS = ("torch_tensorrt", "torch_tensorrt [TensorRT Conversion Context]")
"""Loggers of Torch-TensorRT; the second is the one that TensorRT's own messages are sent to."""

REFUSED = re.compile(
    r"Conversion of (?:function|method|module of type) (?:torch\._ops\.\w+\.)?(\S+)"
)
"""How an operator without converter is told of."""

PLACE = re.compile(r"\s*(?:In \w+ at [^\s)]+|While executing %.*)")
"""Where in its source TensorRT refuses, and in which of its nodes the converter does."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What is to be converted, and how.

    Attributes:
        name: of the model, for messages.
        program: what torch.export gave.
        example: the inputs it was exported with.
        inputs: names of the engine's inputs.
        outputs: names of its outputs.
        options: what the engine is built for.
        timings: file of timings, see `engines.trt_timings`.
    """

    name: str
    program: Any
    example: Sequence[Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: BuildOptions
    timings: Path


def load_converter(flavour: Flavour) -> Any:
    """Torch-TensorRT of a flavour.

    Raises:
        EngineUnavailable: it is missing, too old, of the other flavour, or does not load.
    """
    cure = f"pip install 'nem-stream[{flavour}]'"
    showed = warnings.showwarning
    # TensorRT-RTX has no plugins, and 2.11 falls over that when it looks for them.
    plugins = hidden("tensorrt.plugin") if flavour == "tensorrt-rtx" else contextlib.nullcontext()
    try:
        with contextlib.redirect_stdout(io.StringIO()), _listening(), plugins:
            module = importlib.import_module("torch_tensorrt")
            importlib.import_module("torch_tensorrt.dynamo")
    except Exception as error:  # of any kind where TensorRT's libraries are missing
        name = getattr(error, "name", None)
        missing = isinstance(error, ModuleNotFoundError) and name in ("torch_tensorrt", "torch")
        reason = f"{name} is not installed"
        if not missing:
            reason = f"it does not load ({_line(error)}); look at the GPU's driver, or reinstall it"
            cure = reinstall(f"torch-{flavour}")
        raise EngineUnavailable(f"building with torch-tensorrt: {reason}: {cure}") from error
    finally:
        if warnings.showwarning is not showed:  # it sends all warnings to the log
            logging.captureWarnings(False)
    found = "tensorrt-rtx" if module.ENABLED_FEATURES.tensorrt_rtx else "tensorrt"
    if found != flavour:
        raise EngineUnavailable(
            f"building for {flavour}: the torch-tensorrt installed here is that of {found}, and "
            f"there can't be both; build for {found}, or in another environment: {cure}"
        )
    version = re.match(r"(\d+)\.(\d+)", str(module.__version__))
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        raise EngineUnavailable(
            f"building with torch-tensorrt: {module.__version__} is installed, "
            f"{'.'.join(map(str, OLDEST))} or newer is needed: {cure} --upgrade"
        )
    return module


def convert(torch_tensorrt: Any, work: Conversion) -> bytes:
    """The serialized engine.

    Raises:
        EngineError: an operator that TensorRT lacks, or a graph that it refuses; says which.
    """
    make = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine
    with _telling(work), naming(make, work.inputs, work.outputs) as names:
        engine: bytes = make(
            work.program,
            arg_inputs=_specs(torch_tensorrt, work),
            version_compatible=work.options.version_compatible,
            **names,
            **_settings(work),
        )
    return engine


def compile_module(torch_tensorrt: Any, work: Conversion) -> Any:
    """A module that torch runs, with one TensorRT engine inside and nothing beside it.

    Its inputs can't be uint8: Torch-TensorRT's runtime does not know that type. It is called with
    tensors on the GPU by position, and gives the graph's outputs in order.

    Raises:
        EngineError: as `convert`; what TensorRT lacks is not left to torch.
    """
    with _telling(work):
        return torch_tensorrt.dynamo.compile(
            work.program,
            arg_inputs=_specs(torch_tensorrt, work),
            require_full_compilation=True,
            min_block_size=1,
            **_settings(work),
        )


def _settings(work: Conversion) -> dict[str, Any]:
    """What the converter is told alike for both forms, in its words."""
    return {
        "workspace_size": work.options.workspace,
        "disable_tf32": work.options.precision == "f32",  # TF32 rounds float32 to 11 bits
        # 2.11 writes timings in any case, and into a folder.
        "timing_cache_path": str(work.timings),
        "immutable_weights": True,
        # Its own cache unpickles files and takes other models for the same one.
        "cache_built_engines": False,
        "reuse_cached_engines": False,
    }


def _specs(torch_tensorrt: Any, work: Conversion) -> list[Any]:
    """The inputs, in Torch-TensorRT's words."""
    return [
        torch_tensorrt.Input(**_shape(tuple(tensor.shape), work), dtype=tensor.dtype, name=name)
        for name, tensor in zip(work.inputs, work.example, strict=True)
    ]


def _shape(shape: tuple[int, ...], work: Conversion) -> dict[str, tuple[int, ...]]:
    """What an input's shape is, in the words of `torch_tensorrt.Input`."""
    if not work.options.dynamic:
        return {"shape": shape}
    return {"min_shape": (1, *shape[1:]), "opt_shape": shape, "max_shape": shape}


@functools.cache
def register_uint8_output() -> None:
    """Teach Torch-TensorRT the cast to uint8 that ends a graph: it has none, TensorRT does."""
    import torch

    trt = importlib.import_module("tensorrt")
    registry = importlib.import_module("torch_tensorrt.dynamo.conversion._ConverterRegistry")

    def ends_the_graph(node: Any, settings: Any = None) -> bool:
        source = node.args[0].meta.get("val")
        return (
            node.kwargs.get("dtype") is torch.uint8
            and getattr(source, "dtype", None) in (torch.float32, torch.float16)
            and all(user.op == "output" for user in node.users)
        )

    def to_uint8(context: Any, target: Any, args: Any, kwargs: Any, name: str) -> Any:
        layer = context.net.add_cast(args[0], trt.uint8)
        layer.name = f"{name}_to_uint8"
        return layer.get_output(0)

    registry.dynamo_tensorrt_converter(
        torch.ops.aten._to_copy.default,
        capability_validator=ends_the_graph,
        priority=registry.ConverterPriority.HIGH,
        supports_dynamic_shapes=True,
    )(to_uint8)


class _Listener(logging.Handler):
    """Keeps error messages of TensorRT itself, and the last exception that was logged."""

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self.lines: list[str] = []
        self.logged: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == LOGGERS[1]:
            self.lines.append(" ".join(record.getMessage().split()))
        if record.exc_info:
            self.logged = record.exc_info[1]


@contextlib.contextmanager
def _listening() -> Iterator[_Listener]:
    """What is said of errors meanwhile; nothing of it reaches the program's own log."""
    listener = _Listener()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(one.level, one.propagate, one.handlers) for one in loggers]
    for one in loggers:
        one.propagate, one.handlers = False, [listener]
        one.setLevel(logging.ERROR)
    try:
        yield listener
    finally:
        for one, (level, propagate, handlers) in zip(loggers, before, strict=True):
            one.propagate, one.handlers = propagate, handlers
            one.setLevel(level)


@contextlib.contextmanager
def _telling(work: Conversion) -> Iterator[None]:
    """Quiet, and what fails is an EngineError that tells why."""
    with _listening() as told, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:
            # 2.11 only logs what failed, and then misses the result.
            logged = told.logged if isinstance(error, UnboundLocalError) else None
            raise EngineError(_explained(logged or error, told.lines, work.name)) from error


def _explained(error: BaseException, told: Sequence[str], name: str) -> str:
    """Why there is no engine, in a line, and what to do instead."""
    links: list[BaseException] = [error]
    while (link := links[-1].__cause__) is not None:
        links.append(link)
    for link in reversed(links):
        if found := REFUSED.search(str(link)):
            operator = found[1].removeprefix("aten::")
            return (
                f"{name} can't become one TensorRT engine: TensorRT has no operator {operator}; "
                "use engine inductor, or another backbone"
            )
    reason = PLACE.sub("", told[0])[:300] if told else _line(links[-1])
    return f"{name}: TensorRT can't compile it: {reason}; use engine inductor, or another precision"


def _line(error: BaseException) -> str:
    text = PLACE.sub("", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:240] if text else type(error).__name__
