"""Loggers of other packages, made quieter for a while."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nem.setting import Setting

_log = logging.getLogger(__name__)


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


class _FirstRetry(logging.Handler):
    told = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            _log.handle(record)
        elif not self.told and "[Retry " in record.getMessage():
            self.told = True
            _log.warning("the model hub does not answer; trying again, for up to two minutes")


def _tell_one_retry() -> Callable[[], None]:
    hub = logging.getLogger("huggingface_hub")
    handlers, propagate = hub.handlers, hub.propagate
    hub.handlers, hub.propagate = [_FirstRetry()], False

    def restore() -> None:
        hub.handlers, hub.propagate = handlers, propagate

    return restore


quiet_hub = Setting(_tell_one_retry)
"""Of the model hub's warnings, one for each try and for minutes, only that it tries again; its
errors as before. Why the last try failed tells the error that ends them."""
