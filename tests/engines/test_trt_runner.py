"""The runner on a fake GPU: buffers, the one graph, waits, threads, and what it refuses."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines import EngineClosed, EngineError, FrameError
from engines.trt_runner import Port, TrtRunner
from tests.engines.fake_cuda import cudaStreamCaptureMode
from tests.engines.fake_tensorrt import Fakes, on_gpu, to_host
from tests.engines.small_trt import assert_right, compute, engine_of, some


def test_tells_its_ports(runner: TrtRunner) -> None:
    u8, i32, f32 = map(np.dtype, (np.uint8, np.int32, np.float32))
    assert runner.inputs == {
        "frames": Port("frames", (2, 3, 4, 3), u8),
        "target": Port("target", (2,), i32),
    }
    assert runner.outputs == {
        "total": Port("total", (2,), f32),
        "half": Port("half", (2, 3, 4), f32),
    }


def test_results_are_those_of_the_inputs_and_belong_to_the_caller(runner: TrtRunner) -> None:
    kept = []
    for seed in range(5):
        given = some(seed)
        kept.append((runner.run(given), given))
    runner.close()
    for found, given in kept:
        assert_right(found, given)
        found["half"][...] = 0


def test_the_graph_is_captured_once_and_memory_taken_once(fakes: Fakes) -> None:
    runner = TrtRunner(engine_of(fakes))
    before = fakes.cuda.calls.copy()
    for seed in range(3):
        runner.run(some(seed))
    later = fakes.cuda.calls - before
    assert later["cudaGraphLaunch"] == 3
    assert later["cudaMalloc"] == later["cudaMallocHost"] == later["cudaStreamBeginCapture"] == 0
    assert fakes.cuda.calls["cudaStreamBeginCapture"] == 1
    assert fakes.cuda.modes == [cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal]
    assert fakes.contexts == 1


def test_the_first_run_is_on_zeros(fakes: Fakes) -> None:
    """Memory holds anything at first, and a class that is not there reads where nothing is."""
    seen: list[np.ndarray] = []

    def look(*given: np.ndarray) -> list[np.ndarray]:
        seen.extend(given)
        return compute(*given)

    engine = engine_of(fakes)
    fakes.engines["engine 0"].compute = look
    TrtRunner(engine).close()
    assert len(seen) == 2
    assert not any(each.any() for each in seen)


def test_only_what_is_asked_for_is_copied_out(runner: TrtRunner, fakes: Fakes) -> None:
    before = fakes.cuda.copied["cudaMemcpyDeviceToHost"]
    given = some(1)
    found = runner.run(given, ["total"])
    assert list(found) == ["total"]
    assert fakes.cuda.copied["cudaMemcpyDeviceToHost"] - before == found["total"].nbytes
    with pytest.raises(EngineError, match="mask asked for, allowed: half, total"):
        runner.run(given, ["mask"])


def test_takes_strided_and_read_only_arrays(runner: TrtRunner) -> None:
    given = some(3)
    wide = np.repeat(given["frames"], 2, axis=2)
    wide.flags.writeable = False
    assert_right(runner.run(given | {"frames": wide[:, :, ::2]}), given)


@pytest.mark.parametrize(
    ("change", "say"),
    [
        ({"frames": np.zeros((1, 3, 4, 3), np.uint8)}, r"uint8 \(2, 3, 4, 3\), got uint8 \(1,"),
        ({"frames": np.zeros((2, 3, 4, 3), np.float32)}, r"uint8 \(2, 3, 4, 3\), got float32"),
        ({"target": np.zeros(2, np.int64)}, r"target: expected int32 \(2,\), got int64 \(2,\)"),
        ({"other": np.zeros(2, np.int64)}, "expected frames, target, got frames, other, target"),
    ],
)
def test_refuses_other_inputs(runner: TrtRunner, change: dict[str, np.ndarray], say: str) -> None:
    with pytest.raises(FrameError, match=say):
        runner.run(some(0) | change)
    with pytest.raises(FrameError, match="got none"):
        runner.run({})
    assert_right(runner.run(some(2)), some(2))


def test_on_device_nothing_passes_through_the_host(runner: TrtRunner, fakes: Fakes) -> None:
    given = some(4)
    there = {name: on_gpu(fakes, value) for name, value in given.items()}
    before = fakes.cuda.copied.copy()
    found = runner.run_on_device(there)
    copied = fakes.cuda.copied - before
    assert dict(copied) == {"cudaMemcpyDeviceToDevice": sum(v.nbytes for v in given.values())}
    assert_right({name: to_host(value) for name, value in found.items()}, given)
    assert found["half"].__cuda_array_interface__["shape"] == (2, 3, 4)
    assert_right(runner.run(some(5)), some(5))
    again = runner.run_on_device({"frames": there["frames"], "target": given["target"]})
    assert_right({name: to_host(value) for name, value in again.items()}, given)
    for value in there.values():
        fakes.cuda.cudaFree(value.__cuda_array_interface__["data"][0])


def test_on_device_fewer_frames_than_the_batch(runner: TrtRunner, fakes: Fakes) -> None:
    one = some(6, batch=1)
    frames = on_gpu(fakes, one["frames"])
    found = runner.run_on_device({"frames": frames, "target": one["target"]})
    total, half = compute(one["frames"], one["target"])
    np.testing.assert_array_equal(to_host(found["total"].first(1)), total)
    np.testing.assert_array_equal(to_host(found["half"].first(1)), half)
    fakes.cuda.cudaFree(frames.__cuda_array_interface__["data"][0])


@pytest.mark.parametrize(
    ("facts", "waited"),
    [({}, [1]), ({"version": 3, "stream": 77}, [77]), ({"version": 3, "stream": None}, [])],
    ids=["as torch, without stream", "a stream", "nothing to wait for"],
)
def test_on_device_the_callers_stream_is_waited_for(
    runner: TrtRunner, fakes: Fakes, facts: dict[str, Any], waited: list[int]
) -> None:
    given = some(7)
    frames = on_gpu(fakes, given["frames"], **facts)
    runner.run_on_device({"frames": frames, "target": given["target"]})
    assert fakes.cuda.waits == waited
    assert fakes.cuda.calls["cudaStreamWaitEvent"] == len(waited)
    fakes.cuda.cudaFree(frames.__cuda_array_interface__["data"][0])


def test_on_device_torchs_current_stream_is_waited_for(
    runner: TrtRunner, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FakeTensor:
        device = "cuda:0"

    torch = SimpleNamespace(
        Tensor=FakeTensor,
        cuda=SimpleNamespace(current_stream=lambda _: SimpleNamespace(cuda_stream=4096)),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    given = some(7)
    frames = FakeTensor()
    there = on_gpu(fakes, given["frames"])
    frames.__cuda_array_interface__ = there.__cuda_array_interface__
    runner.run_on_device({"frames": frames, "target": given["target"]})
    assert fakes.cuda.waits == [4096]
    fakes.cuda.cudaFree(there.__cuda_array_interface__["data"][0])


def test_on_device_refuses_what_is_not_there_or_not_in_order(
    runner: TrtRunner, fakes: Fakes
) -> None:
    given = some(0)
    with pytest.raises(FrameError, match=r"an array on the GPU .* got list"):
        runner.run_on_device(given | {"frames": given["frames"].tolist()})
    frames = on_gpu(fakes, given["frames"], strides=(36, 3, 9, 1))
    with pytest.raises(FrameError, match=r"C-contiguous array, got strides \(36, 3, 9, 1\)"):
        runner.run_on_device(given | {"frames": frames})
    frames.__cuda_array_interface__["strides"] = (36, 12, 3, 1)
    runner.run_on_device(given | {"frames": frames})
    fakes.cuda.cudaFree(frames.__cuda_array_interface__["data"][0])


def test_many_threads_each_get_their_own(runner: TrtRunner, fakes: Fakes) -> None:
    trouble: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for index in range(50):
                given = some(1000 * thread + index)
                assert_right(runner.run(given), given)
        except BaseException as error:  # noqa: BLE001 told by the assertion below
            trouble.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert trouble == []
    runner.close()
    assert fakes.cuda.leaks() == 0


def test_closed_twice_and_used_after(runner: TrtRunner, fakes: Fakes) -> None:
    found = runner.run(some(1))
    runner.close()
    runner.close()
    assert fakes.cuda.leaks() == 0
    assert_right(found, some(1))
    for run in (runner.run, runner.run_on_device):
        with pytest.raises(EngineClosed, match="closed"):
            run(some(1))


def test_closing_waits_for_a_run_in_progress(fakes: Fakes) -> None:
    engine = engine_of(fakes)
    runner = TrtRunner(engine)
    began, go_on = threading.Event(), threading.Event()

    def slowly(*given: np.ndarray) -> list[np.ndarray]:
        began.set()
        assert go_on.wait(60)
        return compute(*given)

    fakes.engines["engine 0"].compute = slowly
    found: list[dict[str, np.ndarray]] = []
    run = threading.Thread(target=lambda: found.append(runner.run(some(1))))
    run.start()
    assert began.wait(60)
    held = fakes.cuda.leaks()
    close = threading.Thread(target=runner.close)
    close.start()
    close.join(0.1)
    assert fakes.cuda.leaks() == held > 0
    go_on.set()
    for thread in (run, close):
        thread.join(60)
    assert_right(found[0], some(1))
    assert fakes.cuda.leaks() == 0
