"""Engines: a bundle made runnable.

    with open_engine("nem-tiny") as engine:
        explanation = engine.run(frames)  # RGB uint8 (N, H, W, 3)
        other = engine.run(frames, "target", "dog")

Importing this loads neither torch nor a runtime; what needs one is imported when asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from engines.asked import find_class, pick_aim
from engines.base import Engine, Frames, check_frames
from engines.choose import Choice, choose_engine
from engines.errors import (
    EngineClosed,
    EngineError,
    EngineUnavailable,
    ExportError,
    FrameError,
    OptionError,
    StoreError,
)
from engines.export_files import export_file
from engines.fake import FakeEngine
from engines.gpus import Gpu, find_gpus
from engines.latency import Latency, measure
from engines.parity import Parity, compare
from engines.registry import (
    EngineInfo,
    available_engines,
    engine_names,
    file_batch,
    open_engine,
)
from engines.store import Store
from engines.store_admin import StoredEngine, list_stored, prune_stored, verify_stored
from nem.classes import Target
from nem.explanation import Explanation
from nem.pictures import resize
from nem.ranks import percentiles

if TYPE_CHECKING:
    from engines.export import export_onnx, save_bundle

__all__ = [
    "Choice",
    "Engine",
    "EngineClosed",
    "EngineError",
    "EngineInfo",
    "EngineUnavailable",
    "Explanation",
    "ExportError",
    "FakeEngine",
    "FrameError",
    "Frames",
    "Gpu",
    "Latency",
    "OptionError",
    "Parity",
    "Store",
    "StoreError",
    "StoredEngine",
    "Target",
    "available_engines",
    "check_frames",
    "choose_engine",
    "compare",
    "engine_names",
    "export_file",
    "export_onnx",
    "file_batch",
    "find_class",
    "find_gpus",
    "list_stored",
    "measure",
    "open_engine",
    "percentiles",
    "pick_aim",
    "prune_stored",
    "resize",
    "save_bundle",
    "verify_stored",
]

_TORCH_SIDE = {"export_onnx", "save_bundle"}


if not TYPE_CHECKING:  # or a checker would take any name

    def __getattr__(name: str) -> Any:
        if name not in _TORCH_SIDE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module("engines.export"), name)
        except ModuleNotFoundError as error:
            raise EngineUnavailable(
                f"{name} needs {error.name}, which is not installed: "
                "pip install 'nem-stream[train]'"
            ) from error
