"""The TensorRT export: what is built, what is tried, what is written. No GPU: its parts are stood
in for, and the stand-in for the runner answers with torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import engines.gpus
import engines.onnx_fixed
import engines.trt_api
import engines.trt_build
import engines.trt_onnx
import engines.trt_runner
from engines import (
    EngineError,
    EngineUnavailable,
    ExportError,
    Gpu,
    export_file,
    save_bundle,
)
from engines.export_files import Format
from engines.fixed_graph import FixedGraph
from engines.trt_build import BuildOptions
from engines.trt_runner import Port
from nem.bundle import Bundle
from nem.bundle_io import load_model
from nem.explanation import AIMS
from nem.model import NEM
from tests.engines.conftest import NAMES, SIZE, tiny_model

ENGINE = b"an engine's bytes"
GPU = Gpu(0, "NVIDIA Test", "8.7", "580.1")
OUTPUTS = [*(f"mask_{aim}" for aim in AIMS), "scores", "embedding"]
WIDE = (40, 90)


class Runner:
    """Stands in for TrtRunner: the graph's answer, plus what is wrong with it."""

    graph: FixedGraph
    classes = np.int32
    batch = 1
    off = 0.0
    closed = 0

    def __init__(self, engine: bytes, *, device: int = 0) -> None:
        assert (engine, device) == (ENGINE, GPU.index)
        example = self.graph.example(self.batch)
        with torch.no_grad():
            found = self.graph(*example)
        types = {"frames": np.uint8, "target": self.classes}
        self.inputs = {
            name: Port(name, tuple(value.shape), np.dtype(dtype))
            for (name, dtype), value in zip(types.items(), example, strict=False)
        }
        self.outputs = {
            name: Port(name, tuple(value.shape), np.dtype(np.float32))
            for name, value in zip(self.graph.outputs, found, strict=True)
        }

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, port in self.inputs.items():
            port.check(inputs[name])
        with torch.no_grad():
            found = self.graph(*(torch.from_numpy(inputs[name]) for name in self.inputs))
        names = self.outputs
        return {n: value.numpy() + self.off for n, value in zip(names, found, strict=True)}

    def close(self) -> None:
        type(self).closed += 1


class Parts:
    """What the stand-ins were asked for."""

    def __init__(self) -> None:
        self.built: list[tuple[Any, BuildOptions]] = []
        self.from_onnx: list[tuple[Path, BuildOptions]] = []
        self.exported: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.unavailable = ""

    def build_engine(self, model: NEM, options: BuildOptions, say: Any = None) -> bytes:
        if self.unavailable:
            raise EngineUnavailable(self.unavailable)
        self.built.append((model, options))
        say("building")
        return ENGINE

    def build_from_onnx(self, onnx: Path, options: BuildOptions, say: Any = None) -> bytes:
        assert onnx.exists()
        self.from_onnx.append((onnx, options))
        return ENGINE

    def export_fixed(self, model: NEM, path: Path, **options: Any) -> Path:
        self.exported.append(options)
        path.write_text("graph")
        return path


@pytest.fixture
def parts(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Parts:
    made = Parts()
    monkeypatch.setattr(Runner, "graph", FixedGraph(load_model(bundle), WIDE), raising=False)
    monkeypatch.setattr(Runner, "closed", 0)
    for module, name, value in (
        (engines.trt_api, "load_trt", lambda flavour: SimpleNamespace(__version__="10.3.0.26")),
        (engines.gpus, "find_gpu", lambda device, engine: GPU),
        (engines.trt_runner, "TrtRunner", Runner),
        (engines.trt_build, "build_engine", made.build_engine),
        (engines.trt_onnx, "build_from_onnx", made.build_from_onnx),
        (engines.onnx_fixed, "export_fixed", made.export_fixed),
    ):
        monkeypatch.setattr(module, name, value)
    return made


def hide_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )


def test_writes_the_engine_and_what_it_is(bundle: Bundle, tmp_path: Path, parts: Parts) -> None:
    path = tmp_path / "nem.engine"
    files = export_file(
        bundle, path, "tensorrt", precision="fp16", frame_size=WIDE, say=parts.said.append
    )
    assert files == [path, tmp_path / "nem.json"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    [(model, options)] = parts.built
    assert model.aims == AIMS
    assert options == BuildOptions(frame_size=WIDE, precision="f16", batch=1)
    assert path.read_bytes() == ENGINE
    facts = json.loads(files[1].read_text())
    assert facts["sha256"] == hashlib.sha256(ENGINE).hexdigest()
    assert (facts["engine"], facts["size"]) == ("nem.engine", len(ENGINE))
    assert facts["inputs"] == [
        {"name": "frames", "shape": [1, *WIDE, 3], "dtype": "uint8"},
        {"name": "target", "shape": [1], "dtype": "int32"},
    ]
    assert [port["name"] for port in facts["outputs"]] == OUTPUTS
    assert facts["outputs"][0] == {
        "name": "mask_embedding",
        "shape": [1, SIZE, SIZE],
        "dtype": "float32",
    }
    assert facts["classes"] == list(NAMES)
    assert facts["aims"] == list(AIMS)
    assert (facts["frame_size"], facts["batch"], facts["precision"]) == ([*WIDE], 1, "f16")
    assert facts["gpu"]["name"] == "NVIDIA Test"
    assert facts["versions"]["tensorrt"] == "10.3.0.26"
    assert facts["versions"]["nem-stream"]
    assert facts["built_with"] == "torch-tensorrt"
    assert parts.said == ["building", "running the golden frames"]
    assert Runner.closed == 1


def test_goes_by_way_of_onnx_without_torch_tensorrt(
    bundle: Bundle, tmp_path: Path, parts: Parts
) -> None:
    parts.unavailable = "torch_tensorrt is not installed"
    path = tmp_path / "nem.engine"
    export_file(bundle, path, "tensorrt", frame_size=WIDE, say=parts.said.append)
    assert parts.said[0] == "going by way of ONNX: torch_tensorrt is not installed"
    assert parts.exported == [{"frame_size": WIDE, "precision": "f16", "batch": 1}]
    [(graph, options)] = parts.from_onnx
    assert graph.name == "graph.onnx"
    assert options.precision == "f16"
    assert json.loads((tmp_path / "nem.json").read_text())["built_with"] == "onnx"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nem.engine", "nem.json"]


def test_without_torch_the_bundle_s_own_graph_is_built(
    bundle: Bundle, tmp_path: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_torch(monkeypatch)
    monkeypatch.setattr(Runner, "classes", np.int64)  # as in that graph
    export_file(bundle, tmp_path / "a.engine", "tensorrt", precision="f32", frame_size=WIDE)
    assert parts.from_onnx == [
        (bundle.graph_path, BuildOptions(frame_size=WIDE, precision="f32", batch=1))
    ]
    assert parts.built == parts.exported == []
    told = json.loads((tmp_path / "a.json").read_text())
    assert [port["dtype"] for port in told["inputs"]] == ["uint8", "int64"]
    with pytest.raises(EngineUnavailable, match=r"in f16 needs torch.*or take f32"):
        export_file(bundle, tmp_path / "b.engine", "tensorrt", frame_size=WIDE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.engine", "a.json"]


@pytest.mark.parametrize("torch_there", [True, False])
def test_an_engine_that_answers_wrongly_is_not_written(
    bundle: Bundle,
    tmp_path: Path,
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    torch_there: bool,
) -> None:
    monkeypatch.setattr(Runner, "off", 0.1)
    if not torch_there:
        hide_torch(monkeypatch)
    path = tmp_path / "nem.engine"
    path.write_text("mine")
    with pytest.raises(EngineError, match="does not compute what the model does: mask_embedding"):
        export_file(bundle, path, "tensorrt", precision="f32", frame_size=WIDE, overwrite=True)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]
    assert Runner.closed == 1


@pytest.mark.parametrize(
    ("name", "kind", "own"),
    [("graph.onnx", "onnx", "graph.onnx"), ("nem.engine", "tensorrt", "nem.json")],
)
def test_the_bundle_s_own_files_are_never_replaced(
    bundle: Bundle, parts: Parts, name: str, kind: Format, own: str
) -> None:
    before = (bundle.path / own).read_bytes()
    with pytest.raises(ExportError, match=f"{own}: is the bundle's own"):
        export_file(bundle, bundle.path / name, kind, frame_size=WIDE, overwrite=True)
    assert (bundle.path / own).read_bytes() == before


def test_the_model_s_size_is_the_default(bundle: Bundle, tmp_path: Path, parts: Parts) -> None:
    Runner.graph = FixedGraph(load_model(bundle))
    _, told = export_file(bundle, tmp_path / "nem.engine", "tensorrt")
    assert parts.built[0][1].frame_size == (SIZE, SIZE)
    assert json.loads(told.read_text())["frame_size"] == [SIZE, SIZE]


@pytest.mark.parametrize("unavailable", ["", "torch_tensorrt is not installed"])
def test_a_batch_is_built_and_tried_whole(
    bundle: Bundle,
    tmp_path: Path,
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    unavailable: str,
) -> None:
    monkeypatch.setattr(Runner, "batch", 3)
    parts.unavailable = unavailable
    _, told = export_file(bundle, tmp_path / "nem.engine", "tensorrt", frame_size=WIDE, batch=3)
    [(_, options)] = parts.from_onnx if unavailable else parts.built
    assert options.batch == 3
    assert [options["batch"] for options in parts.exported] == ([3] if unavailable else [])
    facts = json.loads(told.read_text())
    assert (facts["batch"], facts["inputs"][0]["shape"]) == (3, [3, *WIDE, 3])


def test_a_model_without_classes_needs_no_torch_either(
    tmp_path: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(classes=())
    bundle = save_bundle(model, tmp_path / "plain", name="plain")
    monkeypatch.setattr(Runner, "graph", FixedGraph(model))
    hide_torch(monkeypatch)
    _, told = export_file(bundle, tmp_path / "nem.engine", "tensorrt", precision="f32")
    facts = json.loads(told.read_text())
    assert [port["name"] for port in facts["outputs"]] == ["mask_embedding", "embedding"]


def test_a_machine_without_tensorrt_is_told_the_cure(bundle: Bundle, tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    with pytest.raises(EngineUnavailable, match=r"tensorrt is not installed: pip install"):
        export_file(bundle, tmp_path / "nem.engine", "tensorrt")
    assert list(tmp_path.iterdir()) == []
