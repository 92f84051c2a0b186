"""What is asked of Torch-TensorRT, and what becomes of its errors. Nothing is compiled here."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import engines.trt_build
from engines import EngineError, EngineUnavailable, OptionError
from engines.cuda_memory import DeviceMemoryError
from engines.fixed_graph import FixedGraph
from engines.trt_build import BuildOptions, build_engine
from engines.trt_convert import load_converter, register_uint8_output
from engines.trt_names import _teach_names
from nem.explanation import AIMS
from tests.engines.conftest import NAMES, SIZE, tiny_model
from tests.engines.fake_torch_tensorrt import Fake, install

MAPS = tuple(f"mask_{aim}" for aim in AIMS)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No GPU is needed, the store is empty, and what was taught to a fake is forgotten."""
    monkeypatch.setattr(engines.trt_build, "_gpu", lambda: torch.device("cpu"))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setenv("NEM_CACHE", str(tmp_path))
    register_uint8_output.cache_clear()
    _teach_names.cache_clear()
    yield
    register_uint8_output.cache_clear()
    _teach_names.cache_clear()


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A fake converter of programs that were really exported, which takes seconds."""
    return install(monkeypatch)


def unexported(monkeypatch: pytest.MonkeyPatch, **options: object) -> Fake:
    """A fake converter of programs that compute nothing."""
    program = SimpleNamespace(module=lambda: lambda *_: (), state_dict={})
    monkeypatch.setattr("torch.export.export", lambda graph, example: program)
    return install(monkeypatch, **options)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    return unexported(monkeypatch)


def test_names_types_and_shapes(real: Fake) -> None:
    engine = build_engine(tiny_model(), BuildOptions((40, 60), batch=2))
    assert engine == b"engine 1"
    (asked,) = real.asked
    assert asked.names == (("frames", "target"), (*MAPS, "scores", "embedding"))
    assert [(i.name, i.shape, i.dtype) for i in asked.inputs] == [
        ("frames", (2, 40, 60, 3), torch.uint8),
        ("target", (2,), torch.int32),
    ]
    shapes = [tuple(value.shape) for value in asked.outputs]
    assert shapes == [(2, SIZE, SIZE)] * 4 + [(2, len(NAMES)), (2, 32)]
    assert {value.dtype for value in asked.outputs} == {torch.float32}
    weights = {value.dtype for value in asked.program.state_dict.values()}
    assert torch.float16 in weights
    assert real.registered == []


def test_an_overlay_comes_first_and_only_its_last_cast_is_taught(real: Fake) -> None:
    build_engine(tiny_model(), BuildOptions((40, 60), batch=3, overlay=True))
    (asked,) = real.asked
    assert asked.names[1] == ("overlay", *MAPS, "scores", "embedding")
    first = asked.outputs[0]
    assert (first.dtype, tuple(first.shape)) == (torch.uint8, (3, 40, 60, 3))
    register_uint8_output()
    (taught,) = real.registered
    assert (taught["key"], taught["priority"]) == (torch.ops.aten._to_copy.default, "high")
    program = asked.program.run_decompositions()
    casts = [n for n in program.graph.nodes if n.target is torch.ops.aten._to_copy.default]
    assert len(casts) > 3
    taken = [node for node in casts if taught["capability_validator"](node, None)]
    assert [node.kwargs["dtype"] for node in taken] == [torch.uint8]
    made: list[tuple[object, object]] = []
    layer = SimpleNamespace(name="", get_output=lambda index: ("output", index))
    net = SimpleNamespace(add_cast=lambda tensor, kind: made.append((tensor, kind)) or layer)
    got = taught["converter"](SimpleNamespace(net=net), None, ("tensor",), {}, "node")
    assert (made, got, layer.name) == ([("tensor", "trt uint8")], ("output", 0), "node_to_uint8")


def test_names_are_the_same_before_it_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(monkeypatch, version="2.13.0")
    build_engine(tiny_model(), BuildOptions((40, 60), overlay=True))
    (asked,) = fake.asked
    assert asked.names == (("frames", "target"), ("overlay", *MAPS, "scores", "embedding"))
    assert len(asked.outputs) == 7


def test_a_model_without_target_or_classes_has_fewer_ports(real: Fake) -> None:
    build_engine(tiny_model(classes=()), BuildOptions())
    (asked,) = real.asked
    assert asked.names == (("frames",), ("mask_embedding", "embedding"))
    assert len(asked.outputs) == 2
    assert asked.inputs[0].shape == (1, SIZE, SIZE, 3)
    graph = FixedGraph(tiny_model(aims=("ranking", "class")))
    assert graph.outputs == ["mask_ranking", "mask_class", "scores", "embedding"]


def test_options_arrive(fake: Fake) -> None:
    options = BuildOptions(precision="f32", workspace_mb=300, version_compatible=True)
    build_engine(tiny_model(), options)
    asked = fake.asked[0].options
    assert "timings.bin" in asked.pop("timing_cache_path")
    assert asked == {
        "disable_tf32": True,
        "workspace_size": 300 << 20,
        "version_compatible": True,
        "cache_built_engines": False,
        "reuse_cached_engines": False,
        "immutable_weights": True,
    }
    build_engine(tiny_model(), BuildOptions(precision="bf16"))
    other = fake.asked[1].options
    assert (other["disable_tf32"], other["workspace_size"]) == (False, 0)
    assert other["version_compatible"] is False


def test_timings_are_kept_beside_the_stored_engines(fake: Fake, tmp_path: Path) -> None:
    kept = tmp_path / "engines" / "timings-11.1.0.106-nvidia-h100-80gb-hbm3.bin"
    build_engine(tiny_model(), BuildOptions())
    assert fake.asked[0].timings is None
    assert kept.read_bytes() == b"timings 1"
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    build_engine(tiny_model(), BuildOptions())
    assert fake.asked[1].timings == b"timings 1"
    assert kept.read_bytes() == b"timings 2"
    fake.fail = "refused"
    with pytest.raises(EngineError):
        build_engine(tiny_model(), BuildOptions())
    assert kept.read_bytes() == b"timings 2"
    assert list(kept.parent.iterdir()) == [kept]


def test_a_build_succeeds_where_timings_can_not_be_kept(
    fake: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "engines").write_text("in the way")
    assert build_engine(tiny_model(), BuildOptions()) == b"engine 1"
    assert "timings of kernels not kept" in caplog.text


def test_rtx_exports_on_the_cpu_and_times_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = unexported(monkeypatch, rtx=True)
    monkeypatch.setattr(engines.trt_build, "_gpu", lambda: pytest.fail("asked for a GPU"))
    build_engine(tiny_model(), BuildOptions(flavour="tensorrt-rtx"))
    assert fake.asked[0].options["timing_cache_path"] == os.devnull
    assert list(tmp_path.iterdir()) == []


def test_tells_what_it_does_and_nothing_else_is_heard(
    fake: Fake, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    build_engine(tiny_model(), BuildOptions((40, 60), batch=2), said.append)
    assert said == [
        "exporting resnet18 for frames of 60x40, batch 2, f16",
        "building resnet18 for frames of 60x40, batch 2, f16 with tensorrt: may take minutes",
    ]
    assert capfd.readouterr() == ("", "")
    heard = [r.name for r in caplog.records if r.name.startswith("torch_tensorrt")]
    assert heard == []
    logger = logging.getLogger("torch_tensorrt")
    assert (logger.propagate, logger.level, logger.handlers) == (True, logging.NOTSET, [])


@pytest.mark.parametrize("version", ["2.11.0", "2.12.1", "2.14.0"])
@pytest.mark.parametrize(
    ("fail", "say"),
    [
        ("operator", "resnet18 .* no operator cumprod; use engine inductor"),
        ("refused", r"resnet18: .*first input has type UInt8\.\); use engine inductor"),
        ("silent", "resnet18: .* AssertionError: no engine; use engine inductor"),
    ],
)
def test_errors_tell_the_reason_and_the_cure_in_a_line(
    monkeypatch: pytest.MonkeyPatch, fail: str, say: str, version: str
) -> None:
    fake = unexported(monkeypatch, version=version)
    fake.fail = fail
    with pytest.raises(EngineError, match=say) as caught:
        build_engine(tiny_model(), BuildOptions())
    assert "\n" not in str(caught.value)
    assert "While" not in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("where", ["moving", "exporting", "memory", "memory of RTX"])
def test_too_little_memory_to_build_is_told_apart(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has ...")

    if where == "moving":
        monkeypatch.setattr(FixedGraph, "to", full)
    elif where == "exporting":
        monkeypatch.setattr(torch.export, "export", full)
    else:  # while it is compiled
        fake.fail = where
    with pytest.raises(DeviceMemoryError, match=r"too little GPU memory .* batch 2: ") as caught:
        build_engine(tiny_model(), BuildOptions(batch=2))
    assert "\n" not in str(caught.value)


def test_a_model_that_can_not_be_exported(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("a branch\non data")

    monkeypatch.setattr("torch.export.export", refuse)
    with pytest.raises(EngineError, match="resnet18 can't be exported: a branch on data; use"):
        build_engine(tiny_model(), BuildOptions())
    assert fake.asked == []


def test_a_missing_old_or_other_torch_tensorrt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, version="2.10.0+cu130")
    with pytest.raises(EngineUnavailable, match=r"2\.10\.0.* 2\.11 or newer .*--upgrade"):
        build_engine(tiny_model(), BuildOptions())
    install(monkeypatch, version="2.15.1")
    assert load_converter("tensorrt").__version__ == "2.15.1"
    with pytest.raises(EngineUnavailable, match=r"that of tensorrt, .*nem-stream\[tensorrt-rtx\]"):
        load_converter("tensorrt-rtx")
    install(monkeypatch, rtx=True)
    with pytest.raises(EngineUnavailable, match=r"that of tensorrt-rtx, .*\[tensorrt\]"):
        load_converter("tensorrt")
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(EngineUnavailable, match=r"torch_tensorrt is not installed: pip install"):
        load_converter("tensorrt")


def test_standard_tensorrt_needs_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    install(monkeypatch)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EngineUnavailable, match="torch sees none; build it there"):
        build_engine(tiny_model(), BuildOptions())


@pytest.mark.parametrize(
    ("options", "say"),
    [
        ({"flavour": "trt"}, "flavour 'trt', allowed: tensorrt, tensorrt-rtx"),
        ({"precision": "fp16"}, "precision 'fp16', allowed: f16, f32, bf16"),
        ({"frame_size": (0, 10)}, "height and width from 1"),
        ({"batch": 0}, "batch 0: frames per call, from 1"),
        ({"workspace_mb": 0}, "workspace 0 MiB: from 1"),
        ({"flavour": "tensorrt-rtx", "version_compatible": True}, "leave it out, or use tensorrt"),
    ],
)
def test_refuses_other_options(options: dict[str, object], say: str) -> None:
    with pytest.raises(OptionError, match=say):
        BuildOptions(**options)


def test_a_model_that_can_draw_nothing_gets_no_overlay(fake: Fake) -> None:
    with pytest.raises(OptionError, match="the model can draw: nothing"):
        build_engine(tiny_model(aims=("ranking",)), BuildOptions(overlay=True))
    assert fake.asked == []


def test_importing_loads_neither_torch_nor_tensorrt() -> None:
    code = (
        "import sys, engines.trt_build, engines.trt_onnx, engines.trt_convert\n"
        "print(sorted({'torch', 'timm', 'tensorrt', 'cuda', 'onnx'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
