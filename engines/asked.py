"""What a run is asked for, checked: an aim the bundle has, and classes by name or number."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from engines.errors import OptionError
from nem import classes
from nem.classes import Target
from nem.errors import MethodError
from nem.explanation import AIMS, Aim


def pick_aim(
    aims: Sequence[Aim], explain: str | None, target: Target | None, *, opened: bool = False
) -> Aim:
    """What is to be explained.

    Args:
        aims: what can be explained, the default first.
        explain: one of them; None is `target` where a target is given, else the default.
        target: given or not; its value is not looked at.
        opened: whether the aims are those of an open engine, which may be fewer than its bundle's.

    Raises:
        OptionError: there is no such aim, or the target goes with another one.
    """
    asked_of, cure = "this bundle", "another bundle"
    if opened:
        asked_of, cure = "this engine", "an engine opened for it"
    if explain is None:
        if target is None:
            return aims[0]
        if "target" in aims:
            return "target"
        raise OptionError(
            f"target {target!r}: {asked_of} has no head that explains any class asked for, only "
            f"{', '.join(aims)}; leave target out, or take {cure}"
        )
    if explain not in aims:
        near = difflib.get_close_matches(str(explain), aims, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        if explain in AIMS:
            hint = f"; take one of these, or {cure}"
        raise OptionError(f"explain {explain!r}: {asked_of} explains {', '.join(aims)}{hint}")
    if target is not None and explain != "target":
        raise OptionError(
            f"target {target!r} goes with explain target, not with explain {explain}; "
            "leave one of the two out"
        )
    return aims[aims.index(explain)]


def find_class(names: Sequence[str], asked: int | str) -> int:
    """See `nem.classes.find_class`; raises OptionError in the place of its error."""
    with _refusals():
        return classes.find_class(names, asked)


def class_numbers(names: Sequence[str], target: Target | None, count: int) -> NDArray[np.int64]:
    """See `nem.classes.find_classes`; None is -1. Raises OptionError in the place of its error."""
    with _refusals():
        return classes.find_classes(names, -1 if target is None else target, count)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except MethodError as error:
        raise OptionError(str(error)) from None
