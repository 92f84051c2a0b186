"""The store: built once, checked always, never in the way."""

from __future__ import annotations

import json
import logging
import os
import resource
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import Store, StoreError
from engines.filelock import exclusive
from engines.store import default_folder
from engines.store_files import key_of

FACTS = {"engine": "test", "graph": "0123", "precision": "f32"}
POSIX_ONLY = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")


class Builder:
    """Counts builds; an engine is a text."""

    def __init__(self, text: str = "engine") -> None:
        self.text = text
        self.builds = 0

    def fetch(self, store: Store, facts: dict[str, str] = FACTS) -> str:
        def load(blob: bytes) -> str:
            if blob.startswith(b"unloadable"):
                raise StoreError("the runtime can't import it")
            return blob.decode()

        return store.fetch(facts, build=self.build, dump=str.encode, load=load)

    def build(self) -> str:
        self.builds += 1
        return self.text


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "deep" / "engines")


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_built_once(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    builder = Builder()
    assert [builder.fetch(store) for _ in range(3)] == ["engine"] * 3
    assert builder.builds == 1
    assert messages(caplog) == []
    files = sorted(path.name for path in store.folder.iterdir())
    key = key_of(FACTS)
    assert files == [f"{key}.blob", f"{key}.json", f"{key}.lock"]
    manifest = json.loads((store.folder / f"{key}.json").read_text())
    assert manifest["facts"] == FACTS
    assert manifest["size"] == len("engine")


@pytest.mark.parametrize("name", sorted(FACTS))
def test_every_fact_counts(store: Store, name: str) -> None:
    builder = Builder()
    builder.fetch(store)
    builder.fetch(store, FACTS | {name: "other"})
    assert builder.builds == 2


@POSIX_ONLY
def test_belongs_to_the_user_alone(store: Store) -> None:
    store.folder.mkdir(parents=True, mode=0o755)
    store.folder.chmod(0o755)
    Builder().fetch(store)
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    for path in store.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def _flip(path: Path) -> None:
    path.write_bytes(b"E" + path.read_bytes()[1:])


DAMAGES = {
    "changed": lambda blob, _: _flip(blob),
    "cut": lambda blob, _: blob.write_bytes(blob.read_bytes()[:-1]),
    "empty": lambda blob, _: blob.write_bytes(b""),
    "blob missing": lambda blob, _: blob.unlink(),
    "manifest cut": lambda _, manifest: manifest.write_bytes(manifest.read_bytes()[:20]),
    "manifest of another": lambda _, manifest: manifest.write_text(
        manifest.read_text().replace("0123", "9999")
    ),
    "manifest without hash": lambda _, manifest: manifest.write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_is_moved_aside_and_rebuilt(
    store: Store, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    Builder("old").fetch(store)
    blob, manifest = (store.folder / f"{key_of(FACTS)}{end}" for end in (".blob", ".json"))
    DAMAGES[damage](blob, manifest)
    builder = Builder("new")
    assert builder.fetch(store) == "new"
    assert builder.builds == 1
    (line,) = messages(caplog)
    assert "is damaged, building it anew: " in line
    assert "\n" not in line
    assert list(store.folder.glob("*.damaged"))
    assert builder.fetch(store) == "new"
    assert builder.builds == 1


def test_what_the_runtime_refuses_is_damaged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    Builder("unloadable").fetch(store)
    assert Builder("new").fetch(store) == "new"
    assert Builder("newer").fetch(store) == "new"
    assert "can't import it" in messages(caplog)[0]


def test_a_blob_without_manifest_is_not_loaded(store: Store) -> None:
    Builder("old").fetch(store)
    (store.folder / f"{key_of(FACTS)}.json").unlink()
    assert Builder("new").fetch(store) == "new"


def test_build_errors_pass_and_leave_nothing(store: Store) -> None:
    builder = Builder()

    def fail() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.fetch(FACTS, build=fail, dump=str.encode, load=bytes.decode)
    assert [path.suffix for path in store.folder.iterdir()] == [".lock"]
    assert builder.fetch(store) == "engine"


def test_an_engine_without_bytes_is_used_and_not_stored(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def no_dump(_: str) -> bytes:
        raise StoreError("has no bytes")

    assert store.fetch(FACTS, build=lambda: "e", dump=no_dump, load=bytes.decode) == "e"
    assert messages(caplog) == [f"engine not kept in store {store.folder}: has no bytes"]


def test_a_folder_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "engines")
    builder = Builder()
    assert builder.fetch(store) == "engine"
    assert builder.builds == 1
    (line,) = messages(caplog)
    assert line.startswith(f"engine store {store.folder} not used: ")


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


@POSIX_ONLY
def test_a_read_only_store_is_read_and_not_written(
    unprivileged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(unprivileged / "engines")
    Builder("stored").fetch(store)
    store.folder.chmod(0o500)
    assert Builder("new").fetch(store) == "stored"
    assert messages(caplog) == []
    assert Builder("new").fetch(store, FACTS | {"graph": "other"}) == "new"
    (line,) = messages(caplog)
    assert "not used" in line
    assert "Permission denied" in line


@POSIX_ONLY
def test_a_store_of_somebody_else_is_not_used(
    unprivileged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a folder of somebody else")
    folder = unprivileged / "engines"
    mine = os.geteuid()
    os.seteuid(0)
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    os.seteuid(mine)
    assert Builder().fetch(Store(folder)) == "engine"
    assert "belongs to another user; set NEM_CACHE" in messages(caplog)[0]
    assert list(folder.iterdir()) == []


@POSIX_ONLY
def test_a_full_disk_stops_nothing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """The limit on file sizes fails a write half way, as a full disk does."""
    builder = Builder("x" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        assert builder.fetch(store) == builder.text
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (line,) = messages(caplog)
    assert line.startswith(f"engine not kept in store {store.folder}: ")
    assert [path.suffix for path in store.folder.iterdir()] == [".lock"]
    assert builder.fetch(store) == builder.text
    assert builder.builds == 2


def test_threads_build_once(store: Store) -> None:
    builder = Builder()
    barrier = threading.Barrier(4)
    found = []

    def work() -> None:
        barrier.wait(10)
        found.append(builder.fetch(store))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == ["engine"] * 4
    assert builder.builds == 1


PROCESS = """
import sys
from pathlib import Path
from engines.store import Store

def build():
    print("building", flush=True)
    sys.stdin.readline()  # until told to go on
    return "made by " + sys.argv[2]

facts = {"engine": "shared"}
print(Store(Path(sys.argv[1])).fetch(facts, build=build, dump=str.encode, load=bytes.decode))
"""


def test_two_processes_build_once(store: Store) -> None:
    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(store.folder), name],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    with start("one") as one:
        assert one.stdout.readline() == "building\n"
        with start("two") as two:
            one.stdin.write("\n")
            one.stdin.close()
            assert one.stdout.read() == "made by one\n"
            out, _ = two.communicate("\n", timeout=60)
            assert out == "made by one\n"


def test_a_lock_held_too_long_is_not_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("engines.store.WAIT_SECONDS", 0.0)
    store.folder.mkdir(parents=True)
    with exclusive(store.folder / f"{key_of(FACTS)}.lock", 0.0):
        assert Builder().fetch(store) == "engine"
    assert "held by another process" in messages(caplog)[0]
    assert not list(store.folder.glob("*.blob"))


def test_the_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("NEM_CACHE", str(tmp_path))
    assert default_folder() == tmp_path / "engines"
    monkeypatch.delenv("NEM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert default_folder().name == "engines"
    assert "nem-stream" in default_folder().parts
