"""Looking after the store of compiled engines: list, verify, prune."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from engines.errors import StoreError
from engines.store import Store
from engines.store_files import read_entry, read_manifest

DAY = 86_400.0

LEFTOVER_SECONDS = 3_600.0
"""Files of an unfinished build this old belong to no running one."""


@dataclass(frozen=True, slots=True)
class StoredEngine:
    """An entry of the store.

    Attributes:
        key: its name.
        size: bytes of the compiled engine.
        used_at: time of the last use, in seconds since the epoch.
        facts: what it was built for (engine, graph, versions, device, precision, shape, CPU).
        problem: why it can't be loaded, or None.
    """

    key: str
    size: int
    used_at: float
    facts: dict[str, str]
    problem: str | None = None


def list_stored(store: Store | None = None) -> list[StoredEngine]:
    """All entries, last used first; blobs are not read. Empty where there is no store."""
    return _entries(store or Store(), check=False)


def verify_stored(store: Store | None = None) -> list[StoredEngine]:
    """All entries, `problem` set where the files are not those that were written."""
    return _entries(store or Store(), check=True)


def prune_stored(store: Store | None = None, *, unused_days: float = 30.0) -> list[Path]:
    """Delete entries not used for `unused_days`, damaged ones, and leftovers of broken builds.

    Returns:
        The deleted files.

    Raises:
        StoreError: a file can't be deleted.
    """
    store = store or Store()
    folder, now = store.folder, time.time()
    entries = verify_stored(store)
    kept = {e.key for e in entries if e.problem is None and now - e.used_at <= unused_days * DAY}
    doomed = [*folder.glob("*.damaged")]
    for entry in entries:
        if entry.key not in kept:
            doomed += [folder / f"{entry.key}.json", folder / f"{entry.key}.blob"]
    for pattern in ("*.tmp", "*.blob", "*.lock"):
        leftovers = (path for path in folder.glob(pattern) if path.stem not in kept)
        doomed += [path for path in leftovers if now - _modified(path) > LEFTOVER_SECONDS]
    deleted = []
    for path in dict.fromkeys(doomed):
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"{path}: can't be deleted: {error.strerror}") from None
        deleted.append(path)
    return deleted


def _entries(store: Store, *, check: bool) -> list[StoredEngine]:
    found = []
    for path in store.folder.glob("*.json"):
        key, blob = path.stem, path.with_suffix(".blob")
        facts: dict[str, str] = {}
        problem = None
        try:
            facts = read_manifest(store.folder, key).facts
            if check:
                read_entry(store.folder, key)
        except FileNotFoundError:  # deleted by somebody else meanwhile
            continue
        except (OSError, StoreError) as error:
            problem = str(error)
        size = blob.stat().st_size if blob.exists() else 0
        found.append(StoredEngine(key, size, _modified(blob), facts, problem))
    return sorted(found, key=lambda entry: entry.used_at, reverse=True)


def _modified(path: Path) -> float:
    """Time of the last change in seconds since the epoch, 0 for a file that is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
