"""Loading Torch-TensorRT, whatever of it or beside it is broken."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

from engines import EngineUnavailable
from engines.trt_convert import load_converter


def test_a_torch_tensorrt_that_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torch_tensorrt.py").write_text(
        "import logging\nlogging.captureWarnings(True)\nprint('import error')\n"
        "raise Exception('Could not find libnvinfer.so.11\\n  Search paths: []')\n"
    )
    monkeypatch.delitem(sys.modules, "torch_tensorrt", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    showed = warnings.showwarning
    with pytest.raises(EngineUnavailable, match=r"libnvinfer.so.11 .*driver, or reinstall") as e:
        load_converter("tensorrt")
    assert "\n" not in str(e.value)
    assert capfd.readouterr() == ("", "")
    assert warnings.showwarning is showed, "warnings of the program go to the log from now on"


def test_plugins_that_tensorrt_rtx_lacks_are_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch_tensorrt", "torch_tensorrt.dynamo", "tensorrt", "tensorrt.plugin"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in {
        "tensorrt/__init__.py": "",
        "tensorrt/plugin/__init__.py": "raise ModuleNotFoundError('tensorrt_rtx_bindings.plugin')",
        "torch_tensorrt/dynamo.py": "",
        "torch_tensorrt/__init__.py": (
            "import importlib.util, types\n__version__ = '2.11.0'\n"
            "ENABLED_FEATURES = types.SimpleNamespace(tensorrt_rtx=True)\n"
            "assert importlib.util.find_spec('tensorrt.plugin') is None\n"
        ),
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert load_converter("tensorrt-rtx").__version__ == "2.11.0"
    assert "tensorrt.plugin" not in sys.modules, "for whoever looks for it next"
