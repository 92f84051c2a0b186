"""The default model in the real converter and compiler of TensorRT-RTX, which need no GPU to build.

Needs Torch-TensorRT-RTX, or the environment of the tool `trt-dryrun`, see `scripts.check_models`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from nem.bundle import open_bundle
from nem.explanation import Aim
from scripts.check_models_trt import HOME, check_tensorrt
from tests.engines.dryrun_build import CASES, python_with_rtx

pytestmark = pytest.mark.timeout(600)


def maps() -> tuple[Aim, ...]:
    return open_bundle("nem-tiny").manifest.heads


@pytest.mark.skipif(not os.environ.get(HOME), reason=f"{HOME} names no environment of trt-dryrun")
@pytest.mark.parametrize(("case", "more"), [("mask_case", 0), ("overlay_case", 1)])
def test_the_default_model_becomes_one_engine(case: str, more: int) -> None:
    found = check_tensorrt("nem-tiny", "f16", case, len(maps()) + 2 + more)
    assert found["missed"] == []
    assert found["blocks"] == 1
    assert found["engine_mb"] > 1


@pytest.mark.skipif(python_with_rtx() is None, reason="torch-tensorrt-rtx is not installed")
def test_engines_have_the_ports_that_were_asked_for() -> None:
    bundle = open_bundle("nem-tiny")
    root, size = Path(__file__).parents[2], bundle.manifest.input_size
    done = subprocess.run(
        [str(python_with_rtx()), "-m", "tests.engines.dryrun_build", bundle.graph_path],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["onnx"]["torch"] is False
    assert found["onnx"]["inputs"][0] == ["frames", "UINT8", [2, 48, 100, 3]]
    for built, (frame, _, batch, overlay) in zip(found["torch"], CASES, strict=True):
        shape = [batch, *(frame or (size, size)), 3]
        inputs = [["frames", "UINT8", shape], ["target", "INT32", [batch]]]
        assert built["inputs"] == inputs[: 1 + ("target" in maps())]
        outputs = [["overlay", "UINT8", shape]] if overlay else []
        outputs += [[f"mask_{aim}", "FLOAT", [batch, size, size]] for aim in maps()]
        assert built["outputs"][: len(outputs)] == outputs
        names = [[name, kind] for name, kind, _ in built["outputs"][len(outputs) :]]
        assert names == [["scores", "FLOAT"], ["embedding", "FLOAT"]]
        assert built["bytes"] > 1e6
