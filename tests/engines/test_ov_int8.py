"""int8 on a CPU: rounded by the real NNCF, kept in the store, refused where it goes wrong."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import rich

import engines.ov_int8
from engines import EngineError, EngineUnavailable, OptionError, Store, list_stored, open_engine
from engines.calibration import Pictures
from engines.golden import golden_frames
from engines.ov import OpenVinoEngine
from engines.ov_graph import cut_resize, fix_sizes
from engines.ov_runtime import openvino as ov
from engines.parity import compare
from nem.bundle import Bundle, open_bundle
from nem.explanation import AIMS
from nem.manifest import GRAPH


def parts(count: int, seed: int) -> np.ndarray:
    """Parts of real photos, RGB uint8 (N, 160, 160, 3): the default is robust on such alone."""
    data = pytest.importorskip("skimage.data", reason="needs the extra demo")
    photos = [data.astronaut(), data.cat(), data.coffee(), data.chelsea(), data.rocket()]
    random, found = np.random.default_rng(seed), []
    for index in range(count):
        photo = photos[index % len(photos)]
        side = int(random.integers(160, min(photo.shape[:2]) + 1))
        top, left = (random.integers(0, size - side + 1) for size in photo.shape[:2])
        found.append(cv2.resize(photo[top : top + side, left : left + side], (160, 160)))
    return np.stack(found)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("nem-tiny")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index, photo in enumerate(parts(12, seed=5)):
        cv2.imwrite(str(folder / f"{index:02}.png"), photo[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def engine(bundle: Bundle, pictures: Path, store: Store) -> Any:
    with OpenVinoEngine(bundle, precision="int8", calibration=pictures, store=store) as opened:
        yield opened


def rounded(engine: OpenVinoEngine) -> list[str]:
    """Layers that compute in 8 bits."""
    with engine._requests.lent(1) as request:
        nodes = request.get_compiled_model().get_runtime_model().get_ordered_ops()
    infos = [node.get_rt_info() for node in nodes]
    return [
        info["layerType"].astype(str)
        for info in infos
        if info["runtimePrecision"].astype(str) in ("i8", "u8")
    ]


def test_it_is_made_without_a_word_printed(
    bundle: Bundle,
    pictures: Path,
    store: Store,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the other tests then find in the store."""
    monkeypatch.setattr(rich.get_console(), "stderr", True)  # as a training leaves it
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)  # of other tests
    told: list[str] = []
    options = {"precision": "int8", "calibration": pictures, "say": told.append}
    OpenVinoEngine(bundle, store=store, **options).close()
    assert capfd.readouterr() == ("", "")
    assert any("finding ranges for int8 on" in line for line in told)
    assert "openvino_telemetry" not in sys.modules


def test_convolutions_are_rounded_and_explain_as_before(
    engine: OpenVinoEngine, bundle: Bundle
) -> None:
    assert engine.precision == "int8"
    assert rounded(engine).count("Convolution") >= 10
    with OpenVinoEngine(bundle, precision="f32") as exact:
        assert "Convolution" not in rounded(exact)
        parity = compare(engine, exact, parts(12, seed=9))
    assert parity.ok, parity
    assert parity.mask_max > 1e-4


def test_several_frames_at_once_are_those_frames(engine: OpenVinoEngine) -> None:
    frames = parts(3, seed=2)
    together = engine.run(frames).mask
    for frame, mask in zip(frames, together, strict=True):
        np.testing.assert_allclose(engine.run(frame[None]).mask[0], mask, atol=0.05)


def test_what_was_rounded_is_kept_and_needs_no_nncf_again(
    bundle: Bundle, pictures: Path, store: Store, engine: OpenVinoEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    frames = parts(1, seed=1)
    expected = engine.run(frames)
    monkeypatch.setattr(engines.ov_int8, "load_nncf", None)
    with OpenVinoEngine(bundle, precision="int8", calibration=pictures, store=store) as again:
        found = again.run(frames)
    np.testing.assert_array_equal(found.mask, expected.mask)
    (entry,) = [e for e in list_stored(store) if e.facts["precision"] == "int8"]
    assert entry.facts["calibration"]
    assert entry.facts["nncf"] != "none"


def test_other_pictures_make_another_engine(
    bundle: Bundle, pictures: Path, store: Store, engine: OpenVinoEngine, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for file in pictures.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    cv2.imwrite(str(tmp_path / "extra.png"), parts(1, seed=77)[0])
    asked: list[int] = []

    def refuse(_core: Any, _model: Any, _plain: str, given: Pictures, *_: object) -> None:
        asked.append(len(given.frames) + len(given.held_out))
        raise EngineError("not made")

    monkeypatch.setattr(engines.ov_int8, "make_int8", refuse)
    with pytest.raises(EngineError, match="not made"):
        OpenVinoEngine(bundle, precision="int8", calibration=tmp_path, store=store)
    assert asked == [13]


def test_one_that_explains_otherwise_is_refused_and_not_kept(
    bundle: Bundle, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = engines.ov_int8.round_graph

    def spoilt(model: Any, pictures: Pictures, classes: int) -> Any:
        return kept(model, replace(pictures, frames=pictures.frames // 16), classes)

    monkeypatch.setattr(engines.ov_int8, "round_graph", spoilt)
    store = Store(tmp_path)
    with pytest.raises(EngineError, match=r"int8 nem-tiny explains otherwise: .* use another"):
        OpenVinoEngine(bundle, precision="int8", calibration=pictures, store=store)
    assert not list_stored(store)


@pytest.fixture
def graph(bundle: Bundle) -> Any:
    model = ov.Core().read_model(bundle.read(GRAPH))
    cut_resize(model)
    fix_sizes(model, 1, (160, 160))
    return model


def test_first_layers_what_draws_maps_and_classes_are_left(
    graph: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    nncf = SimpleNamespace(
        IgnoredScope=lambda names: names,
        Dataset=lambda frames, feed: [feed(frame) for frame in frames],
        QuantizationPreset=SimpleNamespace(MIXED="mixed"),
        quantize=lambda model, data, **options: asked.update(options, data=data) or model,
    )
    monkeypatch.setattr(engines.ov_int8, "load_nncf", lambda: nncf)
    frames = np.zeros((3, 160, 160, 3), np.uint8)
    engines.ov_int8.round_graph(graph, Pictures(frames, frames[:1]), 107)
    nodes = {node.get_friendly_name(): node for node in graph.get_ordered_ops()}
    left = {name: tuple(nodes[name].output(0).shape) for name in asked["ignored_scope"]}
    finest = [(1, 16, 80, 80), (1, 16, 80, 80), (1, 32, 80, 80)]
    maps = [(1, 1, 40, 40), (1, 3, 40, 40)]  # by class, and of the other three heads
    assert sorted(s for n, s in left.items() if "conv2d" in n) == sorted(finest + maps)
    products = [shape for name, shape in left.items() if "conv2d" not in name]
    assert (1, 107) in products
    assert products.count((1, 1, 160, 160)) == len(AIMS)
    assert asked["subset_size"] == len(asked["data"]) == 3
    assert [each["target"].tolist() for each in asked["data"]] == [[-1]] * 3


def test_it_is_judged_on_pictures_that_it_has_not_seen(
    bundle: Bundle, graph: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.ov_int8, "round_graph", lambda model, *_: model)
    pictures = Pictures(np.empty((0, 160, 160, 3), np.uint8), golden_frames((160, 160), 2))
    rest = ("f32", pictures, bundle.manifest, lambda _: None)
    assert engines.ov_int8.make_int8(ov.Core(), graph, *rest) is graph


def test_pictures_and_precision_go_together(bundle: Bundle, pictures: Path) -> None:
    with pytest.raises(OptionError, match=r"int8 needs pictures to calibrate with.*--calibrate"):
        open_engine(bundle, "openvino", precision="int8")
    with pytest.raises(OptionError, match="go with precision int8, asked for is f32"):
        open_engine(bundle, "openvino", precision="f32", calibration=pictures)
    with pytest.raises(OptionError, match="no such file or folder"):
        open_engine(bundle, "openvino", precision="int8", calibration=pictures / "none")


def test_without_nncf_the_cure_is_told(
    bundle: Bundle, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(EngineUnavailable, match=r"nncf is not installed: .*nem-stream\[int8\]"):
        OpenVinoEngine(bundle, precision="int8", calibration=pictures, store=Store(tmp_path))
