"""Quantised engines: what is asked of modelopt, what is refused, and what has to agree."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from torch import nn

import engines.trt_build
from engines import EngineError, EngineUnavailable, OptionError, Store
from engines.calibration import Pictures
from engines.gpus import Gpu
from engines.parity import BOUNDS
from engines.store_admin import list_stored
from engines.trt import TensorRtEngine
from engines.trt_build import BuildOptions, build_engine, make_graph
from engines.trt_quant import QUANTISED, exporting, load_modelopt
from nem.bundle import Bundle
from scripts.check_models_trt import HOME
from tests.engines import fake_modelopt, fake_torch_tensorrt
from tests.engines.conftest import SIZE, random_frames, tiny_model
from tests.engines.fake_modelopt import Fake
from tests.engines.fake_tensorrt import Fakes

HERE = Pictures(random_frames(40, SIZE, SIZE), random_frames(16, SIZE, SIZE, seed=1))


@pytest.fixture
def modelopt(monkeypatch: pytest.MonkeyPatch) -> Fake:
    return fake_modelopt.install(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, frame in enumerate(random_frames(24, 50, 70, seed=2)):
        cv2.imwrite(str(folder / f"{index:02}.png"), frame)
    return folder


@pytest.mark.parametrize("precision", QUANTISED)
def test_rounds_backbone_and_trunk_but_neither_first_layers_nor_heads(
    modelopt: Fake, precision: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model()
    graph = make_graph(model, BuildOptions((40, 60), precision, calibration=HERE))
    layers = {n: m for n, m in graph.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    rounded = {n for n, m in layers.items() if m.weight_quantizer.enabled}
    assert rounded == {n for n, m in layers.items() if m.input_quantizer.enabled}
    first = {"model.backbone.model.conv1", "model.backbone.model.fc"}
    heads = ("model.decoder.head", "model.decoder.target", "model.decoder.guide")
    assert rounded == {n for n in layers if n not in first and not n.startswith(heads)}
    assert {"model.backbone.model.layer1.0.conv1", "model.decoder.context"} <= rounded
    form = {"int8": (8, 0), "fp8": ((4, 3), None)}[precision]
    weights, inputs = (getattr(layers["model.decoder.context"], f"{part}_quantizer").cfg
                       for part in ("weight", "input"))  # fmt: skip
    assert (weights["num_bits"], weights["axis"]) == form
    assert (inputs["num_bits"], inputs["axis"]) == (form[0], None)
    assert modelopt.batches == [16, 16, 8], "all pictures, a few at a time"
    assert capfd.readouterr() == ("", "")


def test_computes_in_f16_around_ranges_in_f32_and_leaves_the_model(modelopt: Fake) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.decoder.context.weight[3] = 0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = BuildOptions((40, 60), "int8", overlay=True, calibration=HERE)
    graph = make_graph(model, options)
    assert (graph.dtype, graph.tints.dtype) == (torch.float16, torch.float16)
    kinds = {n: b.dtype for n, b in graph.named_buffers() if "_quantizer." in n}
    assert len(kinds) > 30
    assert set(kinds.values()) == {torch.float32}
    assert {p.dtype for p in graph.parameters()} == {torch.float16}
    ranges = graph.model.decoder.context.weight_quantizer._amax
    assert ranges.shape == (16, 1, 1, 1)
    assert float(ranges[3]) == pytest.approx(1e-6), "TensorRT refuses a step of zero"
    assert not [m for m in graph.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_goes_wrong_in_calibrating_is_told(modelopt: Fake) -> None:
    modelopt.fail = "no such\nthing"
    with pytest.raises(EngineError, match=r"precision fp8: calibration failed: no such thing$"):
        make_graph(tiny_model(), BuildOptions(precision="fp8", calibration=HERE))
    modelopt.fail = None
    broken = tiny_model()
    with torch.no_grad():
        broken.decoder.mix[0][1].weight[0] = torch.nan
    with pytest.raises(
        EngineError, match=r"decoder\.mix\.\S+ is not finite on .*; use precision f"
    ):
        make_graph(broken, BuildOptions(precision="fp8", calibration=HERE))


def test_builds_in_the_mode_for_exports(modelopt: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.trt_build, "_gpu", lambda: torch.device("cpu"))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H100")
    converter, said, modes = fake_torch_tensorrt.install(monkeypatch), [], []
    inside = sys.modules["modelopt.torch.quantization.tensor_quant"]
    convert = fake_torch_tensorrt.Fake.convert

    def look(*args: object, **options: object) -> bytes:
        modes.append((modelopt.exporting, inside.fake_quant_impl, inside.get_cuda_ext_fp8()))
        return convert(converter, *args, **options)

    module = sys.modules["torch_tensorrt.dynamo"]
    module.convert_exported_program_to_serialized_trt_engine = look
    options = BuildOptions(precision="int8", calibration=HERE)
    assert build_engine(tiny_model(), options, said.append) == b"engine 1"
    assert modes == [(1, "in torch", None)]
    assert (modelopt.exporting, inside.fake_quant_impl) == (0, "compiled")
    assert "calibrating resnet18 on 40 pictures" in said[0]
    assert said[1].endswith("layers compute in int8, the rest in f16")
    with exporting("f16"):
        assert modelopt.exporting == 0


@pytest.mark.parametrize(
    ("options", "say"),
    [
        ({"precision": "int8"}, r"needs pictures to calibrate with, none .*\(--calibrate PATH"),
        ({"precision": "fp8", "flavour": "tensorrt-rtx"}, "precision fp8 needs pictures"),
        ({"precision": "int8", "flavour": "tensorrt-rtx"}, "refuses int8 .*tensorrt, or fp8"),
        ({"calibration": Path("a")}, "go with precision int8 or fp8, asked for is f16; leave"),
    ],
)
def test_refuses_what_does_not_go_together(
    options: dict[str, object], say: str, bundle: Bundle
) -> None:
    with pytest.raises(OptionError, match=say):
        BuildOptions(**options)
    with pytest.raises(OptionError, match=say):
        TensorRtEngine(bundle, **options)


def test_modelopt_is_missing_old_or_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_modelopt.install(monkeypatch, "0.43.1")
    with pytest.raises(EngineUnavailable, match=r"0\.43\.1 is installed, 0\.45 or newer .*upgrade"):
        load_modelopt()
    for name in [name for name in sys.modules if name.split(".")[0] == "modelopt"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "modelopt.py").write_text("raise OSError('libcuda\\nis odd')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineUnavailable, match=r"does not load \(libcuda is odd\); reinst"):
        load_modelopt()
    monkeypatch.setitem(sys.modules, "modelopt", None)
    with pytest.raises(EngineUnavailable, match=r"modelopt is not .*pip install 'nem-stream\[qua"):
        make_graph(tiny_model(), BuildOptions(precision="int8", calibration=HERE))


def test_fp8_needs_a_gpu_that_has_it(bundle: Bundle, fakes: Fakes, folder: Path) -> None:
    fakes.gpus = [Gpu(0, "NVIDIA Old", "8.6", "550.54")]
    with pytest.raises(EngineUnavailable, match=r"NVIDIA Old .*8\.6 and fp8 needs 8\.9; use int8"):
        TensorRtEngine(bundle, precision="fp8", calibration=folder)
    assert fakes.builds == []


@pytest.fixture
def quantising(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """Fakes whose quantised engines round as f16."""

    def build(model: object, options: BuildOptions, say: object) -> bytes:
        engine = fakes.build(model, replace(options, precision="f16", calibration=None), say)
        fakes.builds[-1] = options
        return engine

    monkeypatch.setattr("engines.trt_build.build_engine", build)
    return fakes


def open_and_run(bundle: Bundle, store: Store, folder: Path, **options: object) -> list[str]:
    said: list[str] = []
    options = {"precision": "int8", "batch": 3, **options}
    with TensorRtEngine(
        bundle, store=store, calibration=folder, say=said.append, **options
    ) as engine:
        assert engine.precision == options["precision"]
        engine.run(random_frames(1, SIZE, SIZE))
    return said


def test_an_engine_is_kept_for_its_pictures(
    bundle: Bundle, quantising: Fakes, folder: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    open_and_run(bundle, store, folder, frame_size=(48, 80))
    (built,) = quantising.builds
    assert (built.precision, built.batch, built.frame_size) == ("int8", 3, (48, 80))
    assert len(built.calibration.frames) == 18
    assert len(built.calibration.held_out) == 6
    (stored,) = list_stored(store)
    assert stored.facts["precision"] == "int8"
    assert len(stored.facts["calibration"]) == 64
    assert "modelopt" in stored.facts
    open_and_run(bundle, store, folder, frame_size=(48, 80))
    assert len(quantising.builds) == 1
    (folder / "00.png").unlink()
    said = open_and_run(bundle, store, folder, frame_size=(48, 80))
    assert len(quantising.builds) == 2
    assert "changed since the stored one: calibration" in said[0]
    open_and_run(bundle, store, folder, precision="fp8")
    assert [options.precision for options in quantising.builds] == ["int8", "int8", "fp8"]
    assert quantising.cuda.leaks() == 0


@pytest.mark.parametrize(
    ("golden", "say"),
    [
        (True, r"mask_\w+: mean difference 0\.\d+, allowed 0\.04"),
        (False, r"on pictures kept from the calibration: DIFFERENT at int8 over 6 frames, .*mean"),
    ],
)
def test_wrong_masks_tell_what_was_measured_and_are_not_kept(
    bundle: Bundle, quantising: Fakes, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, golden: bool, say: str,
) -> None:  # fmt: skip
    quantising.wrong = 0.08
    if not golden:
        monkeypatch.setattr("engines.trt_open.check", lambda *_: None)
    store = Store(tmp_path / "store")
    with pytest.raises(EngineError, match=say) as caught:
        open_and_run(bundle, store, folder)
    assert "; calibrate with more pictures, such as will be looked at" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list_stored(store) == []
    assert quantising.cuda.leaks() == 0


def test_bounds_of_8_bits_are_the_widest() -> None:
    for precision in QUANTISED:
        for name in ("mask_max", "mask_mean", "rank_mean", "score_max"):
            assert getattr(BOUNDS[precision], name) > getattr(BOUNDS["bf16"], name)


@pytest.mark.skipif(
    importlib.util.find_spec("modelopt") is None, reason="nvidia-modelopt is not installed"
)
@pytest.mark.parametrize("precision", QUANTISED)
def test_modelopt_itself_keeps_the_default_model_within_bounds(precision: str) -> None:
    from tests.engines.quant_cases import simulate

    parity = simulate(precision)
    assert parity.ok, parity
    assert parity.top1 >= 0.75
    assert parity.mask_mean > 5e-4, "nothing was rounded"
    assert not simulate(precision, dark=True).ok, "ranges of black pictures fit no others"


@pytest.mark.skipif(
    not list(Path(os.environ.get(HOME, "none"), "venv").glob("lib/*/site-packages/modelopt")),
    reason=f"{HOME} names no environment of trt-dryrun with modelopt",
)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("precision", QUANTISED)
def test_becomes_one_engine(precision: str) -> None:
    from tests.engines.quant_cases import dry_run

    report = dry_run(precision)
    assert report["ok"]
    assert report["trt_blocks"] == 1
    assert report["fallbacks"] == []
    assert report["blocks"][0]["op_counts"]["tensorrt.quantize_op.default"] == 58
    assert [built["ok"] for built in report.get("build", [])] == [True] * (precision == "fp8")
