"""Engines of an NVIDIA GPU, opened where they can run; else each test skips with the reason.

Building takes most of the time: all tests but a few share the one engine of a kind that is built.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engines import Engine, EngineError, StoredEngine, list_stored, open_engine
from nem.bundle import Bundle
from tests.engines import test_engine_contract as contract
from tests.engines.conftest import SIZE, tiny_model
from tests.nem.toys import write_tiny_bundle
from tests.required import need, required

BATCH = 2
"""Frames at once, so that one and three fill it up."""
THREADS = 8
F16_BATCH_TOLERANCE = 4e-3
"""What another batch size may change in f16: an eighth of bf16's, and some."""


@dataclass(frozen=True, slots=True)
class Kind:
    """An engine at a precision, and what the machine needs for it."""

    engine: str
    precision: str
    needs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.engine}-{self.precision}"

    @property
    def shaped(self) -> bool:
        """Whether it is built for a frame size and batch, and kept in the store."""
        return self.engine not in ("eager", "tensorrt-module")

    def open(self, bundle: Bundle, batch: int = BATCH, **options: object) -> Engine:
        return open_engine(bundle, self.engine, "cuda", self.precision, batch=batch, **options)


NEEDS = {
    "eager": ("cuda",),
    "inductor": ("cuda",),
    "tensorrt": ("cuda", "tensorrt"),
    "tensorrt-rtx": ("cuda", "tensorrt-rtx"),
    "tensorrt-module": ("cuda", "tensorrt"),
}
KINDS = [
    Kind(engine, precision, needs)
    for engine, needs in NEEDS.items()
    for precision in ("f32", "f16", "bf16")
]
SHAPED = [kind for kind in KINDS if kind.shaped]

shaped = pytest.mark.parametrize("kind", SHAPED, ids=str, indirect=True)
"""For tests of those engines alone that are built for a size and kept."""


def pytest_collection_modifyitems() -> None:
    required()  # a name that nobody knows ends the session before anything is skipped


@pytest.fixture(autouse=True)
def _f16_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contract.BATCH_TOLERANCE, "f16", F16_BATCH_TOLERANCE)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small bundle with random weights that the contract is written for, without a graph."""
    need("cuda")
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    return write_tiny_bundle(folder, tiny_model(), classes=None)


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each engine in turn; skipped here where it can't run."""
    for name in request.param.needs:
        need(name)
    return request.param


@pytest.fixture(scope="session")
def left_open() -> Iterator[dict[Kind, Engine]]:
    """Engines on the small bundle that tests share."""
    found: dict[Kind, Engine] = {}
    yield found
    for engine in found.values():
        engine.close()


@pytest.fixture
def engine(kind: Kind, tiny: Bundle, left_open: dict[Kind, Engine]) -> Engine:
    """The engine that tests share; a new one after a test that closed it."""
    if kind not in left_open or left_open[kind]._closed:
        left_open[kind] = kind.open(tiny)
    return left_open[kind]


@pytest.fixture(autouse=True)
def have_gpu_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], None]]:
    """Sessions may run side by side; a test that calls this waits for the tests of the others."""
    if sys.platform == "win32":
        yield lambda: None
        return
    import fcntl

    with Path(tmp_path_factory.getbasetemp().parent, "nem-gpu.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield lambda: fcntl.flock(file, fcntl.LOCK_EX)


def decided_frames(reference: Engine, frames: np.ndarray, count: int, margin: float) -> np.ndarray:
    """The first `count` frames whose best class is no near tie, which rounding may decide.

    Args:
        reference: decides.
        frames: to choose from.
        count: how many are needed.
        margin: least distance of the two best probabilities.
    """
    clear: list[np.ndarray] = []
    for frame in frames:
        *_, second, best = np.sort(reference.run(frame[None]).scores[0])
        if best - second >= margin:
            clear.append(frame)
        if len(clear) == count:
            return np.stack(clear)
    pytest.fail(f"{len(clear)} of {len(frames)} frames are decided, {count} needed")


def entry_of(kind: Kind) -> StoredEngine:
    """What is stored of the engine that tests share."""
    wanted = {
        "engine": kind.engine,
        "precision": kind.precision,
        "bundle": "tiny",
        "frame": f"{SIZE}x{SIZE}",
        "batch": str(BATCH),
    }
    (entry,) = [entry for entry in list_stored() if wanted.items() <= entry.facts.items()]
    return entry


def wrong_of_threads(work: Callable[[int], str | None]) -> list[str]:
    """What goes wrong where threads do the same at once."""
    wrong: list[str] = []

    def watched(index: int) -> None:
        try:
            reason = work(index)
        except EngineError as error:
            reason = str(error)
        if reason is not None:
            wrong.append(f"thread {index}: {reason}")

    threads = [threading.Thread(target=watched, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong
