"""TensorRT engines in the store: built once, checked each time, rebuilt when anything changed."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from engines import EngineError, EngineUnavailable, Store, StoreError, list_stored
from engines.changes import SAME
from engines.cuda_memory import CudaError
from engines.golden import pack, unpack
from engines.store_files import key_of, read_entry, write_entry
from engines.trt import TensorRtEngine
from nem.bundle import Bundle
from nem.errors import BundleError
from tests.engines.conftest import SIZE, random_frames
from tests.engines.fake_cuda import cudaError_t
from tests.engines.fake_tensorrt import Fakes
from tests.engines.storing import messages

FRAMES = random_frames(1, SIZE, SIZE)


def open_and_run(bundle: Bundle, store: Store, **options: object) -> tuple[np.ndarray, list[str]]:
    """The masks, and what was said but for where an engine was put."""
    said: list[str] = []
    with TensorRtEngine(bundle, precision="f32", store=store, say=said.append, **options) as engine:
        told = [line for line in said if not line.endswith(f", kept in {store.folder}")]
        return engine.run(FRAMES).mask, told


def test_the_second_start_loads_what_the_first_built(
    bundle: Bundle, fakes: Fakes, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, said = open_and_run(bundle, store)
    assert said == []
    monkeypatch.setattr("nem.bundle_io.load_model", None)  # no torch is needed
    loaded, said = open_and_run(bundle, store)
    np.testing.assert_array_equal(loaded, built)
    assert said == []
    assert len(fakes.builds) == 1
    (entry,) = list_stored(store)
    assert entry.facts["GPU"] == "NVIDIA Fake 1"
    assert entry.facts["driver"] == "550.54.14"
    assert entry.facts["TensorRT"] == "11.1.0.106"
    assert entry.facts["frame"] == f"{SIZE}x{SIZE}"
    assert entry.facts["weights"] == bundle.manifest.files["weights.safetensors"]
    assert entry.facts["torch"][0].isdigit()
    assert set(SAME) < set(entry.facts)


def missing(package: str) -> str:
    raise PackageNotFoundError(package)


def test_an_environment_that_can_build_none_finds_what_is_built(
    bundle: Bundle, fakes: Fakes, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.changes.version", lambda package: "2.14.0")
    built, _ = open_and_run(bundle, store)
    monkeypatch.setattr("engines.changes.version", missing)
    loaded, said = open_and_run(bundle, store)
    np.testing.assert_array_equal(loaded, built)
    assert (said, len(fakes.builds), len(list_stored(store))) == ([], 1, 1)
    monkeypatch.setattr("engines.changes.version", lambda package: "2.15.0")
    _, said = open_and_run(bundle, store)
    assert len(fakes.builds) == 2
    assert "torch 2.14.0 -> 2.15.0" in said[0]


def test_what_was_asked_is_stored_apart(bundle: Bundle, fakes: Fakes, store: Store) -> None:
    for _ in range(2):
        for options in ({}, {"frame_size": (32, 48)}, {"batch": 2}):
            open_and_run(bundle, store, **options)
        TensorRtEngine(bundle, store=store).close()
    assert len(fakes.builds) == len(list_stored(store)) == 4


@pytest.mark.parametrize(
    ("change", "say"),
    [
        ({"driver": "580.65.06"}, "driver 550.54.14 -> 580.65.06"),
        ({"name": "NVIDIA Fake 2"}, "GPU NVIDIA Fake 1 -> NVIDIA Fake 2"),
        (
            {"capability": "9.0", "driver": "580.65.06"},
            "compute capability 8.9 -> 9.0, driver 550.54.14 -> 580.65.06",
        ),
        ({}, "TensorRT 11.1.0.106 -> 11.2.0.1"),
    ],
)
def test_another_machine_rebuilds_and_says_what_changed(
    bundle: Bundle, fakes: Fakes, store: Store, change: dict[str, str], say: str
) -> None:
    open_and_run(bundle, store)
    fakes.gpus[0] = replace(fakes.gpus[0], **change)
    if not change:
        fakes.trt.__version__ = "11.2.0.1"
    _, said = open_and_run(bundle, store)
    assert said == [f"engine tensorrt: building anew, changed since the stored one: {say}"]
    assert len(fakes.builds) == 2
    assert open_and_run(bundle, store)[1] == []
    assert len(fakes.builds) == 2


def test_other_weights_are_told_by_the_beginning_of_their_hash(
    bundle: Bundle, fakes: Fakes, store: Store
) -> None:
    open_and_run(bundle, store)
    files = bundle.manifest.files | {"weights.safetensors": "ab" * 32}
    other = Bundle(bundle.path, bundle.manifest.model_copy(update={"files": files}))
    said: list[str] = []
    # They are not those of the files, which a build must never take for them.
    with pytest.raises(BundleError, match="changed since the bundle was opened"):
        TensorRtEngine(other, precision="f32", store=store, say=said.append)
    [line] = said
    old = bundle.manifest.files["weights.safetensors"][:12]
    assert line.endswith(f"weights {old}... -> abababababab...")


def test_the_nearest_of_several_is_told(bundle: Bundle, fakes: Fakes, store: Store) -> None:
    open_and_run(bundle, store)
    fakes.gpus[0] = replace(fakes.gpus[0], name="NVIDIA Fake 2", driver="580.65.06")
    open_and_run(bundle, store)
    fakes.gpus[0] = replace(fakes.gpus[0], driver="590.1.0")
    _, (line,) = open_and_run(bundle, store)
    assert line.endswith("changed since the stored one: driver 580.65.06 -> 590.1.0")


def test_a_line_goes_to_the_log_where_nobody_listens(
    bundle: Bundle, fakes: Fakes, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    TensorRtEngine(bundle, store=store).close()
    fakes.gpus[0] = replace(fakes.gpus[0], driver="580.65.06")
    TensorRtEngine(bundle, store=store).close()
    assert any("driver 550.54.14 -> 580.65.06" in line for line in messages(caplog))


def stored_files(store: Store) -> tuple[Path, dict[str, str]]:
    (entry,) = list_stored(store)
    return store.folder / f"{entry.key}.blob", entry.facts


def tamper(store: Store, kind: str) -> None:
    blob, facts = stored_files(store)
    kept = unpack(read_entry(store.folder, key_of(facts)))
    if kind == "one byte":
        data = bytearray(blob.read_bytes())
        data[-1] ^= 1
        blob.write_bytes(data)
    elif kind == "no blob of ours":
        write_entry(store.folder, facts, b"x" * 99)
    elif kind == "no engine":
        write_entry(store.folder, facts, pack(replace(kept, engine=b"no engine" * 9)))
    elif kind == "another answer":
        expected = kept.expected | {"mask_class": kept.expected["mask_class"] + 0.5}
        write_entry(store.folder, facts, pack(replace(kept, expected=expected)))


@pytest.mark.parametrize(
    ("kind", "say"),
    [
        ("one byte", "its manifest says"),
        ("no blob of ours", "it is damaged"),
        ("no engine", "Magic tag does not match"),
        ("another answer", "its answer to the golden frame is wrong: mask_class: largest"),
    ],
)
def test_what_is_not_right_is_moved_aside_and_rebuilt(
    bundle: Bundle,
    fakes: Fakes,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    say: str,
) -> None:
    right, _ = open_and_run(bundle, store)
    tamper(store, kind)
    found, _ = open_and_run(bundle, store)
    np.testing.assert_array_equal(found, right)
    assert len(fakes.builds) == 2
    assert list(store.folder.glob("*.damaged"))
    (line,) = messages(caplog)
    assert say in line
    assert "\n" not in line
    open_and_run(bundle, store)
    assert len(fakes.builds) == 2
    assert fakes.cuda.leaks() == 0


def test_an_engine_whose_answers_changed_is_quarantined(
    bundle: Bundle, fakes: Fakes, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """As after an update of the driver that broke a kernel."""
    right, _ = open_and_run(bundle, store)
    built = fakes.engines["engine 0"]
    compute = built.compute
    built.compute = lambda *given: [value * 0.5 for value in compute(*given)]
    found, _ = open_and_run(bundle, store)
    np.testing.assert_array_equal(found, right)
    assert list(store.folder.glob("*.blob.damaged"))
    assert "its answer to the golden frame is wrong" in messages(caplog)[0]
    assert fakes.cuda.leaks() == 0


@pytest.mark.parametrize("wrong", [0.005, float("nan")])  # bf16 may be off so far, f32 not
def test_a_build_with_wrong_answers_is_an_error_and_not_kept(
    bundle: Bundle, fakes: Fakes, store: Store, wrong: float
) -> None:
    fakes.wrong = wrong
    with pytest.raises(EngineError, match="just built does not compute what the model") as caught:
        open_and_run(bundle, store)
    assert not isinstance(caught.value, StoreError)
    assert "\n" not in str(caught.value)
    assert list_stored(store) == []
    assert fakes.cuda.leaks() == 0


@pytest.mark.parametrize("batch", [1, 2])
def test_trouble_of_the_machine_is_no_damage(
    bundle: Bundle, fakes: Fakes, store: Store, batch: int
) -> None:
    open_and_run(bundle, store, batch=batch)
    fakes.cuda.fail["cudaStreamCreateWithFlags"] = cudaError_t.cudaErrorInvalidValue
    with pytest.raises(CudaError, match="cudaErrorInvalidValue"):
        open_and_run(bundle, store, batch=batch)
    fakes.refuse = "Error Code 1: Cuda Runtime (out of memory)"
    with pytest.raises(CudaError, match="too little GPU memory"):
        open_and_run(bundle, store, batch=batch)
    fakes.refuse = None
    assert not list(store.folder.glob("*.damaged"))
    open_and_run(bundle, store, batch=batch)
    assert [options.batch for options in fakes.builds].count(batch) == 1


def test_threads_that_ask_at_once_build_once(bundle: Bundle, fakes: Fakes, store: Store) -> None:
    found: list[np.ndarray] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        found.append(open_and_run(bundle, Store(store.folder))[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert len(fakes.builds) == 1
    assert fakes.cuda.leaks() == 0


def test_a_store_that_can_not_be_used_stops_nobody(
    bundle: Bundle, fakes: Fakes, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    found, said = open_and_run(bundle, Store(file))
    assert found.shape == (1, SIZE, SIZE)
    assert said == []


def test_building_without_torch_names_the_cure(
    bundle: Bundle, fakes: Fakes, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: Bundle) -> None:
        raise ModuleNotFoundError("No module named 'timm'", name="timm")

    monkeypatch.setattr("nem.bundle_io.load_model", missing)
    with pytest.raises(EngineUnavailable, match=r"building one needs timm, .*pip install 'nem-st"):
        open_and_run(bundle, store)


def test_a_stored_engine_is_of_no_use_to_another_bundle(
    bundle: Bundle, fakes: Fakes, store: Store, tmp_path: Path
) -> None:
    open_and_run(bundle, store)
    shutil.copytree(bundle.path, tmp_path / "copy")
    open_and_run(Bundle(tmp_path / "copy", bundle.manifest), store)
    assert len(fakes.builds) == 1, "the same bundle in another folder"
    renamed = Bundle(bundle.path, bundle.manifest.model_copy(update={"name": "other"}))
    assert open_and_run(renamed, store)[1] == []
    assert len(fakes.builds) == 2
