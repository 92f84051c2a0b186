"""Names of sources: their natural order."""

from __future__ import annotations

import re
from pathlib import Path


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which `img2.png` comes before `img10.png`."""
    parts = re.split(r"(\d+)", str(path))
    return tuple((1, int(p), p) if p.isdecimal() else (0, 0, p) for p in parts)
