"""AOTInductor on the CPU: one package is compiled, and everything is run on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines import EngineError, OptionError, Store, compare, list_stored, open_engine
from engines.golden import GoldenEngine, pack, unpack
from engines.inductor import InductorEngine
from engines.store_files import key_of, read_entry
from nem.bundle import Bundle
from tests.engines.conftest import SIZE, random_frames, tiny_model
from tests.engines.new_process import masks_of_new_process
from tests.engines.test_engine_contract import *  # noqa: F403  run on the fixture `engine`
from tests.nem.toys import write_tiny_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BATCH = 2  # so that one and three frames fill it up


def open_inductor(bundle: Bundle, store: Store, **options: object) -> InductorEngine:
    return InductorEngine(bundle, device="cpu", batch=BATCH, store=store, **options)


@pytest.fixture(scope="session")
def said() -> list[str]:
    return []


@pytest.fixture(scope="session")
def filled(bundle: Bundle, said: list[str], tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the one package."""
    store = Store(tmp_path_factory.mktemp("inductor") / "engines")
    open_inductor(bundle, store, say=said.append).close()
    return store


@pytest.fixture
def kept(filled: Store) -> GoldenEngine:
    (entry,) = list_stored(filled)
    return unpack(read_entry(filled.folder, entry.key))


@pytest.fixture
def engine(bundle: Bundle, filled: Store) -> Iterator[InductorEngine]:
    with open_inductor(bundle, filled) as opened:
        yield opened


@pytest.fixture
def builds(kept: GoldenEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Building gives the package that is there already; the batch of each call is noted."""
    calls: list[int] = []

    def build(_graph: object, batch: int, *_: object) -> bytes:
        calls.append(batch)
        return kept.engine

    monkeypatch.setattr("engines.inductor_build.build_package", build)
    return calls


def test_the_build_tells_what_it_does_and_how_long_it_took(filled: Store, said: list[str]) -> None:
    begin, end, place = said
    assert begin.startswith("engine inductor: compiling resnet18 for frames of 64x64, batch 2, f32")
    assert end.startswith("engine inductor: compiled in ")
    assert place.endswith(f", kept in {filled.folder}")


def test_it_agrees_with_eager(engine: InductorEngine, bundle: Bundle) -> None:
    with open_engine(bundle, "eager", "cpu") as eager:
        parity = compare(engine, eager, random_frames(8, SIZE, SIZE))
    assert parity.ok, str(parity)
    assert parity.top1 == 1
    assert parity.mask_max > 0, "the engine that was compared is the reference itself"


def test_second_start_loads_what_the_first_built(
    bundle: Bundle, filled: Store, builds: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with open_inductor(bundle, filled) as engine:
        assert engine.names == bundle.manifest.classes
        assert (engine.batch, engine.precision, engine.device) == (BATCH, "f32", "cpu")
    assert not builds
    assert not caplog.records
    (entry,) = list_stored(filled)
    assert entry.facts["weights"] == bundle.manifest.files["weights.safetensors"]
    assert entry.facts["frame"] == f"{SIZE}x{SIZE}"


def test_a_new_process_runs_what_this_one_built(
    bundle: Bundle, filled: Store, tmp_path: Path
) -> None:
    frames = random_frames(2, SIZE, SIZE)
    runs, cache = ("inductor", "cpu", "f32", BATCH), filled.folder.parent
    found = masks_of_new_process(bundle.path, runs, frames, cache, tmp_path)
    with open_inductor(bundle, filled) as engine:
        np.testing.assert_array_equal(found, engine.run(frames).mask)


@pytest.mark.parametrize("damage", ["no package", "another answer"])
def test_a_stored_package_that_fails_is_built_anew(
    damage: str,
    bundle: Bundle,
    filled: Store,
    kept: GoldenEngine,
    builds: list[int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (entry,) = list_stored(filled)
    assert key_of(entry.facts) == entry.key
    bad = GoldenEngine(b"no package", kept.expected)
    reason = "torch can't run it"
    if damage == "another answer":
        moved = {name: value + 0.1 for name, value in kept.expected.items()}
        bad, reason = GoldenEngine(kept.engine, moved), "its answer to the golden frame is wrong"
    store = Store(tmp_path / "engines")
    store.fetch(entry.facts, build=lambda: bad, dump=pack, load=unpack)
    with open_inductor(bundle, store) as engine, open_inductor(bundle, filled) as other:
        frames = random_frames(1, SIZE, SIZE)
        np.testing.assert_array_equal(engine.run(frames).mask, other.run(frames).mask)
    assert builds == [BATCH]
    line, place = [record.getMessage() for record in caplog.records]
    assert reason in line
    assert place.endswith(f", kept in {store.folder}")
    assert "\n" not in line


def test_a_package_that_computes_something_else_is_not_handed_out(
    builds: list[int], tmp_path: Path
) -> None:
    other = write_tiny_bundle(tmp_path / "other", tiny_model(seed=1), classes=None)
    store = Store(tmp_path / "engines")
    with pytest.raises(EngineError, match="just built does not compute what the model does: mask_"):
        open_inductor(other, store)
    assert builds == [BATCH]
    assert not list_stored(store)


def test_only_a_gpu_takes_frames_of_a_gpu(engine: InductorEngine) -> None:
    with pytest.raises(OptionError, match="runs on the cpu here; use run"):
        engine.run_on_device(random_frames(1, SIZE, SIZE))


def test_a_missing_compiler_is_named_with_the_cure(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("/nowhere/g++",))
    with pytest.raises(EngineError, match=r"a C\+\+ compiler is missing; install one") as caught:
        open_inductor(bundle, Store(tmp_path / "engines"))
    assert "\n" not in str(caught.value)
    assert type(caught.value).__name__ == "EngineUnavailable"
