"""Running what is explained as it is in use: evaluated, without gradients, and left as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet(model: Any, *, gradient: bool = False) -> Iterator[None]:
    """Eval mode for a torch module, or for the module whose method `model` is; then back.

    Anything else, as a plain function, is left alone. Where torch is not loaded, this does nothing.

    Args:
        model: module, method or function.
        gradient: leave gradients on.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    owner = model if isinstance(model, torch.nn.Module) else getattr(model, "__self__", None)
    modules = list(owner.modules()) if isinstance(owner, torch.nn.Module) else []
    training = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        with torch.set_grad_enabled(gradient):
            yield
    finally:
        for module, was in zip(modules, training, strict=True):
            module.training = was
