"""What the tests of the store share: an engine that is a text, and its builder."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from engines import Store, StoreError

FACTS = {"engine": "test", "bundle": "small", "graph": "0123", "precision": "f32"}
POSIX_ONLY = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")


class Builder:
    """Counts builds; an engine is a text."""

    def __init__(self, text: str = "engine") -> None:
        self.text = text
        self.builds = 0

    def fetch(self, store: Store, facts: dict[str, str] = FACTS, **options: Any) -> str:
        def load(blob: bytes) -> str:
            if blob.startswith(b"unloadable"):
                raise StoreError("the runtime can't import it")
            return blob.decode()

        return store.fetch(facts, build=self.build, dump=str.encode, load=load, **options)

    def build(self) -> str:
        self.builds += 1
        return self.text


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]
