"""Fixtures of the method's tests."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DATA = Path(os.environ.get("NEM_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real pictures and videos."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}; set NEM_DATA")
    return DATA


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes folders of a name such that they can't be listed, for root too."""
    scandir = os.scandir

    def lock(name: str) -> None:
        def denied(path: str) -> Iterator[os.DirEntry[str]]:
            if str(path).endswith(name):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", denied)

    return lock
