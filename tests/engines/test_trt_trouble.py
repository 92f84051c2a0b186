"""The runner in trouble on a fake GPU: engines it can't load, errors of CUDA, too little memory."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from engines import EngineError, EngineUnavailable
from engines.cuda_memory import CudaError, DeviceLostError, DeviceMemoryError
from engines.trt_runner import TrtRunner
from tests.engines import fake_tensorrt
from tests.engines.fake_cuda import cudaError_t
from tests.engines.fake_tensorrt import DataType, Fakes, TensorLocation
from tests.engines.small_trt import assert_right, engine_of, some

LOST = cudaError_t.cudaErrorIllegalAddress


@pytest.mark.parametrize(
    ("change", "say"),
    [
        ("bytes", "it is damaged, or no engine of tensorrt 11.1.0.106 .*Magic tag does not match"),
        ("version", "built by another version than the installed tensorrt 11.2.*Version tag"),
        ("gpu", r"built for another GPU than cuda:0; build it anew .*compute 9.0 got compute 8.9"),
    ],
)
def test_a_refused_engine_is_one_line_with_the_reason(fakes: Fakes, change: str, say: str) -> None:
    engine = engine_of(fakes)
    if change == "bytes":
        engine = b"no engine" * 9
    elif change == "version":
        fakes.trt.__version__ = "11.2.0.1"
    else:
        fakes.gpus[0] = type(fakes.gpus[0])(0, "NVIDIA Fake 2", "9.0", "580.65.06")
    with pytest.raises(EngineError, match=say) as caught:
        TrtRunner(engine)
    assert "\n" not in str(caught.value)
    assert "recommended" not in str(caught.value)  # a warning beside an error
    assert fakes.cuda.leaks() == 0


def test_too_little_memory_is_told_apart(fakes: Fakes) -> None:
    fakes.workspace = 1 << 40
    with pytest.raises(DeviceMemoryError, match=r"too little GPU memory.*OutOfMemory"):
        TrtRunner(engine_of(fakes))
    assert fakes.cuda.leaks() == 0
    fakes.workspace, fakes.refuse = 0, "Error Code 1: Cuda Runtime (out of memory)"
    with pytest.raises(DeviceMemoryError, match="too little GPU memory"):
        TrtRunner(engine_of(fakes))
    fakes.refuse, fakes.cuda.memory = None, 100
    with pytest.raises(DeviceMemoryError, match=r"cuda:0: taking .* bytes .*MemoryAllocation"):
        TrtRunner(engine_of(fakes))
    assert fakes.cuda.leaks() == 0
    assert fakes.cuda.cudaGetLastError() == (0,), "others would take it for an error of their own"


@pytest.mark.parametrize(
    "name",
    [
        "cudaStreamCreateWithFlags",
        "cudaEventCreateWithFlags",
        "cudaMalloc",
        "cudaMallocHost",
        "cudaMemcpyAsync",
        "cudaStreamSynchronize",
        "cudaStreamBeginCapture",
        "cudaStreamEndCapture",
        "cudaGraphInstantiate",
    ],
)
def test_every_status_is_looked_at_and_nothing_is_left(fakes: Fakes, name: str) -> None:
    engine = engine_of(fakes)
    fakes.cuda.fail[name] = cudaError_t.cudaErrorInvalidValue
    with pytest.raises(CudaError, match=r"cuda:0: .*: cudaErrorInvalidValue \(InvalidValue\)"):
        TrtRunner(engine)
    assert fakes.cuda.leaks() == 0


@pytest.mark.parametrize("name", ["cudaMemcpyAsync", "cudaGraphLaunch", "cudaStreamSynchronize"])
def test_a_failed_run_is_told_and_the_next_one_is_right(
    runner: TrtRunner, fakes: Fakes, name: str
) -> None:
    fakes.cuda.fail[name] = cudaError_t.cudaErrorInvalidValue
    with pytest.raises(CudaError, match="cudaErrorInvalidValue"):
        runner.run(some(1))
    assert_right(runner.run(some(2)), some(2))


def test_what_tensorrt_refuses_to_run_is_told(fakes: Fakes) -> None:
    fakes.refuse = "Error Code 3: API Usage Error (bad luck)"
    with pytest.raises(EngineError, match=r"tensorrt engine can't be run .*\(bad luck\)"):
        TrtRunner(engine_of(fakes))
    assert fakes.cuda.leaks() == 0


def test_an_engine_of_rtx_that_takes_memory_as_it_runs_is_not_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fakes = fake_tensorrt.install(monkeypatch, fake_tensorrt.make_fakes("tensorrt-rtx"))
    fakes.capturable = False
    runner = TrtRunner(engine_of(fakes), flavour="tensorrt-rtx")
    for seed in (1, 2):
        assert_right(runner.run(some(seed)), some(seed))
    assert fakes.cuda.calls["cudaStreamBeginCapture"] == 0
    fakes.refuse = "Error Code 3: API Usage Error (bad luck)"
    with pytest.raises(EngineError, match=r"tensorrt-rtx engine can't be run .*\(bad luck\)"):
        runner.run(some(1))
    runner.close()
    assert fakes.cuda.leaks() == 0


def test_a_capture_that_fails_is_left_and_told(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = fakes.cuda.cudaStreamBeginCapture

    def refuse_from_now(*given: Any) -> Any:
        fakes.refuse = "not while capturing"
        return begin(*given)

    monkeypatch.setattr(fakes.cuda, "cudaStreamBeginCapture", refuse_from_now)
    with pytest.raises(EngineError, match="not while capturing"):
        TrtRunner(engine_of(fakes))
    assert fakes.cuda.calls["cudaStreamEndCapture"] == 1
    assert fakes.cuda.leaks() == 0


def test_a_lost_gpu_says_so_each_time_and_can_be_closed(fakes: Fakes) -> None:
    runner = TrtRunner(engine_of(fakes))
    fakes.cuda.fail["cudaStreamSynchronize"] = LOST
    for _ in range(2):
        with pytest.raises(DeviceLostError, match=r"cudaErrorIllegalAddress .*start it anew"):
            runner.run(some(0))
    runner.close()
    runner.close()


@pytest.mark.parametrize(
    ("change", "say"),
    [
        ({"shape": (2, 3, -1, 3)}, "shape .2, 3, -1, 3.; only the number of frames"),
        ({"location": TensorLocation.HOST}, "lies in host memory"),
        ({"dtype": DataType.BF16}, "type BF16, allowed: FLOAT, HALF"),
    ],
)
def test_engines_that_it_can_not_run(fakes: Fakes, change: dict[str, Any], say: str) -> None:
    engine = engine_of(fakes)
    vars(fakes.engines["engine 0"].tensors["frames"]).update(change)
    with pytest.raises(EngineError, match=f"tensor frames: .*{say}"):
        TrtRunner(engine)
    assert fakes.cuda.leaks() == 0


def test_another_gpu_than_the_first(fakes: Fakes) -> None:
    fakes.cuda.devices = 2
    fakes.cuda.cudaSetDevice(0)
    runner = TrtRunner(engine_of(fakes), device=1)
    used = []
    copy = fakes.cuda.cudaMemcpyAsync

    def noted(*rest: Any) -> Any:
        used.append(fakes.cuda._thread.device)
        return copy(*rest)

    fakes.cuda.cudaMemcpyAsync = noted
    assert_right(runner.run(some(0)), some(0))
    assert set(used) == {1}
    assert fakes.cuda._thread.device == 0  # as it was: another library may count on it
    with pytest.raises(CudaError, match="using cuda:2: cudaErrorInvalidDevice"):
        TrtRunner(engine_of(fakes), device=2)


def test_missing_packages_are_named(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(EngineUnavailable, match="cuda-bindings is not installed: pip install"):
        TrtRunner(b"")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineUnavailable, match=r"nem-stream\[tensorrt\]"):
        TrtRunner(b"")


def test_a_machine_without_a_driver_is_told(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise RuntimeError("can't find the library cuda")  # as cuda-bindings does

    monkeypatch.setattr(fakes.cuda, "cuCtxGetCurrent", missing)
    with pytest.raises(EngineUnavailable, match="cuda:0: no NVIDIA driver here: can't find"):
        TrtRunner(engine_of(fakes))
