"""Loggers of other packages, made quieter for a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def at_level(level: int, *names: str) -> Iterator[None]:
    """These loggers tell what is of this level or worse; then as before."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)


def quiet_hub() -> AbstractContextManager[None]:
    """Without the model hub's warnings of each try that failed: the error that ends them tells."""
    return at_level(logging.ERROR, "huggingface_hub")
