"""What is special to the OpenVINO engine: the cut resize, the store, batch sizes, errors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from engines import EngineError, Store, list_stored
from engines.cpu import has_bf16
from engines.ov import OpenVinoEngine
from engines.ov_requests import SHAPES_KEPT
from engines.store_files import key_of
from nem.bundle import Bundle
from nem.errors import BundleError
from nem.hashes import sha256_of
from tests.engines.conftest import SIZE, random_frames


def layer_types(engine: OpenVinoEngine) -> list[str]:
    with engine._requests.lent(1) as request:
        compiled = request.get_compiled_model()
    nodes = compiled.get_runtime_model().get_ordered_ops()
    return [node.get_rt_info()["layerType"].astype(str) for node in nodes]


def test_the_resize_costs_nothing(bundle: Bundle) -> None:
    """Before the first convolution there is one fused scaling and a relabelling of axes."""
    with OpenVinoEngine(bundle) as engine:
        layers = [kind for kind in layer_types(engine) if kind not in ("Const", "Reshape")]
    before = layers[: layers.index("Convolution")]
    assert before.count("Subgraph") + before.count("Eltwise") <= 2
    assert not {"MatMul", "FullyConnected", "Interpolate", "Transpose"} & set(before)


def test_second_start_imports_what_the_first_built(
    bundle: Bundle, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = random_frames(1, SIZE, SIZE)
    with OpenVinoEngine(bundle, store=store) as engine:
        expected = engine.run(frames)
    monkeypatch.setattr(OpenVinoEngine, "_compile", None)
    with OpenVinoEngine(bundle, store=store) as engine:
        found = engine.run(frames)
        assert engine.names == bundle.manifest.classes
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.scores, expected.scores)
    (entry,) = list_stored(store)
    assert entry.facts["graph"] == bundle.manifest.files["graph.onnx"]
    assert entry.facts["shape"] == f"1x{SIZE}x{SIZE}x3"


def test_heads_that_no_one_asks_for_are_left_out(bundle: Bundle, store: Store) -> None:
    counts = {}
    for aims in (("embedding",), None, ("embedding",)):
        with OpenVinoEngine(bundle, store=store, aims=aims) as engine:
            with engine._requests.lent(1) as request:
                outputs = request.get_compiled_model().outputs
            maps = {name for port in outputs for name in port.get_names() if "mask_" in name}
            assert maps == {f"mask_{aim}" for aim in engine.aims}
            kinds = layer_types(engine)
            counts[aims] = kinds.count("Convolution"), kinds.count("FullyConnected")
    assert counts["embedding",][0] == counts[None][0] - 2  # those that draw the target
    assert counts["embedding",][1] < counts[None][1]
    assert [entry.facts.get("aims") for entry in list_stored(store)].count("embedding") == 1
    assert len(list_stored(store)) == 2


def test_precisions_are_stored_apart(bundle: Bundle, store: Store) -> None:
    used = set()
    for precision in ("f32", "auto", "f32"):
        with OpenVinoEngine(bundle, store=store, precision=precision) as engine:
            used.add(engine.precision)
    assert sorted(entry.facts["precision"] for entry in list_stored(store)) == sorted(used)


def test_a_stored_blob_the_runtime_refuses_is_rebuilt(
    bundle: Bundle, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with OpenVinoEngine(bundle, store=store) as engine:
        expected = engine.run(random_frames(1, SIZE, SIZE)).mask
    (entry,) = list_stored(store)
    assert key_of(entry.facts) == entry.key
    for path in store.folder.iterdir():
        path.unlink()
    store.fetch(entry.facts, build=str, dump=lambda _: b"no model" * 99, load=bytes.decode)
    with OpenVinoEngine(bundle, store=store) as engine:
        np.testing.assert_array_equal(engine.run(random_frames(1, SIZE, SIZE)).mask, expected)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "OpenVINO can't import it" in line
    assert "\n" not in line


def test_batch_sizes_in_memory_are_limited(bundle: Bundle, store: Store) -> None:
    with OpenVinoEngine(bundle, store=store) as engine:
        for count in (1, 2, 3, 4, 5, 6, 1):
            assert len(engine.run(random_frames(count, SIZE, SIZE)).mask) == count
        assert len(list(engine._requests)) == SHAPES_KEPT
    assert len(list_stored(store)) == 1


def test_calls_at_the_same_time_give_what_one_gives(bundle: Bundle, store: Store) -> None:
    frames = [random_frames(2, SIZE, SIZE, seed=seed) for seed in range(12)]
    with OpenVinoEngine(bundle, precision="f32", batch=2, store=store) as engine:
        expected = [engine.run(pair).mask for pair in frames]
    with OpenVinoEngine(bundle, precision="f32", batch=2, calls=2, store=store) as engine:
        assert engine.calls == 2
        with engine._requests.lent(2) as first, engine._requests.lent(2) as second:
            assert first is not second
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda pair: engine.run(pair).mask, frames))
        assert len(engine._requests.held()) == 2
    for mask, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(mask, right, atol=1e-4)
    assert {entry.facts.get("calls") for entry in list_stored(store)} == {None, "2"}


def test_a_batch_is_stored_for_itself_and_takes_any_number(bundle: Bundle, store: Store) -> None:
    frames = random_frames(7, SIZE, SIZE)
    with OpenVinoEngine(bundle, precision="f32", store=store) as engine:
        expected = engine.run(frames, "target", [0, 1, 2, 3, 4, 0, 1])
    with OpenVinoEngine(bundle, precision="f32", batch=3, store=store) as engine:
        found = engine.run(frames, "target", [0, 1, 2, 3, 4, 0, 1])
        assert len(engine.run(frames[:1]).mask) == 1
        assert list(engine._requests) == [3]
    np.testing.assert_allclose(found.mask, expected.mask, atol=1e-4)
    np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-4)
    np.testing.assert_array_equal(found.target, expected.target)
    shapes = {entry.facts["shape"] for entry in list_stored(store)}
    assert shapes == {f"1x{SIZE}x{SIZE}x3", f"3x{SIZE}x{SIZE}x3"}


@pytest.mark.parametrize("content", [b"", b"not a graph", None], ids=["empty", "text", "foreign"])
def test_a_graph_that_is_none_is_one_line(
    bundle: Bundle, store: Store, tmp_path: Path, content: bytes | None
) -> None:
    import onnx

    path = tmp_path / "bundle"
    shutil.copytree(bundle.path, path)
    graph = path / "graph.onnx"
    if content is None:
        frames = onnx.helper.make_tensor_value_info("frames", onnx.TensorProto.UINT8, [1, 8, 8, 3])
        mask = onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, [1, 8, 8, 3])
        node = onnx.helper.make_node("Cast", ["frames"], ["mask"], to=onnx.TensorProto.FLOAT)
        model = onnx.helper.make_model(
            onnx.helper.make_graph([node], "g", [frames], [mask]),
            opset_imports=[onnx.helper.make_opsetid("", 18)],
        )
        onnx.save(model, graph)
    else:
        graph.write_bytes(content)
    files = bundle.manifest.files | {graph.name: sha256_of(graph)}
    foreign = Bundle(path, bundle.manifest.model_copy(update={"files": files}))
    with pytest.raises(EngineError) as caught:
        OpenVinoEngine(foreign, store=store)
    assert "\n" not in str(caught.value)
    assert str(graph) in str(caught.value) or "resized" in str(caught.value)
    assert list_stored(store) == []


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        ({"avx512f", "avx512_bf16"}, True),
        ({"amx_bf16"}, True),
        ({"asimd", "bf16"}, True),
        ({"avx512f", "avx2"}, False),
        (set(), None),
    ],
)
def test_bf16_is_told_from_the_flags(flags: set[str], native: bool | None) -> None:
    assert has_bf16(frozenset(flags)) is native


def test_a_bundle_that_is_replaced_under_our_hands_is_never_stored(
    bundle: Bundle, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(bundle.path, path)
    (path / "graph.onnx").write_bytes((path / "graph.onnx").read_bytes() + b" ")
    with pytest.raises(BundleError, match="changed since the bundle was opened"):
        OpenVinoEngine(Bundle(path, bundle.manifest), store=store)
    assert list_stored(store) == []


FORKING = """
import os, signal, sys, numpy as np
from engines import open_engine
engine = open_engine(sys.argv[1], "openvino")
frames = np.zeros((1, 64, 64, 3), np.uint8)
engine.run(frames)
engine._busy.__enter__()  # as by a thread that runs it
child = os.fork()
if not child:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(20)
    if sys.argv[2] == "close":
        engine.close()
    sys.exit(7)
status = os.waitpid(child, 0)[1]
engine._busy.__exit__()
engine.run(frames)
engine.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.parametrize("way", ["close", "leave"])
def test_a_forked_process_ends_what_its_parent_goes_on_with(
    bundle: Bundle, tmp_path: Path, way: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, str(bundle.path), way],
        env={**os.environ, "NEM_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (7, "")
