"""A bundle as a file for other programs: the same answers, whole files, and who can't have one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import engines.onnx_fixed
from engines import EngineError, ExportError, OptionError, export_file
from engines.export_files import FACTS, PRECISIONS
from engines.golden import check
from engines.graph import FrameGraph
from engines.ov_runtime import openvino as ov
from engines.parity import BOUNDS
from nem.bundle import Bundle
from nem.bundle_io import load_model
from nem.errors import BundleError
from nem.explanation import AIMS
from nem.manifest import GRAPH, WEIGHTS
from tests.engines.conftest import NAMES, SIZE, random_frames

OUTPUTS = [*(f"mask_{aim}" for aim in AIMS), "scores", "embedding"]
WIDE = (40, 90)
HALF = "f16"
FIXED = {"f32": (WIDE, 1), HALF: ((SIZE, SIZE), 2)}
"""Frame size and batch of the fixed graphs, by precision."""


def answers(bundle: Bundle, frames: np.ndarray, target: int = -1) -> dict[str, np.ndarray]:
    """The reference's, by output."""
    graph = FrameGraph(load_model(bundle)).eval()
    with torch.no_grad():
        found = graph(torch.from_numpy(frames), torch.full((len(frames),), target))
    return {name: value.numpy() for name, value in zip(OUTPUTS, found, strict=True)}


@pytest.fixture(scope="module")
def fixed(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Graphs of fixed sizes, by precision."""
    folder = tmp_path_factory.mktemp("fixed")
    return {
        precision: export_file(
            bundle,
            folder / f"{precision}.onnx",
            "onnx",
            precision=precision,
            frame_size=None if size == (SIZE, SIZE) else size,
            batch=batch,
        )[0]
        for precision, (size, batch) in FIXED.items()
    }


def session_of(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def shapes(ports: object) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Type and shape of values, by name."""
    kinds = {port.name: port.type.tensor_type for port in ports}
    return {n: (k.elem_type, tuple(d.dim_value for d in k.shape.dim)) for n, k in kinds.items()}


@pytest.mark.parametrize("precision", FIXED)
def test_a_fixed_graph_answers_as_torch_does(
    bundle: Bundle, fixed: dict[str, Path], precision: str
) -> None:
    size, batch = FIXED[precision]
    session = session_of(fixed[precision])
    frames = random_frames(batch, *size, seed=3)
    maps = []
    for target in (-1, 1, 3):
        given = {"frames": frames, "target": np.full(batch, target, np.int32)}
        found = dict(zip(OUTPUTS, session.run(OUTPUTS, given), strict=True))
        assert check(found, answers(bundle, frames, target), BOUNDS[precision]) is None
        maps.append(found["mask_target"])
    assert np.abs(maps[1] - maps[2]).max() > 1e-2


@pytest.mark.parametrize("precision", FIXED)
def test_a_fixed_graph_has_numbers_for_sizes_and_says_what_it_is(
    bundle: Bundle, fixed: dict[str, Path], precision: str
) -> None:
    (height, width), batch = FIXED[precision]
    model = onnx.load(fixed[precision])
    kinds = onnx.TensorProto
    assert shapes(model.graph.input) == {
        "frames": (kinds.UINT8, (batch, height, width, 3)),
        "target": (kinds.INT32, (batch,)),
    }
    found = shapes(model.graph.output)
    assert list(found) == OUTPUTS
    assert {kind for kind, _ in found.values()} == {kinds.FLOAT}
    assert found["mask_class"][1] == (batch, SIZE, SIZE)
    facts = json.loads({p.key: p.value for p in model.metadata_props}[FACTS])
    assert facts["classes"] == list(NAMES)
    assert facts["aims"] == list(AIMS)
    assert (facts["precision"], facts["batch"]) == (precision, batch)
    assert facts["frame_size"] == [height, width]
    assert facts["graph_sha256"] == bundle.manifest.files[GRAPH]
    assert facts["weights_sha256"] == bundle.manifest.files[WEIGHTS]
    assert b"stack_trace" not in fixed[precision].read_bytes()


def test_an_f16_graph_computes_in_f16(fixed: dict[str, Path]) -> None:
    """Strongly typed: a convolution computes in the type of what it reads."""
    for precision, wanted in (("f32", onnx.TensorProto.FLOAT), (HALF, onnx.TensorProto.FLOAT16)):
        graph = onnx.shape_inference.infer_shapes(onnx.load(fixed[precision])).graph
        types = {v.name: v.type.tensor_type.elem_type for v in graph.value_info}
        types |= {t.name: t.data_type for t in graph.initializer}
        convolutions = [node for node in graph.node if node.op_type == "Conv"]
        assert len(convolutions) > 10
        assert {types[name] for node in convolutions for name in node.input if name} == {wanted}


def test_the_resize_is_a_constant(fixed: dict[str, Path]) -> None:
    graph = onnx.load(fixed["f32"]).graph
    kept = {tuple(tensor.dims) for tensor in graph.initializer}
    assert {(SIZE, WIDE[0]), (WIDE[1], SIZE)} <= kept
    assert "Range" not in {node.op_type for node in graph.node}


def test_the_free_graph_is_the_bundle_s_own(bundle: Bundle, tmp_path: Path) -> None:
    said: list[str] = []
    files = export_file(bundle, tmp_path / "nem.onnx", "onnx", say=said.append)
    assert files == [tmp_path / "nem.onnx"] == list(tmp_path.iterdir())
    assert files[0].read_bytes() == bundle.graph_path.read_bytes()
    assert said == ["comparing with torch"]


@pytest.mark.parametrize("size", [None, (SIZE, SIZE), WIDE])
@pytest.mark.parametrize("precision", PRECISIONS["openvino"])
def test_an_ir_answers_as_torch_does(
    bundle: Bundle, tmp_path: Path, precision: str, size: tuple[int, int] | None
) -> None:
    batch = 1 if size is None else 2
    path = tmp_path / "nem.xml"
    files = export_file(bundle, path, "openvino", precision=precision, frame_size=size, batch=batch)
    assert files == [path, tmp_path / "nem.bin"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    model = ov.Core().read_model(path)
    facts = json.loads(model.get_rt_info(FACTS).astype(str))
    assert facts["classes"] == list(NAMES)
    assert facts["frame_size"] == (size and list(size))
    run = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    frames = random_frames(batch, *(size or WIDE), seed=5)
    result = run({"frames": frames, "target": np.full(batch, 2)})
    found = {name: result[name] for name in OUTPUTS}
    assert check(found, answers(bundle, frames, 2), BOUNDS[precision]) is None
    assert all(port.partial_shape.is_static == (size is not None) for port in model.inputs)


def test_an_ir_in_f16_is_smaller_and_one_that_can_not_be_written_is_told(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    for precision in ("f16", "f32"):
        _, weights = export_file(
            bundle, tmp_path / f"{precision}.xml", "openvino", precision=precision
        )
        sizes.append(weights.stat().st_size)
    assert sizes[0] < sizes[1]
    before = sorted(tmp_path.iterdir())

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("Check failed at src/serialize.cpp:9:\nCan't write file")

    monkeypatch.setattr(ov, "save_model", full)
    with pytest.raises(EngineError, match=r"OpenVINO can't write it: .*Can't write file$"):
        export_file(bundle, tmp_path / "other.xml", "openvino")
    assert sorted(tmp_path.iterdir()) == before


def test_works_without_torch(bundle: Bundle, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['timm'] = None\n"
        "from pathlib import Path\n"
        "from engines import EngineUnavailable, export_file\n"
        "from nem.bundle import open_bundle\n"
        f"bundle, out = open_bundle(Path({str(bundle.path)!r})), Path({str(tmp_path)!r})\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name: None if name in ('torch', 'timm') else find(name)\n"
        "export_file(bundle, out / 'a.onnx', 'onnx')\n"
        "export_file(bundle, out / 'b.xml', 'openvino', frame_size=(30, 40))\n"
        "try: export_file(bundle, out / 'c.onnx', 'onnx', frame_size=(30, 40))\n"
        "except EngineUnavailable as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "needs torch" in done.stdout
    assert "pip install 'nem-stream[train]'" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "b.bin", "b.xml"]


@pytest.mark.parametrize(
    ("name", "format", "options", "say"),
    [
        ("a.onnx", "onx", {}, "allowed: onnx, tensorrt, openvino"),
        ("a.onnx", "onnx", {"precision": "bf16"}, "allowed: auto, f32, f16"),
        ("a.xml", "openvino", {"precision": "int8"}, "format openvino: precision 'int8'"),
        ("a.engine", "tensorrt", {"precision": "f8"}, "allowed: auto, f16, f32, bf16"),
        ("a.engine", "onnx", {}, "ends in .onnx"),
        ("a", "tensorrt", {}, "ends in .engine"),
        (".xml", "openvino", {}, "ends in .xml"),
        ("a.onnx", "onnx", {"frame_size": (0, 5)}, "from 1 to 16384"),
        ("a.onnx", "onnx", {"frame_size": (5, 99999)}, "from 1 to 16384"),
        ("a.onnx", "onnx", {"batch": 0, "frame_size": (5, 5)}, "batch 0"),
        ("a.onnx", "onnx", {"batch": 2}, "any number of frames"),
        ("a.xml", "openvino", {"batch": 2}, "any number of frames"),
    ],
)
def test_refuses_what_it_does_not_know(
    bundle: Bundle, tmp_path: Path, name: str, format: str, options: dict[str, object], say: str
) -> None:
    with pytest.raises(OptionError, match=say) as caught:
        export_file(bundle, tmp_path / name, format, **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_keeps_files_unless_told_otherwise(bundle: Bundle, tmp_path: Path) -> None:
    path, weights = tmp_path / "nem.xml", tmp_path / "nem.bin"
    weights.write_text("mine")  # the file that nobody named is asked for, too
    with pytest.raises(ExportError, match=r"nem\.bin: exists already; pass --overwrite"):
        export_file(bundle, path, "openvino")
    assert [p.name for p in tmp_path.iterdir()] == ["nem.bin"]
    export_file(bundle, path, "openvino", precision="fp16", overwrite=True)
    assert weights.read_bytes()[:4] != b"mine"
    assert path.exists()


def test_names_the_place_that_does_not_take_it(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"there is no folder .*gone"):
        export_file(bundle, tmp_path / "gone" / "nem.onnx", "onnx")
    (tmp_path / "nem.onnx").mkdir()
    with pytest.raises(ExportError, match="is a folder"):
        export_file(bundle, tmp_path / "nem.onnx", "onnx", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="there is no folder"):
        export_file(bundle, tmp_path / "file" / "nem.onnx", "onnx")


def test_a_failed_export_takes_nobody_s_place(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: object, path: Path, **_: object) -> None:
        path.write_text("half")
        raise EngineError("differs")

    monkeypatch.setattr(engines.onnx_fixed, "export_fixed", fail)
    path = tmp_path / "nem.onnx"
    path.write_text("mine")
    with pytest.raises(EngineError, match="differs"):
        export_file(bundle, path, "onnx", precision=HALF, overwrite=True)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_and_leaves_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, _: bytes) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(ExportError, match="can't be written: No space left"):
        export_file(bundle, tmp_path / "nem.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_changed_since_it_was_opened_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    changed = bundle.manifest.model_copy(
        update={"files": {GRAPH: "0" * 64, WEIGHTS: bundle.manifest.files[WEIGHTS]}}
    )
    with pytest.raises(BundleError, match="changed since the bundle was opened"):
        export_file(Bundle(bundle.path, changed), tmp_path / "nem.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_no_utf8_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"caf\\udce9.onnx': runtimes can't open such names"):
        export_file(bundle, tmp_path / "caf\udce9.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []
