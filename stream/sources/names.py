"""Names of sources: natural order, and what counts as a picture."""

from __future__ import annotations

import re
from pathlib import Path

PICTURE_SUFFIXES = frozenset(
    {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which `img2.png` comes before `img10.png`."""
    parts = re.split(r"(\d+)", str(path))
    return tuple((1, int(p), p) if p.isdecimal() else (0, 0, p) for p in parts)


def is_picture(path: Path) -> bool:
    """True if the suffix is that of a still picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES
