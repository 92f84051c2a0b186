"""Looking after the store of compiled engines: list, verify, prune."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from engines.errors import StoreError
from engines.filelock import exclusive
from engines.store import Store
from engines.store_files import read_entry, read_manifest

DAY = 86_400.0

JUDGE_SECONDS = 1.0
"""How long to wait for one who builds an entry before it is judged as it is."""

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
    """All entries, `problem` set where the files are not those that were written.

    An entry that is being replaced may look damaged, so such a one is looked at again once no one
    builds it.
    """
    store = store or Store()
    found = []
    for entry in _entries(store, check=True):
        judged: StoredEngine | None = entry
        if entry.problem is not None:
            with _held(store, entry.key, JUDGE_SECONDS):
                judged = _entry(store, entry.key, check=True)
        found += [judged] if judged is not None else []
    return found


def prune_stored(store: Store | None = None, *, unused_days: float = 30.0) -> list[Path]:
    """Delete entries not used for `unused_days`, damaged ones, and leftovers of broken builds.

    Returns:
        The deleted files.

    Raises:
        StoreError: a file can't be deleted.
    """
    store = store or Store()
    folder, now = store.folder, time.time()

    def is_kept(entry: StoredEngine | None) -> bool:
        return entry is None or (entry.problem is None and now - entry.used_at <= unused_days * DAY)

    deleted, kept = [], set()
    for entry in _entries(store, check=False):
        with _held(store, entry.key, 0) as free:  # else it is being built
            if not free or is_kept(_entry(store, entry.key, check=True)):
                kept.add(entry.key)
            else:
                deleted += _unlink(folder / f"{entry.key}{end}" for end in (".json", ".blob"))
    deleted += _unlink(folder.glob("*.damaged"))
    for pattern in ("*.tmp", "*.blob", "*.lock"):
        leftovers = (path for path in folder.glob(pattern) if path.stem not in kept)
        old = [path for path in leftovers if now - _modified(path) > LEFTOVER_SECONDS]
        for path in old:
            with _held(store, path.stem, 0) if pattern == "*.lock" else nullcontext(True) as free:
                deleted += _unlink([path]) if free else []
    return deleted


def _unlink(paths: Iterable[Path]) -> list[Path]:
    """Delete files; those that were there."""
    deleted = []
    for path in paths:
        try:
            path.unlink()
        except (FileNotFoundError, IsADirectoryError):  # a folder is none of the store's
            continue
        except OSError as error:
            raise StoreError(f"{path}: can't be deleted: {error.strerror}") from None
        deleted.append(path)
    return deleted


@contextmanager
def _held(store: Store, key: str, timeout: float) -> Iterator[bool]:
    """Keep others from building an entry; False if one does."""
    lock = store.folder / f"{key}.lock"
    made = not lock.exists()
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(lock, timeout))
        except TimeoutError:
            yield False
            return
        except OSError:  # nobody builds there; that nothing can be deleted is for `_unlink` to say
            made = False
        yield True
        if made:
            lock.unlink(missing_ok=True)


def _entries(store: Store, *, check: bool) -> list[StoredEngine]:
    keys = [path.stem for path in store.folder.glob("*.json") if not path.is_dir()]
    found = [entry for key in keys if (entry := _entry(store, key, check=check)) is not None]
    return sorted(found, key=lambda entry: entry.used_at, reverse=True)


def _entry(store: Store, key: str, *, check: bool) -> StoredEngine | None:
    """An entry, None if somebody deleted it meanwhile."""
    facts: dict[str, str] = {}
    problem = None
    try:
        facts = read_manifest(store.folder, key).facts
        if check:
            read_entry(store.folder, key)
    except FileNotFoundError:
        return None
    except (OSError, StoreError) as error:
        problem = str(error)
    try:
        state = (store.folder / f"{key}.blob").stat()
    except FileNotFoundError:
        return StoredEngine(key, 0, 0.0, facts, problem)
    return StoredEngine(key, state.st_size, state.st_mtime, facts, problem)


def _modified(path: Path) -> float:
    """Time of the last change in seconds since the epoch, 0 for a file that is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
