"""TensorRT inside torch, on a Torch-TensorRT whose modules are the graphs themselves."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import engines.trt_build
import engines.trt_module
from engines import EngineError, EngineUnavailable, OptionError, compare, open_engine
from engines.cuda_memory import DeviceMemoryError
from engines.fixed_graph import FixedGraph
from engines.golden import reference
from engines.gpus import Gpu
from engines.trt_module import ModuleGraph, TensorRtModuleEngine
from nem.bundle import Bundle
from nem.bundle_io import load_model
from scripts.check_models_trt import HOME, judge_report
from tests.engines.conftest import NAMES, SIZE, random_frames, tiny_model
from tests.engines.fake_torch_tensorrt import Fake, install
from tests.engines.test_engine_contract import *  # noqa: F403  run on the fixture `engine`
from tests.nem.toys import write_tiny_bundle

GPUS = [Gpu(0, "NVIDIA Fake 1", "8.9", "550.54.14")]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Gpu]:
    """A driver that shows GPUs, for which torch computes on the CPU."""
    found = list(GPUS)
    monkeypatch.setattr("engines.gpus.find_gpus", lambda: tuple(found))
    monkeypatch.setattr(engines.trt_module, "find_device", lambda *_: torch.device("cpu"))
    monkeypatch.setattr(engines.trt_build, "_gpu", lambda: torch.device("cpu"))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA Fake 1")
    monkeypatch.setattr("torch.cuda.device", lambda _: nullcontext())
    monkeypatch.setenv("NEM_CACHE", str(tmp_path))
    return found


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch, gpus: list[Gpu]) -> Fake:
    """A compiler of programs that were really exported, which takes seconds."""
    return install(monkeypatch)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, gpus: list[Gpu]) -> Fake:
    """A compiler of programs that are the graphs themselves."""
    monkeypatch.setattr(
        "torch.export.export", lambda graph, _: SimpleNamespace(module=lambda: graph)
    )
    return install(monkeypatch)


@pytest.fixture
def engine(bundle: Bundle, fake: Fake) -> Iterator[TensorRtModuleEngine]:
    with TensorRtModuleEngine(bundle, precision="f32", batch=2) as opened:
        yield opened


@pytest.fixture(params=["f16", "f32", "bf16"])
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


def test_what_is_compiled_and_how(bundle: Bundle, real: Fake) -> None:
    said: list[str] = []
    with TensorRtModuleEngine(bundle, frame_size=(40, 60), batch=3, say=said.append) as engine:
        assert (engine.name, engine.device, engine.precision) == ("tensorrt-module", "cpu", "f16")
        assert (engine.frame_size, engine.batch, engine.names) == ((40, 60), 3, NAMES)
        found = engine.run(random_frames(4, 40, 60))
    assert found.mask.shape == (4, SIZE, SIZE)
    (asked,) = real.asked
    assert [(i.name, i.shape, i.dtype) for i in asked.inputs] == [
        ("frames", (3, 40, 60, 3), torch.float16),
        ("target", (3,), torch.int32),
    ]
    assert Path(asked.options.pop("timing_cache_path")).name == "timings.bin"
    assert asked.options == {
        "require_full_compilation": True,
        "min_block_size": 1,
        "workspace_size": 0,
        "disable_tf32": False,
        "immutable_weights": True,
        "cache_built_engines": False,
        "reuse_cached_engines": False,
    }
    assert said == [
        "engine tensorrt-module: is compiled at each start; engine tensorrt keeps what it built",
        "exporting resnet18 for frames of 60x40, batch 3, f16",
        "building resnet18 for frames of 60x40, batch 3, f16 with tensorrt: may take minutes",
    ]


def test_frames_as_float16_are_the_same_frames(bundle: Bundle, precision: str) -> None:
    model = load_model(bundle)
    frames = torch.arange(256, dtype=torch.uint8).repeat(3 * SIZE * SIZE // 256)
    frames = frames.reshape(1, SIZE, SIZE, 3)
    graph = ModuleGraph(model, None, precision)
    assert [each.dtype for each in graph.example(2)] == [torch.float16, torch.int32]
    with torch.inference_mode():
        right = FixedGraph(model, None, precision)(frames)
        for got, wanted in zip(graph(frames.half()), right, strict=True):
            assert torch.equal(got, wanted)


def test_agrees_with_the_reference(bundle: Bundle, fake: Fake, precision: str) -> None:
    frames = random_frames(2, 90, 121)
    with TensorRtModuleEngine(bundle, precision=precision, frame_size=(90, 121)) as engine:
        found = engine.run(frames)
    off = np.abs(found.mask - reference(load_model(bundle), frames)["mask_embedding"]).max()
    assert off < {"f32": 1e-4, "f16": 6 / 255, "bf16": 0.1}[precision]


def test_parity_with_eager(bundle: Bundle, engine: TensorRtModuleEngine) -> None:
    with open_engine(bundle, "eager", "cpu") as eager:
        parity = compare(engine, eager, random_frames(3, SIZE, SIZE))
    assert parity.ok, str(parity)


@pytest.mark.parametrize(("count", "calls"), [(1, 1), (2, 1), (3, 2), (5, 3)])
def test_any_number_of_frames_is_run_in_batches(
    engine: TensorRtModuleEngine, fake: Fake, count: int, calls: int
) -> None:
    frames, classes = random_frames(count, SIZE, SIZE), [i % len(NAMES) for i in range(count)]
    before = fake.runs
    found = engine.run(frames, "target", classes)
    assert fake.runs - before == calls
    for index, number in enumerate(classes):
        one = engine.run(frames[index : index + 1], "target", number)
        np.testing.assert_allclose(found.mask[index], one.mask[0], atol=1e-4)


def test_a_bundle_without_target_or_classes(tmp_path: Path, fake: Fake) -> None:
    small = write_tiny_bundle(tmp_path / "small", tiny_model(classes=()), classes=None)
    with TensorRtModuleEngine(small, precision="f32") as engine:
        found = engine.run(random_frames(2, SIZE, SIZE))
    assert (found.scores, engine.names) == (None, ())
    assert [i.name for i in fake.asked[0].inputs] == ["frames"]


@pytest.mark.parametrize("wrong", [0.1, float("nan")])
def test_a_module_with_wrong_answers_is_an_error(bundle: Bundle, fake: Fake, wrong: float) -> None:
    fake.wrong = wrong
    with pytest.raises(EngineError, match=r"just compiled does not compute .*mask_embed") as caught:
        TensorRtModuleEngine(bundle, precision="f32")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fail", "say"),
    [
        ("operator", "no operator cumprod; use engine inductor"),
        ("left", "TensorRT can't compile it: .*model is not fully supported; use engine inductor"),
        ("silent", "AssertionError: no engine; use engine inductor"),
    ],
)
def test_nothing_is_left_to_torch_in_silence(
    bundle: Bundle, fake: Fake, fail: str, say: str
) -> None:
    fake.fail = fail
    with pytest.raises(EngineError, match=say) as caught:
        TensorRtModuleEngine(bundle)
    assert "\n" not in str(caught.value)
    assert fake.runs == 0


@pytest.mark.parametrize(
    ("trouble", "kind", "say"),
    [
        (RuntimeError("CUDA error: an illegal\nmore"), EngineError, "failed on cpu: CUDA error: "),
        (torch.OutOfMemoryError("out of memory. Tried"), DeviceMemoryError, "too little free mem"),
    ],
)
def test_torchs_errors_are_a_line(
    engine: TensorRtModuleEngine, fake: Fake, trouble: Exception, kind: type, say: str
) -> None:
    fake.trouble = trouble
    with pytest.raises(kind, match=say) as caught:
        engine.run(random_frames(1, SIZE, SIZE))
    assert "\n" not in str(caught.value)
    fake.trouble = None
    assert engine.run(random_frames(1, SIZE, SIZE)).mask.shape == (1, SIZE, SIZE)


def test_that_it_compiles_is_told_in_the_log_where_nobody_listens(
    bundle: Bundle, fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    TensorRtModuleEngine(bundle).close()
    assert "is compiled at each start" in caplog.text


@pytest.mark.parametrize(
    ("options", "say"),
    [
        ({"device": "cpu"}, "tensorrt-module: device 'cpu', allowed: auto, cuda, cuda:N"),
        ({"precision": "int9"}, "tensorrt-module: precision 'int9', allowed: auto, f16, f32, bf16"),
        ({"frame_size": (0, 5)}, r"frame size \(0, 5\): height and width from 1"),
        ({"batch": 0}, "batch 0: frames per call, from 1"),
    ],
)
def test_refuses_options_that_are_not(
    bundle: Bundle, fake: Fake, options: dict[str, object], say: str
) -> None:
    with pytest.raises(OptionError, match=say):
        TensorRtModuleEngine(bundle, **options)
    assert fake.asked == []


def test_what_this_machine_lacks_is_named(
    bundle: Bundle, fake: Fake, gpus: list[Gpu], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineUnavailable, match="cuda:1 asked for, the driver shows 1 GPU"):
        TensorRtModuleEngine(bundle, device="cuda:1")
    gpus[0] = Gpu(0, "NVIDIA Fake 0", "7.5", "550.54.14")
    with pytest.raises(EngineUnavailable, match=r"capability 7.5 and bf16 needs 8.0"):
        TensorRtModuleEngine(bundle, precision="bf16")
    monkeypatch.undo()
    monkeypatch.setattr("engines.gpus.find_gpus", lambda: tuple(GPUS))
    install(monkeypatch)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(EngineUnavailable, match="tensorrt-module: device cuda:0 asked for, torch"):
        TensorRtModuleEngine(bundle)


@pytest.mark.timeout(600)
@pytest.mark.skipif(not os.environ.get(HOME), reason=f"{HOME} names no environment of trt-dryrun")
def test_the_real_partitioner_leaves_nothing_to_torch() -> None:
    root = Path(__file__).parents[2]
    command = [Path(os.environ[HOME]) / "bin" / "trt-dryrun"]
    command += ["tests.engines.dryrun_build:module_case", "--flavour", "rtx", "--build"]
    command += ["--runtime", "torch", "--json"]
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        command,
        cwd=root,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    outputs = len(report["blocks"][0]["outputs"])
    found = judge_report(report, "module", outputs)
    assert (found["missed"], found["blocks"], report["fallbacks"]) == ([], 1, [])
    assert report["blocks"][0]["inputs"][0].startswith("float16[1, ")
    assert found["engine_mb"] > 1
