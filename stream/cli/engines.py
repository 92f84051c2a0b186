"""`nem-stream engines`: what runs here, and the compiled models kept on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence

from engines import StoredEngine, available_engines, list_stored, prune_stored, verify_stored
from stream.cli.errors import MODEL

DAY = 86_400


def print_engines() -> None:
    """Print each engine with "available" or the reason why not, then what is stored."""
    for engine in available_engines():
        print(f"{engine.name:<10} {engine.summary}: {engine.reason or 'available'}")
    print_stored(list_stored())


def print_stored(entries: Sequence[StoredEngine]) -> None:
    """Print one line per compiled model: key, size, age, what it was built for."""
    print(f"stored: {len(entries)}, {sum(entry.size for entry in entries) / 1e6:.1f} MB")
    for entry in entries:
        days = (time.time() - entry.used_at) / DAY
        facts = " ".join(entry.facts.get(f, "?") for f in ("engine", "device", "precision"))
        what = entry.problem or f"{facts}, {entry.size / 1e6:.1f} MB, used {days:.0f} days ago"
        print(f"  {entry.key[:12]}  {what}")


def verify() -> int:
    """Check all compiled models byte by byte; the exit code is 6 if one is damaged."""
    entries = verify_stored()
    print_stored(entries)
    damaged = sum(entry.problem is not None for entry in entries)
    print(f"{damaged} damaged; nem-stream engines prune removes them" if damaged else "all good")
    return MODEL if damaged else 0


def prune(days: float) -> None:
    """Delete compiled models not used for `days`, and damaged ones."""
    deleted = prune_stored(unused_days=days)
    print(f"{len(deleted)} files deleted")
