"""The files of the store: one compiled engine is `<key>.blob` and, written last, `<key>.json`."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from engines.errors import StoreError

FORMAT: Literal[1] = 1
"""Version of the files' layout; part of every key."""


class StoredManifest(BaseModel):
    """What stands beside a compiled engine.

    Attributes:
        format: version of this file.
        key: hash of the facts, the entry's name.
        sha256: hash of the blob.
        size: bytes of the blob.
        facts: everything the engine depends on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    key: str
    sha256: str
    size: int
    facts: dict[str, str]


def key_of(facts: Mapping[str, str]) -> str:
    """The name of an entry: SHA-256 of everything it depends on."""
    text = json.dumps([FORMAT, sorted(facts.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def write_entry(folder: Path, facts: Mapping[str, str], blob: bytes) -> None:
    """Write both files whole. Raises OSError."""
    key = key_of(facts)
    digest = hashlib.sha256(blob).hexdigest()
    manifest = StoredManifest(key=key, sha256=digest, size=len(blob), facts=dict(facts))
    _write_whole(folder / f"{key}.blob", blob)
    _write_whole(folder / f"{key}.json", manifest.model_dump_json(indent=1).encode())


def read_manifest(folder: Path, key: str) -> StoredManifest:
    """The manifest of an entry.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is not one of ours, or of another entry.
        OSError: it can't be read.
    """
    text = _read_own(folder / f"{key}.json")
    try:
        manifest = StoredManifest.model_validate_json(text)
    except ValidationError as error:
        raise StoreError(f"its manifest is broken: {error.errors()[0]['msg']}") from None
    if key_of(manifest.facts) != key:
        raise StoreError("its manifest belongs to another entry")
    return manifest


def read_entry(folder: Path, key: str) -> bytes:
    """The compiled engine, its hash checked.

    Raises:
        FileNotFoundError: there is no such entry.
        StoreError: the files are not those that were written.
        OSError: they can't be read.
    """
    manifest = read_manifest(folder, key)
    try:
        blob = _read_own(folder / f"{key}.blob")
    except FileNotFoundError:
        raise StoreError("its blob is missing") from None
    found = hashlib.sha256(blob).hexdigest()
    if found != manifest.sha256:
        raise StoreError(
            f"{len(blob)} bytes of SHA-256 {found[:12]}..., its manifest says "
            f"{manifest.size} bytes of {manifest.sha256[:12]}..."
        )
    return blob


def _read_own(path: Path) -> bytes:
    """The bytes of a file of this user: the folder may have been open to others."""
    with path.open("rb") as file:
        if sys.platform != "win32" and os.fstat(file.fileno()).st_uid != os.geteuid():
            raise StoreError(f"its {path.suffix} was written by another user")
        return file.read()


def _write_whole(path: Path, data: bytes) -> None:
    """Write under another name, then rename: never a half file under `path`. Mode 0600."""
    with tempfile.NamedTemporaryFile(
        prefix=path.stem[:12], suffix=".tmp", dir=path.parent, delete=False
    ) as file:
        temporary = Path(file.name)
        try:
            file.write(data)
            file.close()
            temporary.replace(path)
        except BaseException:
            file.close()
            temporary.unlink(missing_ok=True)
            raise
