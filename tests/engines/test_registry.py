"""Which engine is opened for what, and how refusals read."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import engines
from engines import (
    EngineUnavailable,
    OptionError,
    available_engines,
    engine_names,
    file_batch,
    open_engine,
)
from nem.bundle import Bundle
from nem.errors import BundleError
from tests.engines.conftest import SIZE, random_frames


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make these packages look as if they were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in packages else find(name, *rest),
    )


def test_auto_is_openvino_on_a_cpu(bundle: Bundle) -> None:
    for device in ("auto", "cpu"):
        with open_engine(bundle, device=device) as engine:
            assert (engine.name, engine.device) == ("openvino", "cpu")


def test_opens_by_folder(bundle: Bundle) -> None:
    for folder in (bundle.path, str(bundle.path)):
        with open_engine(folder, "fake") as engine:
            assert engine.names == bundle.manifest.classes
    with pytest.raises(BundleError, match="no-such-bundle"):
        open_engine("no-such-bundle")


def test_all_are_named_and_those_of_a_cpu_available() -> None:
    on_a_cpu = ["inductor", "openvino", "eager", "fake"]
    assert engine_names() == ["auto", "tensorrt", "tensorrt-rtx", "tensorrt-module", *on_a_cpu]
    infos = available_engines()
    assert [info.name for info in infos] == engine_names()[1:]
    for info in infos:
        assert info.available == (info.reason is None)
        assert info.available or info.name not in on_a_cpu


def test_a_gpu_engine_tells_what_is_missing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "tensorrt")
    with pytest.raises(EngineUnavailable) as caught:
        open_engine(bundle, "tensorrt")
    told = "engine tensorrt: tensorrt is not installed: pip install 'nem-stream[tensorrt]'"
    assert str(caught.value) == told


def test_an_engine_of_any_shape_takes_none(bundle: Bundle) -> None:
    with pytest.raises(OptionError, match="openvino: takes no frame size; leave it out"):
        open_engine(bundle, "openvino", frame_size=(480, 640))
    with pytest.raises(OptionError, match="fake: takes no batch; leave it out"):
        open_engine(bundle, "fake", batch=2)
    for name in ("openvino", "eager"):
        with pytest.raises(OptionError, match=f"{name}: batch 0: frames .*, from 1"):
            open_engine(bundle, name, batch=0)
    with pytest.raises(OptionError, match=r"eager: takes no calls; .* allowed with openvino"):
        open_engine(bundle, "eager", calls=2)
    with pytest.raises(OptionError, match="openvino: calls 0: at the same time, from 1"):
        open_engine(bundle, "openvino", calls=0)


def test_the_batch_of_a_file_is_one_the_engine_takes(bundle: Bundle) -> None:
    assert file_batch("openvino") > 1
    # The others are built ahead, for the batch that was asked for then, or are the reference.
    assert {file_batch(name) for name in engine_names() if name != "openvino"} == {1}
    assert file_batch("no such") == 1
    # `nem-stream engines build` counts on it: who compiles for heads and calls is such an engine.
    for name, entry in engines.registry._ENGINES.items():
        assert ("aims" in entry.takes or entry.calls > 1) <= (file_batch(name) > 1)
    for batch in (None, file_batch("openvino")):
        with open_engine(bundle, "openvino", batch=batch) as engine:
            assert engine.batch == file_batch("openvino")


def test_a_dynamic_batch_is_for_those_that_have_one(bundle: Bundle) -> None:
    for name in ("openvino", "inductor"):
        with pytest.raises(
            OptionError, match=f"{name}: takes no dynamic; leave it out; allowed with tensorrt"
        ):
            open_engine(bundle, name, dynamic=True)
    with pytest.raises(
        OptionError, match=r"inductor: takes no calibration; leave it out; allowed with .*openvino"
    ):
        open_engine(bundle, "inductor", calibration=Path())


@pytest.mark.parametrize("engine", ["openvino", "eager", "fake"])
def test_an_engine_opened_for_some_aims_explains_those_alike_and_no_other(
    bundle: Bundle, engine: str
) -> None:
    frames = random_frames(2, SIZE, SIZE)
    with (
        open_engine(bundle, engine, precision="f32") as whole,
        open_engine(bundle, engine, precision="f32", aims=["target", "class", "class"]) as some,
    ):
        assert some.aims == ("class", "target")
        for asked in (("class",), ("target", "dog"), ()):
            aim = asked or ("class",)
            found, expected = some.run(frames, *asked), whole.run(frames, *aim)
            np.testing.assert_allclose(found.mask, expected.mask, atol=1e-5)
            assert found.method == expected.method
        with pytest.raises(OptionError, match="explains class, target; take one of these"):
            some.run(frames, "ranking")


@pytest.mark.parametrize(
    ("aims", "told"), [(["clas"], "did you mean class?"), ([], "name at least one")]
)
def test_aims_that_can_not_be_are_told(bundle: Bundle, aims: list[Any], told: str) -> None:
    with pytest.raises(OptionError, match=re.escape(told)):
        open_engine(bundle, "openvino", aims=aims)


def test_precisions_have_two_names(bundle: Bundle) -> None:
    with open_engine(bundle, "openvino", precision="fp32") as engine:
        assert engine.precision == "f32"
    with pytest.raises(OptionError, match="precision 'f16', allowed"):
        open_engine(bundle, "openvino", precision="fp16")


def test_missing_extra_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "torch")
    reasons = {info.name: info.reason for info in available_engines()}
    assert reasons["eager"] == "torch is not installed: pip install 'nem-stream[train]'"
    assert reasons["openvino"] is None
    with pytest.raises(EngineUnavailable, match=r"eager: torch is .* 'nem-stream\[train\]'"):
        open_engine(bundle, "eager")


def test_auto_takes_no_other_when_its_engine_is_missing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "openvino")
    with pytest.raises(EngineUnavailable, match="openvino is not installed"):
        open_engine(bundle)
    with pytest.raises(ImportError):
        open_engine(bundle, "openvino")


@pytest.mark.parametrize("asked", [KeyboardInterrupt, SystemExit])
def test_an_end_asked_for_while_a_runtime_loads_is_no_failure_of_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, asked: type[BaseException]
) -> None:
    def interrupted(_: str) -> None:
        raise ImportError("initialization failed") from asked(143)  # as pybind11 does

    monkeypatch.setattr("importlib.import_module", interrupted)
    with pytest.raises(asked, match="143"):
        open_engine(bundle, "fake")


def test_a_runtime_that_does_not_load_is_told(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "engines.ov", None)
    with pytest.raises(EngineUnavailable, match="openvino: its runtime does not load") as caught:
        open_engine(bundle)
    # Not nem-stream: force would look for it on the index, which does not have it.
    assert f"pip install --force-reinstall openvino=={version('openvino')}" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "openvin"}, "openvino, eager, fake; did you mean openvino"),
        ({"engine": "tensorflow"}, "no engine called 'tensorflow', allowed: auto"),
        ({"device": "gpu"}, "device 'gpu', allowed: auto, cpu; for an NVIDIA GPU device cuda"),
        ({"engine": "openvino", "device": "cuda"}, "openvino: device 'cuda', allowed"),
        ({"engine": "eager", "device": "toaster"}, "eager: device 'toaster', allowed"),
        ({"engine": "eager", "device": "meta"}, "eager: device 'meta', allowed"),
        ({"precision": "fp8"}, "openvino: precision 'fp8', allowed: auto, f32, bf16"),
        ({"engine": "eager", "precision": "int8"}, "eager: precision 'int8', allowed"),
        ({"engine": "fake", "precision": "bf16"}, "fake: precision 'bf16', allowed"),
        ({"engine": None}, "no engine called None, allowed: auto, "),
        ({"device": None}, "openvino: device None, allowed: auto, cpu"),
        ({"engine": "eager", "device": None}, "eager: device None, allowed: auto, cpu"),
        ({"batch": "2"}, "openvino: batch '2': frames per call, from 1, a whole number"),
        ({"precision": "int8", "calibration": "nope"}, "calibration nope: no such file or folder"),
        ({"engine": "fake", "device": "cuda"}, "fake: device 'cuda', allowed"),
    ],
)
def test_unknown_options_name_the_allowed(
    bundle: Bundle, options: dict[str, str], message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        open_engine(bundle, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_asked_for_is_not_replaced_by_the_cpu(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(EngineUnavailable, match=r"cuda:0 asked for, .* 0 CUDA"):
        open_engine(bundle, "eager", device="cuda:0")

    def none() -> None:
        raise EngineUnavailable("the NVIDIA driver shows no GPU")

    monkeypatch.setattr("engines.choose.find_gpus", none)
    with pytest.raises(EngineUnavailable, match=r"device cuda:0: .* shows no GPU; use --device"):
        open_engine(bundle, device="cuda:0")


def test_bf16_asked_for_is_not_replaced_by_f32(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.ov.cpu_flags", lambda: frozenset({"avx2"}))
    with pytest.raises(EngineUnavailable, match="bf16 asked for, but this CPU"):
        open_engine(bundle, precision="bf16")
    with open_engine(bundle, precision="auto") as engine:
        assert engine.precision == "f32"


def test_everything_promised_is_there() -> None:
    for name in engines.__all__:
        assert getattr(engines, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        engines.nothing  # noqa: B018


FRESH = """
import sys
import engines
for name in set(engines.__all__) - {"export_onnx", "save_bundle"}:
    getattr(engines, name)
engines.available_engines()
heavy = {"torch", "timm", "openvino", "onnx", "onnxruntime"} & sys.modules.keys()
assert not heavy, heavy
"""

FRESH_RUN = """
import sys, threading
import numpy as np
from engines import open_engine
with open_engine(sys.argv[1]) as engine:
    assert engine.run(np.zeros((1, 9, 9, 3), np.uint8)).mask.shape[0] == 1
assert "openvino" in sys.modules
loaded = {"torch", "openvino_telemetry"} & sys.modules.keys()
assert not loaded, loaded
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
"""


@pytest.mark.parametrize("code", [FRESH, FRESH_RUN], ids=["import", "run"])
def test_live_path_in_a_fresh_process(bundle: Bundle, code: str) -> None:
    """Neither torch nor a runtime at import; no torch, report or thread after running."""
    subprocess.run(
        [sys.executable, "-c", code, str(bundle.path)],
        cwd=Path(__file__).parents[2],
        check=True,
        timeout=60,
    )


def test_what_stands_in_for_another_package_is_not_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch-TensorRT for RTX names itself `tensorrt` once it is imported."""
    proxy = ModuleType("tensorrt")
    proxy._package_name = "tensorrt_rtx"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", proxy)
    info = next(info for info in available_engines() if info.name == "tensorrt")
    assert "tensorrt is not installed" in str(info.reason)
