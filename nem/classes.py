"""Classes that are asked for, by name or number. No torch."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nem.errors import MethodError

Target: TypeAlias = int | str | Sequence[int | str] | NDArray[np.integer]
"""Classes to explain: one, by number or name, for all pictures, or one for each. -1 stands for the
most probable class of the picture."""

NEAR = 5
"""Names shown for one that does not exist."""


def find_class(names: Sequence[str], asked: int | str) -> int:
    """The number of a class.

    Args:
        names: of all classes, in order.
        asked: a name (in any case, if only one is so called), one of those that a name lists as
            ImageNet's do ("tench, Tinca tinca"), a number, or a number in words of digits where no
            class is called so; -1 is the most probable class.

    Raises:
        MethodError: no such class; the message names the nearest ones.
    """
    if not names:
        raise MethodError(f"target {asked!r}: the model has no classes, only features")
    if isinstance(asked, str):
        folded = asked.casefold()
        found = (
            [i for i, name in enumerate(names) if name == asked]
            or [i for i, name in enumerate(names) if name.casefold() == folded]
            or [i for i, name in enumerate(names) if folded in name.casefold().split(", ")]
        )
        if len(found) == 1:
            return found[0]
        if found:
            numbers = ", ".join(map(str, found))
            raise MethodError(
                f"target {asked!r}: {len(found)} classes are called so; give a number: {numbers}"
            )
        if not asked.strip().removeprefix("-").isdecimal():
            near = ", ".join(_nearest(names, asked))
            hint = f"nearest: {near}" if near else f"the first are {', '.join(names[:NEAR])}"
            raise MethodError(
                f"target {asked!r}: no class is called so; {hint}; "
                f"or give a number, 0 to {len(names) - 1}"
            )
    number = _number(asked)
    if not -1 <= number < len(names):
        raise MethodError(
            f"target {number}: the model has {len(names)} classes; give 0 to {len(names) - 1}, "
            "or -1 for the most probable one"
        )
    return number


def find_classes(names: Sequence[str], target: Target, count: int) -> NDArray[np.int64]:
    """The class of each of `count` pictures, int64 (count,); -1 is the most probable one.

    Raises:
        MethodError: no such class, or another number of classes than pictures.
    """
    if isinstance(target, str) or np.ndim(target) == 0:
        return np.full(count, find_class(names, target), np.int64)  # type: ignore[arg-type]
    if np.ndim(target) != 1 or len(target) != count:  # type: ignore[arg-type]
        raise MethodError(
            f"target of shape {np.shape(target)} for {count} pictures; "
            "give one class, or one for each picture"
        )
    return np.array([find_class(names, each) for each in target], np.int64)  # type: ignore[union-attr]


def _number(asked: int | str) -> int:
    try:
        if isinstance(asked, bool | np.bool_):
            raise TypeError
        return int(asked) if isinstance(asked, str) else operator.index(asked)
    except TypeError:
        raise MethodError(
            f"target {asked!r}: expected a class name or number, got {type(asked).__name__}"
        ) from None


def _nearest(names: Sequence[str], asked: str) -> list[str]:
    """Names that contain what was asked for, then those spelled much like it."""
    folded = {name.casefold(): name for name in reversed(names)}
    wanted = asked.casefold().strip()
    holding = [name for key, name in folded.items() if wanted and wanted in key]
    alike = [folded[key] for key in difflib.get_close_matches(wanted, folded, n=NEAR, cutoff=0.5)]
    return list(dict.fromkeys([*sorted(holding, key=len), *alike]))[:NEAR]
