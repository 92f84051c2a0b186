"""A torch_tensorrt that converts nothing: it records what it is asked, and runs the program."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

TRT_LOGGER = logging.getLogger("torch_tensorrt [TensorRT Conversion Context]")
LOGGER = logging.getLogger("torch_tensorrt.dynamo._compiler")


class UnsupportedOperatorException(RuntimeError):  # noqa: N818 its name there
    pass


@dataclass(kw_only=True)
class Input:
    dtype: torch.dtype
    name: str
    shape: tuple[int, ...] | None = None
    min_shape: tuple[int, ...] | None = None
    opt_shape: tuple[int, ...] | None = None
    max_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        ranges = (self.min_shape, self.opt_shape, self.max_shape)
        assert (self.shape is None) == (None not in ranges), "one shape, or three"

    @property
    def largest(self) -> tuple[int, ...]:
        return self.shape or self.max_shape


@dataclass
class Asked:
    """One call of the converter, and what the program it was given computes for zeros; or one of
    the compiler, without names and outputs."""

    program: Any
    names: tuple[tuple[str, ...], tuple[str, ...]]
    inputs: list[Input]
    options: dict[str, Any]
    timings: bytes | None
    outputs: list[torch.Tensor]


class Interpreter:
    """Numbers a network's outputs, as the real one did before 2.14."""

    def __init__(self) -> None:
        self.marked: list[Any] = []
        net = SimpleNamespace(num_outputs=0, get_output=lambda index: self.marked[index])
        self.ctx = SimpleNamespace(net=net)

    def output(self, target: str, args: Any, kwargs: Any) -> list[Any]:
        for index, tensor in enumerate(args[0]):
            tensor.name = f"output{index}"
            self.marked.append(tensor)
        self.ctx.net.num_outputs = len(self.marked)
        return list(args[0])


@dataclass
class Fake:
    """What the tests set and look at."""

    asked: list[Asked] = field(default_factory=list)
    registered: list[dict[str, Any]] = field(default_factory=list)
    fail: str | None = None
    trouble: BaseException | None = None
    wrong: float = 0.0
    runs: int = 0
    interpreter: type[Interpreter] = Interpreter
    swallows: bool = False

    def convert(
        self,
        exported_program: Any,
        inputs: Any = None,
        *,
        arg_inputs: Any = None,
        disable_tf32: bool = False,
        workspace_size: int = 0,
        version_compatible: bool = False,
        timing_cache_path: str = "",
        cache_built_engines: bool = False,
        reuse_cached_engines: bool = False,
        immutable_weights: bool = True,
        arg_input_binding_names: Any = None,
        output_binding_names: Any = None,
    ) -> bytes:
        """Some of the real one's keywords; an unknown one is an error here."""
        options = {
            name: value
            for name, value in locals().items()
            if name not in ("self", "exported_program", "inputs") and "arg_" not in name
        }
        LOGGER.warning("what converters log")
        zeros = [torch.zeros(i.largest, dtype=i.dtype) for i in arg_inputs]
        path = Path(timing_cache_path) if timing_cache_path else None
        self.asked.append(
            Asked(
                program=exported_program,
                names=(arg_input_binding_names, options.pop("output_binding_names")),
                inputs=arg_inputs,
                options=options,
                timings=path.read_bytes() if path is not None and path.exists() else None,
                outputs=list(exported_program.module()(*zeros)),
            )
        )
        self._fail()
        if path is not None:
            path.write_bytes(b"timings %d" % len(self.asked))
        return b"engine %d" % len(self.asked)

    def convert_numbered(self, exported_program: Any, **options: Any) -> bytes:
        """As `convert` was before 2.14: it swallows all keywords and names nothing."""
        assert not [name for name in options if "binding_names" in name]
        try:
            engine = self.convert(exported_program, **options)
        except Exception:
            if not self.swallows:
                raise
            LOGGER.error("While interpreting the module got an error", exc_info=True)
        made = engine  # fails where there is none, as in 2.11
        self.asked[-1].names = (
            tuple(exported_program.graph_signature.user_inputs),
            self.numbered(len(self.asked[-1].outputs)),
        )
        return made

    def numbered(self, count: int) -> tuple[str, ...]:
        """Names that a network of so many outputs gets."""
        tensors = tuple(SimpleNamespace(name="") for _ in range(count))
        self.interpreter().output("output", (tensors,), {})
        return tuple(tensor.name for tensor in tensors)

    def compile(
        self,
        exported_program: Any,
        inputs: Any = None,
        *,
        arg_inputs: Any = None,
        disable_tf32: bool = False,
        require_full_compilation: bool = False,
        min_block_size: int = 5,
        workspace_size: int = 0,
        timing_cache_path: str = "",
        cache_built_engines: bool = False,
        reuse_cached_engines: bool = False,
        immutable_weights: bool = True,
    ) -> Any:
        """The program itself, run by torch, which takes what the real runtime takes."""
        options = {
            name: value
            for name, value in locals().items()
            if name not in ("self", "exported_program", "inputs", "arg_inputs")
        }
        self.asked.append(Asked(exported_program, ((), ()), arg_inputs, options, None, []))
        if self.fail == "left":
            raise AssertionError(
                "require_full_compilation=True was specified, but model is not fully supported"
            )
        self._fail()
        program = exported_program.module()

        def run(*given: torch.Tensor) -> Any:
            self.runs += 1
            if self.trouble is not None:
                raise self.trouble
            wanted = [(each.dtype, each.shape) for each in arg_inputs]
            assert [(each.dtype, tuple(each.shape)) for each in given] == wanted
            assert torch.uint8 not in {dtype for dtype, _ in wanted}, "its runtime has no uint8"
            assert not torch.is_grad_enabled()
            first, *rest = program(*given)
            return (first + self.wrong, *rest)

        return run

    def _fail(self) -> None:
        if self.fail == "operator":
            inner = UnsupportedOperatorException(
                "Conversion of function torch._ops.aten.aten::cumprod not currently supported!\n\n"
                "While executing %cumprod : [num_users=1]"
            )
            LOGGER.error("Conversion of module GraphModule() not currently fully supported")
            raise UnsupportedOperatorException(
                "Conversion of module GraphModule() not currently fully supported or convertible!"
            ) from inner
        if self.fail == "refused":
            TRT_LOGGER.error(
                "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (first input has "
                "type UInt8. In checkType at /_src/optimizer/nodeBase.cpp:455)"
            )
        if self.fail == "memory":
            TRT_LOGGER.error("Error Code 2: OutOfMemory (Requested size was 8388608 bytes.)")
        if self.fail == "memory of RTX":  # 1.4 on a full H200
            TRT_LOGGER.error(
                "[defaultAllocator.cpp::allocateAsync::75] Error Code 1: Cuda Runtime ()"
            )
        if self.fail is not None:
            LOGGER.error("While interpreting the module got an error")
            raise RuntimeError("While interpreting got an error") from AssertionError(
                "no engine\n\nWhile executing %x : [num_users=1]"
            )


def install(patch: pytest.MonkeyPatch, *, rtx: bool = False, version: str = "2.14.0") -> Fake:
    """Put it, and the few things of tensorrt it brings, where imports find them."""
    release = tuple(int(part) for part in version.split(".")[:2])
    # Of its own class: what is taught to one fake is not known to the next.
    fake = Fake(interpreter=type("TRTInterpreter", (Interpreter,), {}), swallows=release < (2, 12))
    interpreting = ModuleType("torch_tensorrt.dynamo.conversion._TRTInterpreter")
    interpreting.TRTInterpreter = fake.interpreter
    registry = ModuleType("torch_tensorrt.dynamo.conversion._ConverterRegistry")
    registry.ConverterPriority = SimpleNamespace(HIGH="high")

    def dynamo_tensorrt_converter(key: Any, **options: Any) -> Any:
        def register(converter: Any) -> Any:
            fake.registered.append({"key": key, "converter": converter, **options})
            return converter

        return register

    registry.dynamo_tensorrt_converter = dynamo_tensorrt_converter
    dynamo = ModuleType("torch_tensorrt.dynamo")
    names = release >= (2, 14)
    dynamo.convert_exported_program_to_serialized_trt_engine = (
        fake.convert if names else fake.convert_numbered
    )
    dynamo.compile = fake.compile
    module = ModuleType("torch_tensorrt")
    module.__version__, module.Input, module.dynamo = version, Input, dynamo
    module.ENABLED_FEATURES = SimpleNamespace(tensorrt_rtx=rtx)
    tensorrt = ModuleType("tensorrt")
    tensorrt.__version__, tensorrt.uint8 = "11.1.0.106", "trt uint8"
    for one in (module, dynamo, registry, interpreting, tensorrt):
        patch.setitem(sys.modules, one.__name__, one)
    return fake
