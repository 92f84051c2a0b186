"""The store: built once, checked always."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from engines import Store, StoreError
from engines.store import default_folder
from engines.store_files import key_of
from tests.engines.storing import FACTS, POSIX_ONLY, Builder, messages


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "deep" / "engines")


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


def test_a_build_is_told_with_the_folder_and_only_where_it_is_kept(store: Store) -> None:
    said: list[str] = []
    for _ in range(2):
        Builder().fetch(store, say=said.append)
    assert said == [f"engine test: compiled small, kept in {store.folder}"]
    store.folder.joinpath("file").touch()
    Builder().fetch(Store(store.folder / "file"), say=said.append)
    assert len(said) == 1


@pytest.mark.parametrize("name", sorted(FACTS))
def test_every_fact_counts(store: Store, name: str) -> None:
    builder = Builder()
    builder.fetch(store)
    builder.fetch(store, FACTS | {name: "other"})
    assert builder.builds == 2


@POSIX_ONLY
@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_belongs_to_the_user_alone(store: Store, mode: int) -> None:
    store.folder.mkdir(parents=True)
    store.folder.chmod(mode)
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


def test_the_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NEM_CACHE", str(tmp_path))
    assert default_folder() == tmp_path / "engines"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NEM_CACHE", "~/cache")  # as a file of settings gives it
    assert default_folder() == tmp_path / "cache" / "engines"
    monkeypatch.delenv("NEM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert default_folder().name == "engines"
    assert "nem-stream" in default_folder().parts


@POSIX_ONLY
def test_a_user_without_a_home_has_a_folder_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unknown(_: object) -> None:
        raise KeyError

    for name in ("NEM_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = Store()
    store.prepare()
    assert store.folder.is_relative_to(tmp_path)
    assert str(os.geteuid()) in store.folder.parent.name
