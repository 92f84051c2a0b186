"""Engines of an NVIDIA GPU, opened where they can run; else each test skips with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from engines import Engine, open_engine, save_bundle
from nem.bundle import Bundle, open_bundle
from tests.engines import test_engine_contract as contract
from tests.engines.conftest import tiny_model
from tests.required import need, required

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

    def open(self, bundle: Bundle, **options: object) -> Engine:
        for name in self.needs:
            need(name)
        return open_engine(bundle, self.engine, "cuda", self.precision, **options)


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


def pytest_collection_modifyitems() -> None:
    required()  # a name that nobody knows ends the session before anything is skipped


@pytest.fixture(autouse=True)
def _f16_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contract.BATCH_TOLERANCE, "f16", F16_BATCH_TOLERANCE)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small bundle with random weights that the contract is written for."""
    need("cuda")
    return save_bundle(tiny_model(), tmp_path_factory.mktemp("bundle") / "tiny", name="tiny")


@pytest.fixture(scope="session", params=["tiny", "nem-tiny"])
def bundle(request: pytest.FixtureRequest, tiny: Bundle) -> Bundle:
    """Each bundle in turn: with random weights, and the default one."""
    return tiny if request.param == "tiny" else open_bundle(request.param)


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each engine in turn; skipped here where it can't run."""
    for name in request.param.needs:
        need(name)
    return request.param


@pytest.fixture(params=SHAPED, ids=str)
def shaped(request: pytest.FixtureRequest) -> Kind:
    """Each engine that is built for a size."""
    for name in request.param.needs:
        need(name)
    return request.param


@pytest.fixture
def engine(kind: Kind, tiny: Bundle) -> Iterator[Engine]:
    """What the contract runs on, freshly opened; batch 2, so that one and three frames fill up."""
    options = {"batch": 2} if kind.shaped else {}
    with kind.open(tiny, **options) as opened:
        yield opened


def decided_frames(reference: Engine, frames: np.ndarray, count: int, margin: float) -> np.ndarray:
    """The first `count` frames whose best class is no near tie, which rounding may decide.

    Args:
        reference: decides.
        frames: to choose from.
        count: how many are needed.
        margin: least distance of the two best probabilities.
    """
    scores = np.sort(np.concatenate([reference.run(frame[None]).scores for frame in frames]))
    clear = frames[scores[:, -1] - scores[:, -2] >= margin]
    assert len(clear) >= count, f"{len(clear)} of {len(frames)} frames are decided, {count} needed"
    return clear[:count]
