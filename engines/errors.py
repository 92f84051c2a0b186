"""Errors of the engines.

EngineError
├── OptionError         (also ValueError)   an engine, device or precision that doesn't exist
├── EngineUnavailable   (also ImportError)  the runtime, its extra or the hardware is missing
├── FrameError          (also ValueError)   frames of a wrong shape or dtype
├── EngineClosed                            used after close
├── CudaError           (in `cuda_memory`)  a CUDA call failed: no memory, or the GPU is lost
├── ExportError                             a file to be written exists or can't be written
└── StoreError                              a stored engine that can't be trusted or written
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of all errors raised by `engines`."""


class OptionError(EngineError, ValueError):
    """An engine, device or precision nobody knows; the message names the allowed ones."""


class EngineUnavailable(EngineError, ImportError):  # noqa: N818 a state, told by its name
    """The engine asked for can't run here; the message names the reason and the cure."""


class FrameError(EngineError, ValueError):
    """Frames that break the contract; the message shows expected and actual side by side."""


class EngineClosed(EngineError):  # noqa: N818
    """`run` was called after `close`."""


class ExportError(EngineError):
    """A file to be written exists, or its folder does not take it."""


class StoreError(EngineError):
    """A stored engine is damaged or was not written by us, or the store can't be used."""
