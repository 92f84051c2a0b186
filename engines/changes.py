"""What changed since an engine of the same kind was stored, to be told when one is built anew."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from engines.store import Store
from engines.store_admin import list_stored

SAME = ("engine", "bundle", "precision", "frame", "batch")
"""Facts by which two stored engines are of one kind: they are what the user asked for."""

NONE = "none"
"""In place of a version, where a package is not installed."""

MAKERS = ("torch", "Torch-TensorRT", "modelopt")
"""Facts about what makes an engine; running one needs none of them."""

LONGEST_VALUE = 40
"""A longer value is a hash, of which the beginning tells enough."""

_log = logging.getLogger(__name__)


def what_changed(store: Store, facts: Mapping[str, str]) -> str | None:
    """How the nearest stored engine of the same kind differs, as "driver 550.54 -> 580.65".

    None where there is none of the kind, or the store can't be read.
    """
    try:
        entries = list_stored(store)
    except OSError as error:
        _log.debug("engine store %s can't be read: %s", store.folder, error)
        return None
    found: list[list[str]] = []
    for entry in entries:
        if all(entry.facts.get(name) == facts[name] for name in SAME):
            names = [*facts, *(name for name in entry.facts if name not in facts)]
            changes = [
                f"{name} {_short(entry.facts.get(name))} -> {_short(facts.get(name))}"
                for name in names
                if entry.facts.get(name) != facts.get(name)
            ]
            if changes:
                found.append(changes)
    if not found:
        return None
    nearest: list[str] = min(found, key=len)  # of equals the last used
    return ", ".join(nearest)


def as_made(store: Store, facts: dict[str, str]) -> dict[str, str]:
    """The facts of an engine to be found where nothing can make one: of any versions that did.

    Where what makes engines is installed, or nothing else fits, they are `facts`.
    """
    makers = facts.keys() & MAKERS
    if all(facts[name] != NONE for name in makers):
        return facts
    with suppress(OSError):  # a store that can't be read has nothing
        for entry in list_stored(store):
            found = facts | {name: entry.facts.get(name, NONE) for name in makers}
            if entry.facts == found:
                return found
    return facts


def _short(value: str | None) -> str:
    if value is None:
        return "unknown"
    return value if len(value) <= LONGEST_VALUE else f"{value[:12]}..."


def installed(package: str) -> str:
    """The version of a package, `NONE` without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return NONE


def reinstall(package: str) -> str:
    """How to put a package there anew, in the version that is there.

    The package itself: forced, pip would look for this project on its index, which lacks it.
    """
    found = installed(package)
    return f"pip install --force-reinstall {package}{'' if found == NONE else f'=={found}'}"
