"""List, verify and prune."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from engines import Store, StoreError, list_stored, prune_stored, store_admin, verify_stored
from engines.filelock import exclusive
from engines.store_files import key_of
from tests.engines.storing import POSIX_ONLY

DAY = 86_400


def put(store: Store, name: str, days_ago: float = 0) -> Path:
    """Store an engine called `name`, last used `days_ago`; its blob."""
    facts = {"engine": name}
    store.fetch(facts, build=lambda: name, dump=str.encode, load=bytes.decode)
    blob = store.folder / f"{key_of(facts)}.blob"
    age(blob, days_ago)
    return blob


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def names(store: Store) -> set[str]:
    return {entry.facts["engine"] for entry in list_stored(store)}


def test_nothing_there(store: Store) -> None:
    assert list_stored(store) == verify_stored(store) == prune_stored(store) == []
    assert not store.folder.exists()


def test_lists_last_used_first(store: Store) -> None:
    put(store, "old", 3)
    put(store, "young", 1)
    entries = list_stored(store)
    assert [entry.facts["engine"] for entry in entries] == ["young", "old"]
    assert entries[0].size == len("young")
    assert abs(time.time() - DAY - entries[0].used_at) < 60


def test_use_is_noted(store: Store) -> None:
    put(store, "first", 9)
    put(store, "second", 5)
    store.fetch({"engine": "first"}, build=str, dump=str.encode, load=bytes.decode)
    assert [entry.facts["engine"] for entry in list_stored(store)] == ["first", "second"]


def test_verify_tells_what_is_damaged(store: Store) -> None:
    put(store, "good")
    put(store, "bad").write_bytes(b"???")
    put(store, "gone").unlink()
    before = [entry.used_at for entry in list_stored(store)]
    problems = {e.facts["engine"]: e.problem for e in verify_stored(store)}
    assert problems["good"] is None
    assert "3 bytes of SHA-256" in problems["bad"]
    assert problems["gone"] == "its blob is missing"
    assert [entry.used_at for entry in list_stored(store)] == before


def test_prune_keeps_what_is_good_and_used(store: Store) -> None:
    put(store, "used", 29)
    put(store, "unused", 31)
    put(store, "bad").write_bytes(b"???")
    put(store, "gone").unlink()
    deleted = prune_stored(store)
    assert names(store) == {"used"}
    assert all(not path.exists() for path in deleted)
    assert len(deleted) == 5
    assert (
        store.fetch(
            {"engine": "used"}, build=lambda: "built again", dump=str.encode, load=bytes.decode
        )
        == "used"
    )


def test_prune_all(store: Store) -> None:
    put(store, "one", 0.1)
    put(store, "two", 0.1)
    prune_stored(store, unused_days=0)
    assert names(store) == set()


def test_prune_removes_leftovers_but_not_a_build_in_progress(store: Store) -> None:
    put(store, "used")
    for name, days in (
        ("aside.blob.damaged", 0),
        ("ended.tmp", 1),
        ("running.tmp", 0),
        ("orphan.blob", 1),
        ("just-written.blob", 0),
        ("ended.lock", 1),
        ("running.lock", 0),
    ):
        (store.folder / name).write_bytes(b"")
        age(store.folder / name, days)
    deleted = {path.name for path in prune_stored(store)}
    assert deleted == {"aside.blob.damaged", "ended.tmp", "orphan.blob", "ended.lock"}
    assert names(store) == {"used"}


def test_folders_are_nothing_of_the_store(store: Store) -> None:
    folders = [store.folder / f"mine.{end}" for end in ("json", "tmp", "damaged")]
    for folder in folders:
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    assert list_stored(store) == verify_stored(store) == []
    assert prune_stored(store) == []
    assert all(folder.is_dir() for folder in folders)


def test_what_is_being_built_is_left_alone(store: Store) -> None:
    """A lock file may be of an attempt long ago, and a build take its time."""
    blob = put(store, "slow", 90)
    blob.write_bytes(b"half")
    lock = blob.with_suffix(".lock")
    with exclusive(lock, 1):
        age(lock, 1)
        assert prune_stored(store) == []
        [entry] = verify_stored(store)
        assert entry.problem is not None
    assert {blob, blob.with_suffix(".json")} <= set(prune_stored(store))


def test_the_lock_of_a_first_build_is_left_alone(store: Store) -> None:
    """Its entry is not there yet, and without the lock another process would build it, too."""
    blob = put(store, "first")
    for path in (blob, blob.with_suffix(".json")):
        path.unlink()
    lock = blob.with_suffix(".lock")
    with exclusive(lock, 1):
        age(lock, 1)
        assert prune_stored(store) == []
    assert prune_stored(store) == [lock]


@POSIX_ONLY
def test_what_cannot_be_deleted_is_told(unprivileged: Path) -> None:
    store = Store(unprivileged / "engines")
    put(store, "bad").write_bytes(b"???")
    for lock in store.folder.glob("*.lock"):
        lock.unlink()
    store.folder.chmod(0o500)
    with pytest.raises(StoreError, match=r"json: can't be deleted: Permission denied"):
        prune_stored(store)
    assert [bool(entry.problem) for entry in verify_stored(store)] == [True]


@pytest.mark.parametrize("lock", [True, False])
def test_looking_leaves_all_as_it_was(store: Store, lock: bool) -> None:
    blob = put(store, "bad")
    blob.write_bytes(b"???")
    if not lock:
        blob.with_suffix(".lock").unlink()
    before = set(store.folder.iterdir())
    assert [bool(entry.problem) for entry in verify_stored(store)] == [True]
    assert set(store.folder.iterdir()) == before


def test_what_is_repaired_meanwhile_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = put(store, "mended")
    whole = blob.read_bytes()
    blob.write_bytes(b"half")
    hold = store_admin._held

    def held(*rest: Any) -> Any:
        blob.write_bytes(whole)
        return hold(*rest)

    monkeypatch.setattr(store_admin, "_held", held)
    assert [entry.problem for entry in verify_stored(store)] == [None]
    blob.write_bytes(b"half")
    assert blob not in prune_stored(store)


def test_what_may_not_be_read_or_locked_is_told_and_goes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As what was stored by root."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    put(store, "other")
    monkeypatch.setattr(store_admin, "read_manifest", refuse)
    monkeypatch.setattr(store_admin, "exclusive", refuse)
    for look in (list_stored, verify_stored):
        [entry] = look(store)
        assert "Permission denied" in str(entry.problem)
    assert {path.suffix for path in prune_stored(store)} == {".json", ".blob"}
    assert list_stored(store) == []


def test_what_is_deleted_meanwhile_is_no_trouble(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = put(store, "gone")
    monkeypatch.setattr(store_admin, "read_entry", lambda *_: blob.unlink(missing_ok=True))
    [entry] = verify_stored(store)
    assert entry.size == 0
