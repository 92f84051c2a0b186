"""What a run is asked for, checked: an aim the bundle has, and classes by name or number."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from engines.errors import OptionError
from nem.explanation import AIMS, Aim

Target: TypeAlias = int | str | Sequence[int] | NDArray[np.integer]
"""Classes to explain: one, by number or name, for all frames, or a number for each. -1 stands for
the most probable class of the frame."""

NEAR = 5
"""Names shown for one that does not exist."""


def pick_aim(aims: Sequence[Aim], explain: str | None, target: Target | None) -> Aim:
    """What is to be explained.

    Args:
        aims: what the bundle explains, its default first.
        explain: one of them; None is `target` where a target is given, else the default.
        target: given or not; its value is not looked at.

    Raises:
        OptionError: the bundle has no such aim, or the target goes with another one.
    """
    if explain is None:
        if target is None:
            return aims[0]
        if "target" in aims:
            return "target"
        raise OptionError(
            f"target {target!r}: this bundle has no head that explains any class asked for, only "
            f"{', '.join(aims)}; leave target out, or take another bundle"
        )
    if explain not in aims:
        near = difflib.get_close_matches(explain, aims, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        if explain in AIMS:
            hint = "; take one of these, or another bundle"
        raise OptionError(f"explain {explain!r}: this bundle explains {', '.join(aims)}{hint}")
    if target is not None and explain != "target":
        raise OptionError(
            f"target {target!r} goes with explain target, not with explain {explain}; "
            "leave one of the two out"
        )
    return aims[aims.index(explain)]


def find_class(names: Sequence[str], asked: int | str) -> int:
    """The number of a class.

    Args:
        names: of all classes, in order.
        asked: a name (in any case, if only one is so called), a number, or a number in words of
            digits where no class is called so; -1 is the most probable class.

    Raises:
        OptionError: no such class; the message names the nearest ones.
    """
    if isinstance(asked, str):
        found = [i for i, name in enumerate(names) if name == asked] or [
            i for i, name in enumerate(names) if name.casefold() == asked.casefold()
        ]
        if len(found) == 1:
            return found[0]
        if found:
            numbers = ", ".join(map(str, found))
            raise OptionError(
                f"target {asked!r}: {len(found)} classes are called so; give a number: {numbers}"
            )
        if not asked.strip().removeprefix("-").isdecimal():
            near = ", ".join(_nearest(names, asked))
            hint = f"nearest: {near}" if near else f"the first are {', '.join(names[:NEAR])}"
            raise OptionError(
                f"target {asked!r}: no class is called so; {hint}; "
                f"or give a number, 0 to {len(names) - 1}"
            )
    number = _number(asked)
    if not -1 <= number < len(names):
        raise OptionError(
            f"target {number}: the model has {len(names)} classes; give 0 to {len(names) - 1}, "
            "or -1 for the most probable one"
        )
    return number


def class_numbers(names: Sequence[str], target: Target | None, count: int) -> NDArray[np.int64]:
    """The class of each of `count` frames, int64 (count,); -1 is the most probable one.

    Raises:
        OptionError: no such class, or another number of classes than frames.
    """
    if target is None:
        return np.full(count, -1, np.int64)
    if isinstance(target, str) or np.ndim(target) == 0:
        return np.full(count, find_class(names, target), np.int64)  # type: ignore[arg-type]
    if np.ndim(target) != 1 or len(target) != count:  # type: ignore[arg-type]
        raise OptionError(
            f"target of shape {np.shape(target)} for {count} frames; "
            "give one class, or one number for each frame"
        )
    return np.array([find_class(names, each) for each in target], np.int64)  # type: ignore[union-attr]


def _number(asked: int | str) -> int:
    try:
        if isinstance(asked, bool | np.bool_):
            raise TypeError
        return int(asked) if isinstance(asked, str) else operator.index(asked)
    except TypeError:
        raise OptionError(
            f"target {asked!r}: expected a class name or number, got {type(asked).__name__}"
        ) from None


def _nearest(names: Sequence[str], asked: str) -> list[str]:
    """Names that contain what was asked for, then those spelled much like it."""
    folded = {name.casefold(): name for name in reversed(names)}
    wanted = asked.casefold().strip()
    holding = [name for key, name in folded.items() if wanted and wanted in key]
    alike = [folded[key] for key in difflib.get_close_matches(wanted, folded, n=NEAR, cutoff=0.5)]
    return list(dict.fromkeys([*sorted(holding, key=len), *alike]))[:NEAR]
