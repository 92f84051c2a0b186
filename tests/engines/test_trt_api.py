"""Finding TensorRT's packages, keeping what they say; where they are, the real names."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from engines import EngineError, EngineUnavailable, OptionError
from engines.cuda_memory import LOST, OUT_OF_MEMORY
from engines.trt_api import INSTALL, load_trt, make_logger, numpy_type, trt_version
from tests.engines import fake_cuda
from tests.engines.fake_tensorrt import DataType, Fakes, ILogger, Severity

ENGINES = Path(__file__).parents[2] / "engines"


@pytest.mark.parametrize(
    ("flavour", "lean", "module"),
    [
        ("tensorrt", False, "tensorrt"),
        ("tensorrt", True, "tensorrt_lean"),
        ("tensorrt-rtx", False, "tensorrt_rtx"),
    ],
)
def test_loads_the_package_of_the_flavour_or_names_the_cure(
    monkeypatch: pytest.MonkeyPatch, flavour: str, lean: bool, module: str
) -> None:
    package = ModuleType(module)
    package.__version__ = "11.1.0.106"
    monkeypatch.setitem(sys.modules, module, package)
    assert load_trt(flavour, lean=lean) is package
    assert trt_version(package) == "11.1.0.106"
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])
    importlib.invalidate_caches()
    with pytest.raises(EngineUnavailable) as caught:
        load_trt(flavour, lean=lean)
    assert str(caught.value).endswith(f"{module} is not installed: {INSTALL[module]}")


@pytest.mark.parametrize(
    ("source", "say"),
    [
        (
            "import no_such_library",
            r"tensorrt needs no_such_library, which is missing; pip install",
        ),
        ("raise OSError('libnvinfer.so.11: not\\n found')", r"does not load \(libnvinfer.so.11: n"),
        (
            "raise ImportError('undefined symbol')",
            "symbol.; reinstall it: pip install --force-reinstall tensorrt",
        ),
        ("raise RuntimeError", r"does not load \(RuntimeError\)"),
    ],
)
def test_a_package_that_does_not_load_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, say: str
) -> None:
    (tmp_path / "tensorrt.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineUnavailable, match=say) as caught:
        load_trt("tensorrt")
    assert "\n" not in str(caught.value)


def test_refuses_flavours_that_are_not() -> None:
    with pytest.raises(OptionError, match="'trt', allowed: tensorrt, tensorrt-rtx"):
        load_trt("trt")
    with pytest.raises(OptionError, match="tensorrt-rtx has no lean runtime"):
        load_trt("tensorrt-rtx", lean=True)


def test_types_in_numpys_words() -> None:
    assert numpy_type(DataType.UINT8, "frames") == np.uint8
    assert numpy_type(DataType.INT32, "target") == np.int32
    assert numpy_type(DataType.FLOAT, "scores") == np.float32
    with pytest.raises(EngineError, match="tensor mask: type BF16, allowed: FLOAT"):
        numpy_type(DataType.BF16, "mask")


def test_the_logger_keeps_what_matters_and_tells_it_in_one_line(fakes: Fakes) -> None:
    logger = make_logger(fakes.trt)
    assert isinstance(logger, ILogger)
    assert make_logger(fakes.trt) is logger  # TensorRT keeps to the first one it is given
    logger.log(Severity.INFO, "loading")
    assert logger.text() == ""
    logger.log(Severity.WARNING, "not\n recommended")
    assert logger.text() == "not recommended"
    error = (
        "[stdArchiveReader.cpp::StdArchiveReader::40] Error Code 1: Serialization (magicTag\n"
        "differs. In throwUnlessHeaderOk at /_src/runtime/dispatch/runtime.cpp:42)"
    )
    for severity in (Severity.ERROR, Severity.INTERNAL_ERROR):
        logger.log(severity, error)
    assert logger.text() == "Error Code 1: Serialization (magicTag differs. )"
    for index in range(99):
        logger.log(Severity.ERROR, f"again {index}")
    assert len(logger.text()) <= 400
    logger.clear()
    assert logger.text() == ""


def test_the_real_cuda_has_what_is_used() -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    tree = ast.parse((ENGINES / "cuda_memory.py").read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    functions = {name for name in used if name.startswith("cuda") and name[4:5].isupper()}
    assert len(functions) > 15
    known = {each.name for each in real.cudaMemcpyKind} | {
        each.name for each in real.cudaStreamCaptureMode
    }
    assert [name for name in sorted(functions - known) if not hasattr(real, name)] == []
    for kind in (
        fake_cuda.cudaError_t,
        fake_cuda.cudaMemcpyKind,
        fake_cuda.cudaStreamCaptureMode,
    ):
        for each in kind:
            assert getattr(getattr(real, kind.__name__), each.name) == each.value
    errors = {each.name for each in real.cudaError_t}
    assert errors >= {OUT_OF_MEMORY}
    # Some names are younger than the oldest CUDA that is supported.
    assert len(LOST - errors) <= 2


def test_the_real_tensorrt_rtx_has_what_is_used() -> None:
    home = os.environ.get("TRT_DRYRUN_HOME")
    if home is None and importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("TensorRT-RTX is not installed, TRT_DRYRUN_HOME names no folder with it")
    code = """
import gc
from engines.trt_api import load_trt, make_logger, numpy_type, trt_version, DTYPES
trt = load_trt("tensorrt-rtx")
for kind, names in {
    trt.Runtime: "engine_host_code_allowed deserialize_cuda_engine",
    trt.ICudaEngine: "num_io_tensors get_tensor_name get_tensor_shape get_tensor_location "
    "get_tensor_dtype get_tensor_mode create_execution_context get_tensor_profile_shape "
    "device_memory_size_v2 create_runtime_config",
    trt.IExecutionContext: "set_tensor_address execute_async_v3 set_device_memory set_input_shape "
    "set_optimization_profile_async is_stream_capturable",
    trt.IRuntimeConfig: "set_execution_context_allocation_strategy "
    "dynamic_shapes_kernel_specialization_strategy",
    trt.ExecutionContextAllocationStrategy: "USER_MANAGED",
    trt.DynamicShapesKernelSpecializationStrategy: "EAGER",
    trt.TensorLocation: "DEVICE", trt.TensorIOMode: "INPUT",
}.items():
    for name in names.split():
        getattr(kind, name)
for name in DTYPES:
    assert numpy_type(getattr(trt.DataType, name), "t") == trt.nptype(getattr(trt.DataType, name))
logger = make_logger(trt)
runtime = trt.Runtime(logger)
runtime.engine_host_code_allowed = False
assert runtime.deserialize_cuda_engine(b"no engine" * 99) is None
assert "magicTag" in logger.text() and "throwUnless" not in logger.text(), logger.text()
del runtime, logger
kept = trt.Runtime(make_logger(trt))
first = make_logger(trt)
also = trt.Runtime(first)
del kept, first
gc.collect()
make_logger(trt).clear()
trt.get_plugin_registry().load_library("no library")  # is told to the first logger
assert "no library" in make_logger(trt).text()
print(trt_version(trt))
"""
    paths = [str(ENGINES.parent), *([f"{home}/rtx"] if home else [])]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".") >= 2
