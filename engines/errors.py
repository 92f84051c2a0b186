"""Errors of the engines.

    EngineError
    ├── EngineUnavailable   (also ImportError)  the runtime or its extra is missing
    ├── FrameError          (also ValueError)   frames of a wrong shape or dtype
    ├── EngineClosed                            used after close
    └── StoreError                              a stored engine that can't be trusted
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of all errors raised by `engines`."""


class EngineUnavailable(EngineError, ImportError):
    """The engine asked for can't run here; the message names the reason and the cure."""


class FrameError(EngineError, ValueError):
    """Frames that break the contract; the message shows expected and actual side by side."""


class EngineClosed(EngineError):
    """`run` was called after `close`."""


class StoreError(EngineError):
    """A stored engine is missing, damaged or was not written by us."""
