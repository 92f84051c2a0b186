"""What every test finds, on whatever machine: a cache of its own, no colours and no width asked
for. And what it has to leave in order: threads ended, no error logged, the signal stack."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.native import signal_stack

IN_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if IN_WORKER:
    # Before torch is imported: threads of several workers would wait for one another, spinning.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# How help and progress look; typer reads some of it when it is imported.
for _name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS", "TERMINAL_WIDTH"):
    os.environ.pop(_name, None)

JOIN_SECONDS = 5.0
"""A thread told to end gets this long to be gone."""
LIBRARY_THREADS = {"tqdm_monitor"}
"""Threads that libraries keep for the whole process."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Two halves for two workers, always the same: what runs after what is no matter of chance.

    By a scheduler, as marks of groups mean nothing to xdist 3.8 with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Halves(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            heavy = nodeid.startswith(("tests/engines/", "tests/scripts/"))
            return "engines, scripts" if heavy else "all else"

    return Halves(config, log)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test touches the user's own cache; all share one, so that each engine is built once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEM_CACHE", str(folder))
        yield folder


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of one's own, as a user whom permissions stop (root is stopped by none)."""
    user = 65534 if os.geteuid() == 0 else os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chown(folder, user, -1)
        before = os.geteuid()
        os.seteuid(user)
        try:
            yield folder
        finally:
            os.seteuid(before)
            for path in (folder, *folder.iterdir()):
                path.chmod(0o700)


class _ErrorRecords(logging.Handler):
    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    new = [t for t in threading.enumerate() if t not in before and t.name not in LIBRARY_THREADS]
    for thread in new:
        thread.join(JOIN_SECONDS)
    alive = [thread.name for thread in new if thread.is_alive()]
    assert not alive, f"threads left alive: {alive}"


@pytest.fixture(autouse=True)
def no_error_logged() -> Iterator[None]:
    handler = _ErrorRecords()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)
    assert not handler.records, [record.getMessage() for record in handler.records]


@pytest.fixture(autouse=True)
def signal_stack_kept() -> Iterator[None]:
    before = signal_stack()
    yield
    assert signal_stack() == before, "left another signal stack: a later signal may crash"
