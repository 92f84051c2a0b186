"""Fixtures of the method's tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("NEM_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real pictures and videos."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}; set NEM_DATA")
    return DATA
