"""What the table of methods says is loaded."""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

import nem.methods
from nem.methods import METHODS, explain
from tests.nem.toys import shapes, tiny_nem


def test_loading_a_method_is_no_time_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that tells how many modules were asked for."""
    asked: set[str] = set()
    really = importlib.import_module

    def load(name: str) -> ModuleType:
        asked.add(name)
        return really(name)

    monkeypatch.setattr(importlib, "import_module", load)
    monkeypatch.setattr(nem.methods, "time", SimpleNamespace(perf_counter=lambda: len(asked)))
    monkeypatch.setitem(METHODS, "lafam", replace(METHODS["lafam"], needs="colorsys"))
    assert explain("lafam", tiny_nem(), shapes(1, 0)[0]).seconds == 0
    assert asked >= {"nem.cam", "colorsys"}
