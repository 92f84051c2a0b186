"""Classes that were asked for, by name or number."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nem.backbone import Backbone
from nem.errors import MethodError
from nem.explanation import class_names

Target = int | str | Sequence[int | str]
"""A class for all pictures, or one for each."""


def find_classes(backbone: Backbone, target: Target | None, count: int) -> Tensor | None:
    """The asked classes as numbers, on the model's device.

    Args:
        backbone: the model.
        target: a class, by number or name (in any case, if only one is so called), for all
            pictures, or one for each; -1 is the most probable one.
        count: pictures.

    Returns:
        int64 (N,), -1 for the most probable class; None for no target.

    Raises:
        MethodError: the model has no classes, or not these, or there are not `count`.
    """
    if target is None:
        return None
    if backbone.num_classes == 0:
        raise MethodError(f"target {target!r}: backbone {backbone.name} has no classes")
    asked = [target] * count if np.ndim(target) == 0 else list(target)  # type: ignore[arg-type]
    if len(asked) != count:
        raise MethodError(f"target: {len(asked)} classes for {count} pictures")
    names = class_names(backbone.classes, backbone.num_classes)
    numbers = [_number(one, names) for one in asked]
    return torch.tensor(numbers, device=next(backbone.parameters()).device)


def _number(asked: Any, names: tuple[str, ...]) -> int:
    if isinstance(asked, str):
        folded = [name.casefold() for name in names]
        alike = [i for i, name in enumerate(folded) if name == asked.casefold()]
        if asked in names or len(alike) == 1:
            return names.index(asked) if asked in names else alike[0]
        near = difflib.get_close_matches(asked.casefold(), folded, n=3, cutoff=0.5)
        nearest = ", ".join(names[folded.index(name)] for name in near)
        hint = f"nearest: {nearest}" if near else f"the first: {', '.join(names[:5])}"
        raise MethodError(f"target {asked!r}: no class is called so; {hint}")
    if isinstance(asked, bool) or not isinstance(asked, int | np.integer):
        raise MethodError(f"target {asked!r}: expected a class's name or number")
    if not -1 <= asked < len(names):
        raise MethodError(f"target {asked}: the model has classes 0 to {len(names) - 1}")
    return int(asked)
