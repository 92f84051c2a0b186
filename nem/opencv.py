"""OpenCV's settings of the whole process: its own threads, and its talk on stderr."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
from cv2.utils import logging as cv2_logging

from nem.setting import Setting


def _one_thread() -> Callable[[], None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    return partial(cv2.setNumThreads, before)


one_thread = Setting(_one_thread)
"""OpenCV works in the thread that calls it: of small pictures its threads cost more than they
bring. Their number is the whole process's, and pipelines may run and end in any order."""


def _quiet() -> Callable[[], object]:
    # Sets it, and returns the one before.
    return partial(cv2_logging.setLogLevel, cv2_logging.setLogLevel(cv2_logging.LOG_LEVEL_SILENT))


quiet = Setting(_quiet)
"""OpenCV says nothing on stderr; several threads may read pictures or open cameras at once."""
