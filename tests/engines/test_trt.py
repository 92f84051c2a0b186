"""What is special to the TensorRT engine: precisions, batches, sizes, frames on the GPU, its end.

The contract that all engines keep is tested with it, too, as "tensorrt-fake".
"""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from engines import (
    EngineClosed,
    EngineUnavailable,
    FrameError,
    OptionError,
    Store,
    compare,
    open_engine,
    resize,
)
from engines.cuda_memory import DeviceLostError, DeviceMemoryError
from engines.golden import reference
from engines.gpus import Gpu
from engines.trt import TensorRtEngine
from nem.bundle import Bundle
from nem.bundle_io import load_model
from nem.explanation import AIMS
from tests.engines.conftest import NAMES, SIZE, random_frames
from tests.engines.fake_cuda import cudaError_t
from tests.engines.fake_tensorrt import Fakes, install, make_fakes, on_gpu, to_host


@pytest.fixture
def said() -> list[str]:
    return []


def test_tells_how_it_runs_and_builds_what_was_asked(
    bundle: Bundle, fakes: Fakes, store: Store
) -> None:
    with TensorRtEngine(bundle, store=store) as engine:
        assert (engine.name, engine.device, engine.precision) == ("tensorrt", "cuda:0", "f16")
        assert (engine.names, engine.aims, engine.batch) == (NAMES, AIMS, 1)
        assert engine.input_size == engine.frame_size == (SIZE, SIZE)
    with TensorRtEngine(
        bundle, store=store, precision="f32", frame_size=(48, 80), batch=3
    ) as engine:
        assert (engine.precision, engine.frame_size, engine.batch) == ("f32", (48, 80), 3)
        assert engine.input_size == (SIZE, SIZE)
    first, second = fakes.builds
    assert (first.frame_size, first.precision, first.batch) == (None, "f16", 1)
    assert (second.frame_size, second.precision, second.batch) == ((48, 80), "f32", 3)
    assert first.flavour == second.flavour == "tensorrt"
    assert fakes.cuda.leaks() == 0


def test_the_other_flavour(bundle: Bundle, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = install(monkeypatch, make_fakes("tensorrt-rtx"))
    with TensorRtEngine(bundle, store=store, flavour="tensorrt-rtx") as engine:
        assert engine.name == "tensorrt-rtx"
        assert engine.run(random_frames(1, 9, 9)).mask.shape == (1, SIZE, SIZE)
    assert fakes.builds[0].flavour == "tensorrt-rtx"


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_agrees_with_the_reference(
    bundle: Bundle, fakes: Fakes, store: Store, precision: str
) -> None:
    with (
        TensorRtEngine(bundle, precision=precision, store=store) as engine,
        open_engine(bundle, "eager", "cpu") as eager,
    ):
        parity = compare(engine, eager, random_frames(2, 90, 121))
    assert parity.ok, parity
    assert parity.engine == "tensorrt"


def test_bf16_is_held_to_its_own_bound(bundle: Bundle, fakes: Fakes, store: Store) -> None:
    frames = random_frames(1, SIZE, SIZE)
    with TensorRtEngine(bundle, precision="bf16", store=store) as engine:
        found = engine.run(frames)
    off = np.abs(found.mask - reference(load_model(bundle), frames)["mask_embedding"]).max()
    assert 1e-3 < off < 0.1, "bf16 was computed in, and rounded no more than it has to"
    assert fakes.builds[0].precision == "bf16"


def test_frames_of_a_frame_size_are_resized_inside_without_rounding(
    bundle: Bundle, fakes: Fakes, store: Store
) -> None:
    frames = random_frames(2, 90, 121)
    right = reference(load_model(bundle), frames)
    with TensorRtEngine(bundle, precision="f32", store=store, frame_size=(90, 121)) as engine:
        for aim in ("embedding", "class", "target"):
            found = engine.run(frames, aim)
            np.testing.assert_allclose(found.mask, right[f"mask_{aim}"], atol=1e-4)
        np.testing.assert_allclose(found.scores, right["scores"], atol=1e-4)


def test_frames_of_another_size_are_resized_to_the_frame_size(
    bundle: Bundle, fakes: Fakes, store: Store
) -> None:
    frames = random_frames(2, 50, 60)
    with TensorRtEngine(bundle, precision="f32", store=store, frame_size=(80, 100)) as engine:
        found = engine.run(frames)
        same = engine.run(np.stack([resize(frame, (80, 100)) for frame in frames]))
    np.testing.assert_array_equal(found.mask, same.mask)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_any_number_of_frames_in_batches_equals_single_frames(
    bundle: Bundle, fakes: Fakes, store: Store, count: int
) -> None:
    frames = random_frames(count, SIZE, SIZE)
    classes = [index % len(NAMES) for index in range(count)]
    with (
        TensorRtEngine(bundle, precision="f32", batch=3, store=store) as engine,
        TensorRtEngine(bundle, precision="f32", store=store) as single,
    ):
        before = fakes.cuda.calls["cudaGraphLaunch"]
        found = engine.run(frames, "target", classes)
        assert fakes.cuda.calls["cudaGraphLaunch"] - before == -(-count // 3)
        right = [single.run(f[None], "target", c) for f, c in zip(frames, classes, strict=True)]
    assert found.target.tolist() == classes
    for name in ("mask", "scores", "embedding"):
        wanted = np.concatenate([getattr(each, name) for each in right])
        np.testing.assert_allclose(getattr(found, name), wanted, atol=1e-4, rtol=1e-4)


def test_on_device_equals_run_and_moves_no_frame(
    bundle: Bundle, fakes: Fakes, store: Store
) -> None:
    frames = random_frames(3, SIZE, SIZE)
    with TensorRtEngine(bundle, precision="f32", batch=3, store=store) as engine:
        there, two = on_gpu(fakes, frames), on_gpu(fakes, frames[:2])
        right = engine.run(frames, "target", [1, 4, -1])
        before = fakes.cuda.copied.copy()
        found = engine.run_on_device(there, "target", [1, 4, -1])
        copied = fakes.cuda.copied - before
        np.testing.assert_array_equal(to_host(found.map), right.mask)
        np.testing.assert_array_equal(to_host(found.scores), right.scores)
        np.testing.assert_array_equal(to_host(found.embedding), right.embedding)
        assert copied["cudaMemcpyDeviceToHost"] == 0
        assert copied["cudaMemcpyHostToDevice"] == 3 * 4  # the classes
        assert copied["cudaMemcpyDeviceToDevice"] == frames.nbytes
        fewer = engine.run_on_device(two, "ranking")
        assert fewer.map.shape == (2, SIZE, SIZE)
        np.testing.assert_array_equal(to_host(fewer.map), engine.run(frames, "ranking").raw[:2])
        for aim in ("embedding", "class"):
            there_found = to_host(engine.run_on_device(there, aim).map)
            np.testing.assert_array_equal(there_found, engine.run(frames, aim).mask)
        with pytest.raises(OptionError, match="goes with explain target"):
            engine.run_on_device(there, "class", 1)
    with pytest.raises(EngineClosed, match="tensorrt is closed"):
        engine.run_on_device(there)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((4, SIZE, SIZE, 3), np.uint8),
        np.zeros((1, SIZE, SIZE, 3), np.int8),
        np.zeros((1, SIZE, SIZE + 1, 3), np.uint8),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((), np.uint8),
    ],
    ids=lambda frames: f"{frames.dtype}-{frames.shape}",
)
def test_on_device_refuses_other_frames(
    bundle: Bundle, fakes: Fakes, store: Store, frames: np.ndarray
) -> None:
    with TensorRtEngine(bundle, batch=3, store=store) as engine:
        with pytest.raises(FrameError, match=r"\(N, 64, 64, 3\) with N from 1 to 3, got"):
            engine.run_on_device(on_gpu(fakes, frames))
        with pytest.raises(FrameError, match="an array on the GPU"):
            engine.run_on_device(frames)


def test_eight_threads(bundle: Bundle, fakes: Fakes, store: Store) -> None:
    frames = [random_frames(1 + i % 3, SIZE, SIZE, seed=i) for i in range(8)]
    with TensorRtEngine(bundle, precision="f32", batch=2, store=store) as engine:
        right = [engine.run(each).mask for each in frames]
        wrong: list[int] = []

        def work(index: int) -> None:
            for _ in range(10):
                if not np.array_equal(engine.run(frames[index]).mask, right[index]):
                    wrong.append(index)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        launches = fakes.cuda.calls["cudaGraphLaunch"]
    assert wrong == []
    assert launches >= 8 * 10
    assert fakes.cuda.calls["cudaStreamBeginCapture"] == 1


def test_a_lost_gpu_ends_the_engine(bundle: Bundle, fakes: Fakes, store: Store) -> None:
    engine = TensorRtEngine(bundle, store=store)
    fakes.cuda.fail["cudaStreamSynchronize"] = cudaError_t.cudaErrorIllegalAddress
    frames = random_frames(1, SIZE, SIZE)
    with pytest.raises(DeviceLostError, match="cudaErrorIllegalAddress"):
        engine.run(frames)
    calls = fakes.cuda.calls.copy()
    with pytest.raises(EngineClosed, match=r"can't run any more, its GPU failed earlier: .*Illega"):
        engine.run(frames)
    assert fakes.cuda.calls == calls, "the GPU is left alone"
    engine.close()
    engine.close()
    with pytest.raises(EngineClosed, match="tensorrt is closed"):
        engine.run(frames)


def test_memory_that_is_short_halves_the_batch(
    bundle: Bundle, fakes: Fakes, store: Store, said: list[str]
) -> None:
    fakes.workspace, fakes.cuda.memory = 10 << 20, 25 << 20
    with TensorRtEngine(bundle, precision="f32", batch=8, store=store, say=said.append) as engine:
        assert engine.batch == 2
        assert engine.run(random_frames(5, SIZE, SIZE)).mask.shape == (5, SIZE, SIZE)
    assert [options.batch for options in fakes.builds] == [8, 4, 2]
    assert len(said) == 3
    assert said[2].endswith(f", kept in {store.folder}")
    assert said[0].startswith("engine tensorrt: batch 8 does not fit (cuda:0: too little GPU mem")
    assert "going on with batch 4" in said[0]
    assert fakes.cuda.leaks() == 0
    fakes.cuda.memory = 1 << 20
    with pytest.raises(DeviceMemoryError, match="too little GPU memory"):
        TensorRtEngine(bundle, precision="f32", store=store)
    assert fakes.cuda.leaks() == 0


@pytest.mark.parametrize(
    ("options", "say"),
    [
        ({"device": "cpu"}, "device 'cpu', allowed: auto, cuda, cuda:N"),
        ({"precision": "int4"}, "TensorRT precision 'int4', allowed: f16, f32, bf16, int8, fp8"),
        ({"flavour": "trt"}, "flavour 'trt', allowed: tensorrt, tensorrt-rtx"),
        ({"frame_size": (0, 5)}, r"frame size \(0, 5\): height and width from 1"),
        ({"batch": 0}, "batch 0: frames per call, from 1"),
    ],
)
def test_refuses_options_that_are_not(
    bundle: Bundle, fakes: Fakes, options: dict[str, object], say: str
) -> None:
    with pytest.raises(OptionError, match=say):
        TensorRtEngine(bundle, **options)


def test_what_this_machine_lacks_is_named(
    bundle: Bundle, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineUnavailable, match="cuda:1 asked for, the driver shows 1 GPU"):
        TensorRtEngine(bundle, device="cuda:1")
    fakes.gpus[0] = Gpu(0, "NVIDIA Fake 0", "7.5", "550.54.14")
    with pytest.raises(EngineUnavailable, match=r"has compute capability 7.5 and bf16 needs 8.0"):
        TensorRtEngine(bundle, precision="bf16")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'nem-stream\[tensorrt\]'"):
        TensorRtEngine(bundle)
