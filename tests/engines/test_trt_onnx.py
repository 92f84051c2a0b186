"""Engines of ONNX files: what is asked of TensorRT's builder."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from onnx import TensorProto, helper

import engines.trt_onnx
from engines import EngineError, EngineUnavailable, OptionError
from engines.gpus import Gpu
from engines.trt_build import BuildOptions
from engines.trt_onnx import build_from_onnx
from nem.bundle import open_bundle
from tests.engines.fake_trt_builder import Fake


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    made = Fake()
    monkeypatch.setitem(sys.modules, "tensorrt", made.module)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", made.module)
    monkeypatch.setattr(engines.trt_onnx, "find_gpus", lambda: (Gpu(0, "Orin", "8.7", "540"),))
    monkeypatch.setenv("NEM_CACHE", str(tmp_path))
    return made


def file(
    frames: tuple[int | str, ...] = (2, 40, 60, 3),
    kind: int = TensorProto.FLOAT16,
    outputs: tuple[str, ...] = ("mask_embedding",),
    name: str = "frames",
) -> bytes:
    """A small file of the project's form."""
    width = helper.tensor_dtype_to_np_dtype(kind).itemsize
    weights = helper.make_tensor("w", kind, (1, 1, 1, 1), bytes(width), raw=True)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], [outputs[0]])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, frames)],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, (1,)) for o in outputs],
        [weights],
    )
    return helper.make_model(graph).SerializeToString()


def test_sizes_the_file_leaves_free_are_fixed(fake: Fake) -> None:
    """The bundle's own graph needs no export: of any size, float32, stored as float16."""
    said: list[str] = []
    path = open_bundle("nem-tiny").graph_path
    options = BuildOptions((40, 60), "f32", batch=2)
    assert build_from_onnx(path, options, said.append) == b"engine"
    (network,) = fake.networks
    assert network.flags == 1 << 1
    assert {port.name: port.shape for port in network.inputs} == {
        "frames": (2, 40, 60, 3),
        "target": (2,),
    }
    assert said[0] == f"reading {path}"
    assert "for frames of 60x40, batch 2, f32 with tensorrt: may take" in said[1]
    (config,) = fake.configs
    assert (config.cleared, config.set, config.pools) == (["TF32"], [], {})


def test_options_arrive(fake: Fake) -> None:
    options = BuildOptions(batch=2, workspace_mb=64, version_compatible=True)
    build_from_onnx(file(), options)
    (config,) = fake.configs
    assert config.pools == {"workspace": 64 << 20}
    assert config.set == ["version", "no lean"]
    assert config.cleared == []
    build_from_onnx(file(kind=TensorProto.BFLOAT16), BuildOptions((40, 60), "bf16", 2))
    build_from_onnx(file(outputs=("overlay", "scores")), BuildOptions(batch=2, overlay=True))


def test_a_free_number_of_frames_is_a_range(fake: Fake) -> None:
    options = BuildOptions((40, 60), batch=8, dynamic=True)
    build_from_onnx(file(("n", "h", "w", 3)), options)
    most = (8, 40, 60, 3)
    assert fake.configs[0].profiles == [{"frames": ((1, 40, 60, 3), most, most)}]


def test_a_machine_that_tells_no_gpu_builds(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some Jetsons."""

    def unknown() -> None:
        raise EngineUnavailable("no driver to ask")

    monkeypatch.setattr(engines.trt_onnx, "find_gpus", unknown)
    assert build_from_onnx(file(), BuildOptions(batch=2)) == b"engine"
    assert (tmp_path / "engines" / "timings-10.3.0.26-gpu.bin").exists()


def test_timings_are_kept_for_the_version_and_gpu(fake: Fake, tmp_path: Path) -> None:
    kept = tmp_path / "engines" / "timings-10.3.0.26-orin.bin"
    for before, after in ((None, b"new "), (b"new ", b"new new "), (b"another GPU's", b"new ")):
        if before is not None:
            kept.write_bytes(before)
        build_from_onnx(file(), BuildOptions(batch=2))
        assert kept.read_bytes() == after
    fake.refuse = "build"
    with pytest.raises(EngineError):
        build_from_onnx(file(), BuildOptions(batch=2))
    assert kept.read_bytes() == b"new "
    kept.unlink()
    fake.refuse = None
    build_from_onnx(file(), BuildOptions(batch=2, flavour="tensorrt-rtx"))
    assert list(kept.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "options", "say"),
    [
        (file(), {"batch": 1}, r"takes frames of shape \(2, 40, 60, 3\), asked for is \(1, 40"),
        (file(), {"batch": 2, "frame_size": (40, 61)}, r"asked for is \(2, 40, 61, 3\)"),
        (file(("n", "h", "w", 3)), {}, "frames of any size; say which"),
        (file(), {"batch": 2, "precision": "f32"}, "computes in f16, asked for is f32"),
        (file(kind=TensorProto.FLOAT), {"batch": 2}, "computes in f32, asked for is f16"),
        (file(), {"precision": "int8", "calibration": Path()}, "int8, use f16 or f32"),
        (file(), {"batch": 2, "overlay": True}, "overlay asked for, but the file draws none"),
        (file(outputs=("overlay",)), {"batch": 2}, "overlay not asked for, but the file draws one"),
    ],
)
def test_refuses_files_for_something_else(
    fake: Fake, content: bytes, options: dict[str, Any], say: str
) -> None:
    with pytest.raises(OptionError, match=say) as caught:
        build_from_onnx(content, BuildOptions(**options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "say"),
    [
        (b"no graph", r"graph: TensorRT 10\.3\.0\.26 can't read it: Failed to parse the model: "),
        (file(name="x"), r"input x of shape \(2, 40, 60, 3\), expected frames"),
        (file((2, 3)), r"input frames of shape \(2, 3\), expected frames"),
        (Path("/no/such.onnx"), "/no/such.onnx: can't be read: No such file"),
    ],
)
def test_files_that_can_not_be_read(fake: Fake, content: bytes | Path, say: str) -> None:
    with pytest.raises(EngineError, match=say) as caught:
        build_from_onnx(content, BuildOptions(batch=2))
    assert "\n" not in str(caught.value)


def test_refusals_tell_tensorrts_reason(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.refuse = "build"
    with pytest.raises(EngineError, match="Could not find any implementation; use another"):
        build_from_onnx(file(), BuildOptions(batch=2))
    fake.refuse = "builder"
    with pytest.raises(EngineUnavailable, match=r"CUDA initialization failure.* needs the GPU"):
        build_from_onnx(file(), BuildOptions(batch=2))
    monkeypatch.setattr(fake.module, "NetworkDefinitionCreationFlag", SimpleNamespace())
    fake.module.__version__ = "8.5.2"
    with pytest.raises(EngineUnavailable, match=r"8\.5\.2 found, 10 or newer .* JetPack 6"):
        build_from_onnx(file(), BuildOptions(batch=2))
