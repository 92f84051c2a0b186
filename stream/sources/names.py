"""Names of sources: hiding passwords, natural order, what counts as a picture."""

from __future__ import annotations

import re
from pathlib import Path

PICTURE_SUFFIXES = frozenset(
    {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)


def redact(text: str) -> str:
    """`text` with the user and password of any URL in it replaced by `***`."""
    # Up to the last @ of the word: an unescaped password may itself hold @ or /.
    return re.sub(r"([A-Za-z][A-Za-z0-9+.-]*://)\S*@", r"\1***@", text)


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which `img2.png` comes before `img10.png`."""
    parts = re.split(r"(\d+)", str(path))
    return tuple((1, int(p), p) if p.isdigit() else (0, 0, p) for p in parts)


def is_picture(path: Path) -> bool:
    """True if the suffix is that of a still picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES
