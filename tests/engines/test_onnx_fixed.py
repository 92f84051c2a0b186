"""Graphs for one frame size: what is refused, and that nothing is taken unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engines import EngineError, EngineUnavailable, OptionError
from engines.fixed_graph import FixedGraph
from engines.onnx_fixed import export_fixed
from tests.engines.conftest import tiny_model


def test_a_graph_that_computes_something_else_is_noticed_and_the_model_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FixedGraph(tiny_model(seed=1, aims=("embedding",)))
    monkeypatch.setattr("engines.onnx_fixed.FixedGraph", lambda *_: other)
    model = tiny_model(aims=("embedding",)).half().train()
    with pytest.raises(EngineError, match="exported graph differs from torch: "):
        export_fixed(model, tmp_path / "graph.onnx")
    assert model.decoder.training
    assert next(model.parameters()).dtype == torch.float16


def test_a_precision_that_runtimes_do_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="onnx: precision 'bf16', allowed: f32, f16"):
        export_fixed(tiny_model(), tmp_path / "graph.onnx", precision="bf16")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_exporter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "onnxscript" or None)
    with pytest.raises(EngineUnavailable, match=r"needs onnxscript.*nem-stream\[train\]"):
        export_fixed(tiny_model(), tmp_path / "graph.onnx")
