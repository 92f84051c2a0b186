"""The store is never in the way: other processes, read-only folders, full disks."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engines import Store
from engines.filelock import exclusive
from engines.store_files import key_of
from tests.engines.storing import FACTS, POSIX_ONLY, Builder, messages


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "deep" / "engines")


def test_a_folder_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "engines")
    builder = Builder()
    assert builder.fetch(store) == "engine"
    assert builder.builds == 1
    (line,) = messages(caplog)
    assert line.startswith(f"engine store {store.folder} not used: ")


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


def test_a_store_on_a_disk_that_can_only_be_read_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    Builder("stored").fetch(store)
    monkeypatch.setattr("os.utime", refuse)
    assert Builder("new").fetch(store) == "stored"
    assert messages(caplog) == []


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
def test_what_somebody_else_put_there_is_not_loaded(
    unprivileged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can write as somebody else")
    store = Store(unprivileged / "engines")
    Builder("planted").fetch(store)
    os.seteuid(0)
    for end in (".json", ".blob"):
        path = store.folder / f"{key_of(FACTS)}{end}"
        os.chown(path, 1, -1)
        path.chmod(0o644)
    os.seteuid(65534)
    assert Builder("mine").fetch(store) == "mine"
    assert "its .json was written by another user" in messages(caplog)[0]


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
    assert line.endswith("; free some space or set NEM_CACHE to a folder of your own")
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
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.folder.mkdir(parents=True)
    with exclusive(store.folder / f"{key_of(FACTS)}.lock", 0.0):
        assert Builder().fetch(store, wait=0.0) == "engine"
    assert "held by another process" in messages(caplog)[0]
    assert not list(store.folder.glob("*.blob"))


def test_what_another_process_is_replacing_is_left_alone(store: Store) -> None:
    """Between its two files an entry looks damaged."""
    Builder("old").fetch(store)
    key = key_of(FACTS)
    (store.folder / f"{key}.blob").write_bytes(b"new")
    before = {path.name for path in store.folder.iterdir()}
    with exclusive(store.folder / f"{key}.lock", 0.0):
        assert Builder("mine").fetch(store, wait=0.0) == "mine"
    assert {path.name for path in store.folder.iterdir()} == before
