"""What the check of models compares, and that it reports what is wrong."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines import EngineError
from engines.golden import golden_frames
from engines.graph import FrameGraph
from nem.bundle import open_bundle
from nem.bundle_io import load_model
from nem.model import NEM
from scripts import check_models, check_models_trt
from scripts.check_models import ASKED, check_onnx, mask_differences, missed_by, onnx_runners, table
from scripts.check_models_trt import check_tensorrt, judge_report, spread_mask
from tests.nem.toys import tiny_backbone

GRAPH = open_bundle("nem-tiny").graph_path
GOOD = {
    "trt_blocks": 1,
    "fallbacks": [],
    "findings": [{"severity": "warning", "message": "worth a look"}],
    "build": [{"ok": True, "layers": 9, "engine_mb": 1.5, "seconds": 2.0, "outputs": ["a", "b"]}],
    "ok": True,
}


def toy() -> NEM:
    torch.manual_seed(0)
    return spread_mask(NEM(tiny_backbone(), "lite", width=16).eval())


@pytest.fixture
def default() -> NEM:
    """A model with all heads whose graph is there, as exporting one takes long."""
    return load_model(open_bundle("nem-tiny"))


@pytest.fixture
def _no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.export.export_onnx", lambda model, path: GRAPH)


@pytest.mark.usefixtures("_no_export")
def test_a_graph_that_is_right_misses_nothing(default: NEM) -> None:
    found = check_onnx(default)
    assert found["missed"] == []
    assert found["differences"].keys() == {"onnxruntime", "openvino"}
    for row in found["differences"].values():
        assert row.keys() == {"model size", "other size"}
        assert all(0 < off < ASKED / 10 for off in row.values())


def test_all_heads_and_the_class_count(default: NEM) -> None:
    run = onnx_runners(GRAPH)["onnxruntime"]

    def other_class(given: Any) -> Any:
        return run({**given, "target": np.zeros(2, np.int64)})

    def last_head_only(given: Any) -> Any:
        maps = run(given)
        return [maps[0], maps[1], maps[2], maps[3] + np.float32(0.01)]

    for wrong in (other_class, last_head_only):
        assert mask_differences(default, {"wrong": wrong})["wrong"]["model size"] > ASKED


@pytest.mark.usefixtures("_no_export")
def test_a_graph_of_other_weights_is_reported(default: NEM) -> None:
    with torch.no_grad():
        default.decoder.head.bias.add_(0.05)
    found = check_onnx(default)
    assert len(found["missed"]) == 4
    assert found["missed"][0].startswith("onnxruntime at model size: mask off by 0.0")
    row = {"model": "tiny", "onnx": found}
    assert missed_by(row) == found["missed"]
    lines = table([row])
    assert lines[2].startswith("tiny")
    assert lines[2].endswith("MISSED")
    assert lines[3:] == [f"    {line}" for line in found["missed"]]


def test_nan_is_a_difference() -> None:
    def broken(given: Any) -> list[np.ndarray]:
        return [np.full((2, 64, 64), np.nan, np.float32)]

    found = mask_differences(toy(), {"broken": broken})["broken"]
    assert not any(off <= ASKED for off in found.values())


def test_a_flat_mask_says_nothing() -> None:
    model = toy()
    with torch.no_grad():
        model.decoder.head.weight.zero_()
    with pytest.raises(EngineError, match="a check of nothing"):
        mask_differences(model, {})


def test_an_export_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: NEM, path: Path) -> Path:
        raise EngineError("can't be\nexported")

    monkeypatch.setattr("engines.export.export_onnx", refuse)
    row = {"model": "toy", "onnx": check_onnx(toy())}
    assert missed_by(row) == ["can't be exported"]
    assert table([row])[2].endswith("MISSED")


def test_a_missing_onnxruntime_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.export.export_onnx", lambda _, path: path)
    monkeypatch.setattr("engines.onnx_export.open_checked", lambda _: None)
    row = {"model": "toy", "onnx": check_onnx(toy())}
    assert missed_by(row) == ["onnxruntime is not installed: pip install onnxruntime"]


def test_masks_of_random_weights_use_their_range() -> None:
    graph = FrameGraph(toy()).eval()
    with torch.no_grad():
        mask = graph(torch.from_numpy(golden_frames((64, 64))))[0]
    assert mask.max() - mask.min() > 0.5


@pytest.mark.parametrize(
    ("change", "say"),
    [
        ({"trt_blocks": 2}, "mask_case: 2 TensorRT blocks, asked for is 1"),
        ({"trt_blocks": 0, "build": []}, "0 TensorRT blocks"),
        ({"fallbacks": [{"op": "aten.sort", "why": "no converter"}]}, "aten.sort is left to torch"),
        ({"findings": [{"severity": "error", "message": "float64"}]}, "mask_case: float64"),
        ({"build": [{"ok": False, "error": "refused"}]}, "not built: refused"),
        ({"build": []}, "nothing was built"),
        ({"build": [{"ok": True, "outputs": ["a"]}]}, "the engine has 1 outputs, the graph 2"),
        ({"ok": False}, "says it is not ok"),
        ({"ok": None}, "says it is not ok"),
    ],
)
def test_what_tensorrt_does_not_take_is_reported(change: dict[str, Any], say: str) -> None:
    assert judge_report(GOOD, "mask_case", 2)["missed"] == []
    missed = judge_report({**GOOD, **change}, "mask_case", 2)["missed"]
    assert any(say in line for line in missed), missed


def tool(folder: Path, body: str) -> None:
    path = folder / "bin" / "trt-dryrun"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\nimport json, os, sys\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_the_tool_is_told_the_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = "NEM_CHECK_MODEL", "NEM_CHECK_PRECISION", "PYTHONPATH"
    told = tmp_path / "told.json"
    tool(
        tmp_path,
        f"json.dump([sys.argv[1:], [os.environ[k] for k in {keys}]], open({str(told)!r}, 'w'))\n"
        f"print(json.dumps({ {**GOOD, 'ok': 1}!r}))",
    )
    monkeypatch.setenv(check_models_trt.HOME, str(tmp_path))
    found = check_tensorrt("resnet18", "bf16", "overlay_case", 2)
    assert found == {"blocks": 1, "layers": 9, "engine_mb": 1.5, "seconds": 2.0, "missed": []}
    arguments, (model, precision, path) = json.loads(told.read_text())
    assert arguments[0] == "scripts.check_models_trt:overlay_case"
    assert {"--build", "--json", "rtx", "engine"} <= set(arguments)
    assert (model, precision) == ("resnet18", "bf16")
    assert path.split(os.pathsep)[0] == str(Path(__file__).parents[2])


def test_a_tool_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(check_models_trt.HOME, str(tmp_path))
    assert "can't be run" in check_tensorrt("resnet18", "f16", "mask_case", 2)["missed"][0]
    tool(tmp_path, "sys.exit('no environment')")
    (line,) = check_tensorrt("resnet18", "f16", "mask_case", 2)["missed"]
    assert line == "mask_case: trt-dryrun gave up with status 1: no environment"


@pytest.mark.parametrize("case", ["mask_case", "overlay_case"])
def test_cases_are_graphs_with_inputs(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(check_models_trt.MODEL, "toy")
    monkeypatch.setenv(check_models_trt.PRECISION, "f16")
    monkeypatch.setattr(check_models_trt, "build_model", lambda name: toy())
    monkeypatch.setattr("engines.trt_convert.register_uint8_output", lambda: None)
    graph, (frames,) = getattr(check_models_trt, case)()
    assert frames.shape == (1, 1080, 1920, 3)
    with torch.no_grad():
        outputs = graph(frames)
    assert len(outputs) == (3 if case == "mask_case" else 4)
    assert (outputs[0].dtype is torch.uint8) is (case == "overlay_case")


def test_status_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(check_models_trt.HOME, raising=False)
    rows = {
        "good": {"missed": [], "differences": {"onnxruntime": {}, "openvino": {}}},
        "bad": {"missed": ["mask off"]},
    }
    for row in rows["good"]["differences"].values():
        row |= {"model size": 1e-6, "other size": 2e-6}
    monkeypatch.setattr(check_models, "build_model", lambda name: name)
    monkeypatch.setattr(check_models, "check_onnx", rows.__getitem__)
    file = tmp_path / "found.json"
    for names, status in ((["good"], 0), (["good", "bad"], 1)):
        monkeypatch.setattr(sys, "argv", ["check", "--json", str(file), "--models", *names])
        assert check_models.main() == status
    out = capsys.readouterr().out
    assert "TensorRT is not checked: TRT_DRYRUN_HOME names no environment" in out
    assert "not checked" in out
    assert "1 of 2 models as asked for" in out
    assert [row["model"] for row in json.loads(file.read_text())] == ["good", "bad"]
