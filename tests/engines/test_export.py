"""Export: one clean file, weights lossless in 16 bits, the model left alone."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import engines.export
from engines import EngineError, EngineUnavailable, export_onnx, open_engine, save_bundle
from engines.errors import ExportError
from engines.export import check_onnx
from engines.graph import FrameGraph
from engines.onnx_passes import PIXELS, RESIZED, mark_resize
from nem.bundle import Bundle
from nem.class_layers import ClassLinear
from nem.explanation import AIMS
from tests.engines.conftest import SIZE, random_frames, tiny_model


def is_band(array: np.ndarray) -> bool:
    return array.ndim == 2 and SIZE in array.shape


def test_weights_are_kept_in_16_bits(bundle: Bundle) -> None:
    graph = onnx.load(bundle.graph_path).graph
    kept = {name: onnx.numpy_helper.to_array(t) for t in graph.initializer if (name := t.name)}
    # The matrices that enlarge maps and that smooth them are no weights: one side is S. Nor are
    # tables of classes, which are results.
    large = {
        name: array
        for name, array in kept.items()
        if array.size >= 1024 and not is_band(array) and not name.endswith("table")
    }
    modules = [
        module
        for module in tiny_model().modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not isinstance(module, ClassLinear)
    ]
    assert len(large) == sum(m.weight.numel() >= 1024 for m in modules) > 10
    assert {array.dtype for array in large.values()} == {np.dtype(np.float16)}


def test_file_stands_alone_and_tells_nothing_of_this_machine(bundle: Bundle) -> None:
    model = onnx.load(bundle.graph_path, load_external_data=False)
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in model.graph.initializer)
    raw = bundle.graph_path.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in raw
    assert b"stack_trace" not in raw
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ["batch", "height", "width", 3]
    names = {name for node in model.graph.node for name in node.output}
    assert [opset.version for opset in model.opset_import if not opset.domain] == [18]
    assert {PIXELS, RESIZED, *(f"mask_{aim}" for aim in AIMS), "scores", "embedding"} <= names


@pytest.mark.parametrize("aim", AIMS)
def test_no_map_needs_what_only_another_does(bundle: Bundle, aim: str) -> None:
    graph = onnx.load(bundle.graph_path).graph
    makers = {name: node for node in graph.node for name in node.output}
    needed: set[str] = set()
    waiting = [f"mask_{aim}"]
    while waiting:
        name = waiting.pop()
        if name in makers and name not in needed:
            needed.add(name)
            waiting += makers[name].input
    large = [name for name in needed if makers[name].op_type == "Split"]
    shapes = {info.name: info.type.tensor_type.shape.dim for info in graph.value_info}
    assert large  # of the heads' maps, at their own stride
    assert all(shapes[name][-1].dim_value < SIZE for name in large)


def test_a_model_without_classes_has_no_scores(tmp_path: Path) -> None:
    bundle = save_bundle(tiny_model(classes=()), tmp_path / "plain", name="plain")
    with open_engine(bundle, "openvino") as compiled, open_engine(bundle, "eager") as eager:
        for engine in (compiled, eager):
            explanation = engine.run(random_frames(2, SIZE, SIZE))
            assert explanation.scores is None
            assert engine.aims == ("embedding",)
            assert explanation.target is None
            assert explanation.names == engine.names == ()
            assert explanation.top() == []
            assert explanation.embedding.shape == (2, 32)


def test_export_is_silent_and_leaves_the_model_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(aims=("ranking", "embedding")).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(model, tmp_path / "graph.onnx")
    assert capfd.readouterr() == ("", "")
    assert model.decoder.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]
    # Its convolutions were not rounded, so 16 bits would lose some of their weights.
    graph = onnx.load(tmp_path / "graph.onnx").graph
    convolutions = [tensor for tensor in graph.initializer if len(tensor.dims) == 4]
    assert {tensor.data_type for tensor in convolutions} == {onnx.TensorProto.FLOAT}
    assert [value.name for value in graph.input] == ["frames"]  # no class without a target head
    outputs = [value.name for value in graph.output]
    assert outputs == ["mask_ranking", "mask_embedding", "scores", "embedding"]


def test_a_wrong_file_is_not_left_behind(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph of other weights is noticed before the file has its name."""
    import onnx_ir

    program = torch.onnx.ONNXProgram(onnx_ir.load(bundle.graph_path), None)
    monkeypatch.setattr(engines.export, "export_program", lambda *_: program)
    monkeypatch.setattr(engines.export, "mark_resize", lambda _: None)  # it has its names
    with pytest.raises(EngineError, match="differs from torch in mask_embedding"):
        export_onnx(tiny_model(seed=1), tmp_path / "graph.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_finite_is_told(bundle: Bundle) -> None:
    model = tiny_model()
    nn.init.constant_(model.decoder.head.bias, float("nan"))
    with pytest.raises(EngineError, match=r"differs from torch in mask_.* by nan .*finite\?"):
        check_onnx(bundle.graph_path, FrameGraph(model))


def test_a_model_that_can_not_be_exported_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise torch.onnx.errors.OnnxExporterError("a branch\non data")

    monkeypatch.setattr("torch.onnx.export", refuse)
    with pytest.raises(EngineError, match=r"^resnet18 can't be exported: a branch on data$"):
        export_onnx(tiny_model(), tmp_path / "graph.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engines.export, "export_onnx", full)
    with pytest.raises(ExportError, match=r"can't be written to .*nem-export-.*: No space.*TMPDIR"):
        save_bundle(tiny_model(), tmp_path / "b", name="b")
    assert list(tmp_path.iterdir()) == []


def test_missing_exporter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match=r"nem-stream\[train\]"):
        export_onnx(tiny_model(), tmp_path / "graph.onnx")


def test_a_graph_without_the_resize_is_refused() -> None:
    import onnx_ir

    frames = onnx_ir.Value(name="frames")
    cast = onnx_ir.node("Cast", [frames], attributes={"to": onnx_ir.DataType.FLOAT})
    graph = onnx_ir.Graph([frames], cast.outputs, nodes=[cast], opset_imports={"": 18})
    with pytest.raises(EngineError, match="resize"):
        mark_resize(onnx_ir.Model(graph, ir_version=10))
