"""From a fixed graph to an AOTInductor package: machine code and weights in one file.

Needs a C++ compiler; for a GPU also the CUDA toolkit's headers and Triton, which comes with torch.
Running a package needs none of them.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from engines.alone import alone
from engines.cuda_memory import DeviceMemoryError
from engines.errors import EngineError, EngineUnavailable
from engines.fixed_graph import FixedGraph
from engines.quiet_logs import quiet_logs
from engines.signal_stack import kept_signal_stack
from engines.torch_devices import exact_sums
from nem.errors import first_line

CURE = "build with a smaller batch, or end what else uses it"

CONFIG: dict[str, Any] = {
    "freezing": True,  # weights are constants: BatchNorm goes into the convolutions
    "cpp.dynamic_threads": True,  # else the number of threads of the building process stays
    "aot_inductor.precompile_headers": False,  # pays from the second package on; we build one
    "quiesce_async_compile_pool": False,  # its timer outlives the workers by half a minute
}

LOGGERS = ("torch._inductor", "torch._dynamo", "torch.export", "torch.utils.cpp_extension")

MISSING = (
    (
        r"Python\.h: No such file",
        "Python's headers are missing; install them (Debian: apt install python3-dev)",
    ),
    (
        r"CUDA_HOME environment variable|(cuda\w*|crt/\w+)\.h: No such file|cannot find -lcuda",
        "the CUDA toolkit is missing; install NVIDIA's toolkit {cuda} and set CUDA_HOME to its "
        "folder",
    ),
    (
        r"InvalidCxxCompiler|Failed to find C compiler",
        "a C++ compiler is missing; install one (Debian: apt install g++), or set CXX to its path",
    ),
    (r"TritonMissing|working triton", "Triton is missing; pip install triton"),
)
"""What a failed build says where something is not installed, and the cure."""

Say = Callable[[str], None]


def build_package(graph: FixedGraph, batch: int, device: torch.device, say: Say) -> bytes:
    """Compile a graph with its weights for one device.

    Inputs of the package: frames uint8 (B, H, W, 3) and, with a target head, classes int32 (B,).
    Outputs: those of `engines.graph.FrameGraph`, float32.

    Args:
        graph: moved to `device`.
        batch: frames per call.
        device: the CPU, or the GPU that the package is for.
        say: told in a line what is being done.

    Returns:
        The package's bytes: executable code.

    Raises:
        EngineUnavailable: a compiler, the CUDA toolkit or Triton is missing; names the cure.
        DeviceMemoryError: the GPU has too little free memory.
        EngineError: the graph can't be exported or compiled.
    """
    backbone = graph.model.backbone.name
    height, width = graph.frame_size
    what = f"{backbone} for frames of {width}x{height}, batch {batch}, {graph.precision}, {device}"
    with ExitStack() as held:
        held.enter_context(alone)
        say(f"engine inductor: compiling {what}: takes from half a minute to some minutes")
        began = time.perf_counter()
        held.enter_context(quiet_logs(*LOGGERS))
        held.enter_context(kept_signal_stack())  # LLVM, of Triton, puts its own in place
        held.enter_context(torch.no_grad())
        if graph.precision == "f32":
            held.enter_context(exact_sums())
        if device.type == "cuda":
            held.enter_context(torch.cuda.device(device))
            held.callback(torch.cuda.empty_cache)
        try:
            package = _compile(graph, batch, device)
        except Exception as error:  # of any kind: it runs the model's own code, and compilers
            raise _explained(error, backbone, device) from error
    say(f"engine inductor: compiled in {time.perf_counter() - began:.0f} s")
    return package


def _compile(graph: FixedGraph, batch: int, device: torch.device) -> bytes:
    # Importing these takes seconds, which running does not need.
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.async_compile import shutdown_compile_workers
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.utils import fresh_cache

    get_cpp_compiler()  # raises where there is none, which else is found out last
    example = tuple(tensor.to(device) for tensor in graph.example(batch))
    program = torch.export.export(graph.to(device), example)
    config = dict(CONFIG)
    if device.type == "cpu":
        config["compile_threads"] = 1  # there is nothing for Triton's workers to do
    with tempfile.TemporaryDirectory(prefix="nem-inductor-") as folder:
        path = Path(folder) / "package.pt2"
        try:
            # The usual cache lies where others could write, and what it holds is executed.
            with fresh_cache(dir=folder):
                aoti_compile_and_package(program, package_path=str(path), inductor_configs=config)
        finally:
            shutdown_compile_workers()
        return path.read_bytes()


def _explained(error: Exception, backbone: str, device: torch.device) -> EngineError:
    """A failed build in a line: what is missing, else what went wrong."""
    text = "\n".join(f"{type(link).__name__}: {link}" for link in _chain(error))
    if "out of memory" in text.lower():
        return DeviceMemoryError(
            f"engine inductor: {device} has too little free memory to build for {backbone}; {CURE}"
        )
    for words, cure in MISSING:
        if re.search(words, text):
            told = cure.format(cuda=torch.version.cuda)
            return EngineUnavailable(f"engine inductor: can't build: {told}; or use engine eager")
    if "C++ compile error" in text and re.search(r"\s", folder := tempfile.gettempdir()):
        return EngineUnavailable(
            f"engine inductor: can't build: its compiler takes no spaces in {folder!r}, the folder "
            "for temporary files; set TMPDIR to another; or use engine eager"
        )
    compilers = [line.strip() for line in text.splitlines() if re.search(r"\berror: ", line)]
    told = compilers[0][:200] if compilers else first_line(error)
    return EngineError(f"engine inductor: {backbone} can't be compiled: {told}; use engine eager")


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = getattr(link, "inner_exception", None) or link.__cause__ or link.__context__
