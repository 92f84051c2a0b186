"""OpenCV's own threads, switched off while a pipeline runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2

from engines.setting import Setting


def _one_thread() -> Callable[[], None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    return partial(cv2.setNumThreads, before)


one_thread = Setting(_one_thread)
"""OpenCV works in the thread that calls it: of small pictures its threads cost more than they
bring. Their number is the whole process's, and pipelines may run and end in any order."""
