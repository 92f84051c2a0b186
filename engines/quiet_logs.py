"""Compilers and exporters made quiet: what matters is checked on their results."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from nem.logs import at_level


@contextmanager
def quiet_logs(*names: str) -> Iterator[None]:
    """No warnings, and of these loggers errors only; then everything as it was."""
    with at_level(logging.ERROR, *names), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def hidden(module: str) -> Iterator[None]:
    """As if a module were not installed, for what is imported meanwhile; not if it is loaded."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # makes its import fail
    try:
        yield
    finally:
        sys.modules.pop(module, None)
