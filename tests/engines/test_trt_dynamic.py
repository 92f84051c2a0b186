"""Engines for any number of frames up to a batch: built, stored apart, and run for what is left."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import engines.trt_build
from engines import EngineError, FrameError, OptionError, Store, list_stored
from engines.trt import TensorRtEngine
from engines.trt_build import BuildOptions, build_engine
from engines.trt_onnx import _fixed, _profile
from engines.trt_runner import TrtRunner
from nem.bundle import Bundle, open_bundle
from tests.engines import fake_tensorrt, fake_torch_tensorrt
from tests.engines.conftest import NAMES, SIZE, random_frames, tiny_model
from tests.engines.dryrun_build import DYNAMIC, python_with_rtx
from tests.engines.fake_cuda import cudaError_t
from tests.engines.fake_tensorrt import Fakes, on_gpu, to_host
from tests.engines.fake_trt_context import DynamicShapesKernelSpecializationStrategy
from tests.engines.small_trt import assert_right, engine_of, some


def dynamic_runner(fakes: Fakes, batch: int = 4, **options: Any) -> TrtRunner:
    return TrtRunner(engine_of(fakes, batch, dynamic=True), **options)


def launches(fakes: Fakes) -> int:
    return fakes.cuda.calls["cudaGraphLaunch"]


def test_each_number_of_frames_is_run_as_it_is(fakes: Fakes) -> None:
    runner = dynamic_runner(fakes)
    assert runner.most == 4
    assert runner.inputs["frames"].shape == (4, 3, 4, 3)
    for seed, count in enumerate((4, 1, 3, 3, 1, 2, 4, 1)):
        before = fakes.cuda.copied.copy()
        found = runner.run(some(seed, count))
        assert_right(found, some(seed, count))
        copied = fakes.cuda.copied - before
        assert copied["cudaMemcpyHostToDevice"] == sum(v.nbytes for v in some(0, count).values())
        assert copied["cudaMemcpyDeviceToHost"] == sum(v.nbytes for v in found.values())
    runner.close()
    assert fakes.cuda.leaks() == 0


def test_one_graph_for_each_number_that_was_run_and_one_memory_for_all(fakes: Fakes) -> None:
    fakes.workspace = 1 << 20
    runner = dynamic_runner(fakes)
    assert fakes.cuda.calls["cudaStreamBeginCapture"] == fakes.contexts == 1
    used = fakes.cuda.used()
    for _ in range(3):
        for count in (1, 3, 4):
            runner.run(some(count, count))
    assert fakes.cuda.calls["cudaStreamBeginCapture"] == fakes.contexts == 3
    assert launches(fakes) == 9
    assert fakes.cuda.used() == used
    assert 4 << 20 <= used < 5 << 20
    assert fakes.configs == []
    runner.close()
    assert fakes.cuda.leaks() == 0


def test_a_graph_is_captured_of_the_kernels_made_for_its_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fakes = fake_tensorrt.install(monkeypatch, fake_tensorrt.make_fakes("tensorrt-rtx"))
    runner = dynamic_runner(fakes, flavour="tensorrt-rtx")
    assert_right(runner.run(some(1, 2)), some(1, 2))
    eager = DynamicShapesKernelSpecializationStrategy.EAGER
    found = [each.dynamic_shapes_kernel_specialization_strategy for each in fakes.configs]
    assert found == [eager, eager]
    runner.close()


def test_on_device_fewer_frames_are_computed_alone(fakes: Fakes) -> None:
    runner = dynamic_runner(fakes)
    for seed, count in enumerate((2, 4, 1)):
        given = some(seed, count)
        frames = on_gpu(fakes, given["frames"])
        found = runner.run_on_device({"frames": frames, "target": given["target"]})
        assert_right({name: to_host(value) for name, value in found.items()}, given)
        fakes.cuda.cudaFree(frames.__cuda_array_interface__["data"][0])
    runner.close()
    assert fakes.cuda.leaks() == 0


@pytest.mark.parametrize(
    ("given", "say"),
    [
        (some(0, 5), r"expected 1 to 4 frames, got shape \(5"),
        (some(0, 1) | {"frames": np.zeros((0, 3, 4, 3), np.uint8)}, r"frames|target"),
        (some(0, 1) | {"frames": some(0, 2)["frames"]}, r"expected \w+ \([12],.*got \w+ \([12],"),
        ({name: value[0] for name, value in some(0, 1).items()}, "frames|target"),
    ],
    ids=["more", "none", "unequal", "no axis"],
)
def test_other_numbers_are_refused(fakes: Fakes, given: dict[str, np.ndarray], say: str) -> None:
    runner = dynamic_runner(fakes)
    for run in (runner.run, runner.run_on_device):
        with pytest.raises(FrameError, match=say):
            run(given)
    assert_right(runner.run(some(2, 3)), some(2, 3))
    runner.close()


@pytest.mark.parametrize(
    "name", ["cudaStreamBeginCapture", "cudaGraphInstantiate", "cudaStreamSynchronize"]
)
def test_a_number_that_could_not_be_prepared_is_tried_again(fakes: Fakes, name: str) -> None:
    runner = dynamic_runner(fakes)
    fakes.cuda.fail[name] = cudaError_t.cudaErrorInvalidValue
    with pytest.raises(EngineError, match="cudaErrorInvalidValue"):
        runner.run(some(1, 2))
    for count in (2, 4, 2):
        assert_right(runner.run(some(2, count)), some(2, count))
    runner.close()
    assert fakes.cuda.leaks() == 0


def test_ranges_that_are_not_run_here(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fake_tensorrt.Engine,
        "get_tensor_profile_shape",
        lambda *_: [(2, 3, 4, 3), (4, 3, 4, 3), (4, 3, 4, 3)],
    )
    with pytest.raises(EngineError, match="take 2 to 4 frames; only ranges from 1"):
        dynamic_runner(fakes)
    monkeypatch.setattr(
        fake_tensorrt.Engine, "get_tensor_shape", lambda _, name: [-1, 3] if name == "half" else [2]
    )
    with pytest.raises(EngineError, match=r"only the number of frames, .*and then of all tensors"):
        dynamic_runner(fakes)
    assert fakes.cuda.leaks() == 0


def test_the_engine_computes_what_is_left_and_no_more(
    bundle: Bundle, fakes: Fakes, store: Store
) -> None:
    frames, classes = random_frames(7, SIZE, SIZE), [index % len(NAMES) for index in range(7)]
    with (
        TensorRtEngine(bundle, precision="f32", batch=3, dynamic=True, store=store) as engine,
        TensorRtEngine(bundle, precision="f32", store=store) as single,
    ):
        right = [single.run(f[None], "target", c) for f, c in zip(frames, classes, strict=True)]
        for count in (7, 1, 2, 5):
            before, copied = launches(fakes), fakes.cuda.copied["cudaMemcpyHostToDevice"]
            found = engine.run(frames[:count], "target", classes[:count])
            assert launches(fakes) - before == -(-count // 3)
            copied = fakes.cuda.copied["cudaMemcpyHostToDevice"] - copied
            assert copied == frames[:count].nbytes + 4 * count
            for name in ("mask", "scores", "embedding"):
                wanted = np.concatenate([getattr(each, name) for each in right[:count]])
                np.testing.assert_allclose(getattr(found, name), wanted, atol=1e-4, rtol=1e-4)
        there = engine.run_on_device(on_gpu(fakes, frames[:2]), "target", classes[:2])
        np.testing.assert_allclose(
            to_host(there.map), np.concatenate([each.mask for each in right[:2]]), atol=1e-4
        )
    assert [(one.batch, one.dynamic) for one in fakes.builds] == [(3, True), (1, False)]


def test_it_is_stored_apart_and_checked_at_both_ends(
    bundle: Bundle, fakes: Fakes, store: Store
) -> None:
    for _ in range(2):
        for dynamic in (True, False):
            TensorRtEngine(bundle, batch=3, dynamic=dynamic, store=store).close()
    assert [one.dynamic for one in fakes.builds] == [True, False]
    assert {entry.facts["batch"] for entry in list_stored(store)} == {"1 to 3", "3"}


@pytest.mark.parametrize("count", [1, 3])
def test_kernels_of_one_number_that_are_wrong_are_found(
    bundle: Bundle, fakes: Fakes, store: Store, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    add = fakes.add

    def add_wrong(compute: Any, *given: Any, **options: Any) -> bytes:
        def wrong(*inputs: np.ndarray) -> list[np.ndarray]:
            return [each + 0.1 * (len(inputs[0]) == count) for each in compute(*inputs)]

        return add(wrong, *given, **options)

    monkeypatch.setattr(fakes, "add", add_wrong)
    with pytest.raises(EngineError, match="just built does not compute what the model does"):
        TensorRtEngine(bundle, batch=3, dynamic=True, store=store)
    assert list_stored(store) == []
    assert fakes.cuda.leaks() == 0


def test_where_one_frame_is_all_that_fits_the_engine_is_fixed(
    bundle: Bundle, fakes: Fakes, store: Store
) -> None:
    fakes.workspace, fakes.cuda.memory = 10 << 20, 15 << 20
    said: list[str] = []
    with TensorRtEngine(bundle, batch=4, dynamic=True, store=store, say=said.append) as engine:
        assert engine.batch == 1
        assert engine.run(random_frames(3, SIZE, SIZE)).mask.shape == (3, SIZE, SIZE)
    assert [(one.batch, one.dynamic) for one in fakes.builds] == [(4, True), (2, True), (1, False)]
    assert len(said) == 3
    assert said[2].endswith(f", kept in {store.folder}")


def test_a_dynamic_batch_of_one_is_refused(bundle: Bundle, fakes: Fakes) -> None:
    with pytest.raises(OptionError, match="dynamic batch 1: the most frames per call, from 2"):
        BuildOptions(dynamic=True)
    with pytest.raises(OptionError, match="dynamic batch 1: the most frames per call, from 2"):
        TensorRtEngine(bundle, dynamic=True)


def test_the_converter_is_given_a_range(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engines.trt_build, "_gpu", lambda: torch.device("cpu"))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setenv("NEM_CACHE", str(tmp_path))
    fake, said = fake_torch_tensorrt.install(monkeypatch), []
    build_engine(tiny_model(), BuildOptions((40, 60), "f32", 3, dynamic=True), said.append)
    (asked,) = fake.asked
    assert [(i.name, i.shape, i.min_shape, i.opt_shape, i.max_shape) for i in asked.inputs] == [
        ("frames", None, (1, 40, 60, 3), (3, 40, 60, 3), (3, 40, 60, 3)),
        ("target", None, (1,), (3,), (3,)),
    ]
    assert "batch 1 to 3, f32" in said[0]
    frames = torch.from_numpy(random_frames(3, 40, 60))
    classes = torch.tensor([-1, 2, 4], dtype=torch.int32)
    program = asked.program.module()
    whole = program(frames, classes)
    for count in (1, 2):
        for some_of, all_of in zip(program(frames[:count], classes[:count]), whole, strict=True):
            torch.testing.assert_close(some_of, all_of[:count], atol=1e-4, rtol=1e-4)


def test_an_onnx_file_with_a_free_number_of_frames_gets_a_profile() -> None:
    options = BuildOptions((40, 60), "f32", 8, dynamic=True)
    ports = [
        SimpleNamespace(name=name, shape=_fixed(name, shape, options, "graph"))
        for name, shape in (("frames", (-1, -1, -1, 3)), ("target", (-1,)))
    ]
    assert [port.shape for port in ports] == [(-1, 40, 60, 3), (-1,)]
    told: dict[str, Any] = {}
    profile = SimpleNamespace(set_shape=lambda name, *shapes: told.update({name: shapes}))
    network = SimpleNamespace(num_inputs=2, get_input=ports.__getitem__)
    builder = SimpleNamespace(create_optimization_profile=lambda: profile)
    assert _profile(builder, network, 8) is profile
    assert told == {
        "frames": ((1, 40, 60, 3), (8, 40, 60, 3), (8, 40, 60, 3)),
        "target": ((1,), (8,), (8,)),
    }
    with pytest.raises(OptionError, match=r"of shape \(8, 40, 60, 3\), asked for is \(-1, 40, "):
        _fixed("frames", (8, 40, 60, 3), options, "graph")


@pytest.mark.timeout(600)
@pytest.mark.skipif(python_with_rtx() is None, reason="torch-tensorrt-rtx is not installed")
def test_the_real_compiler_makes_one_engine_for_all_numbers() -> None:
    bundle = open_bundle("nem-tiny")
    size, maps = bundle.manifest.input_size, bundle.manifest.heads
    done = subprocess.run(
        [
            str(python_with_rtx()),
            "-m",
            "tests.engines.dryrun_build",
            bundle.graph_path,
            "dynamic",
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["onnx"]["inputs"][0] == ["frames", "UINT8", [-1, 48, 100, 3]]
    for built, (frame, _, _, overlay) in zip(found["torch"], DYNAMIC, strict=True):
        shape = [-1, *(frame or (size, size)), 3]
        assert built["inputs"] == [["frames", "UINT8", shape], ["target", "INT32", [-1]]]
        outputs = [["overlay", "UINT8", shape]] if overlay else []
        outputs += [[f"mask_{aim}", "FLOAT", [-1, size, size]] for aim in maps]
        assert built["outputs"][: len(outputs)] == outputs
        assert {dims[0] for _, _, dims in built["outputs"]} == {-1}
        assert built["bytes"] > 1e6
