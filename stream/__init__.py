"""Show what a frozen vision model looks at, on live video and files.

    import stream

    for frame, explanation in stream.explain("clip.mp4"):
        print(frame.pts_seconds, explanation.top(1))

    with stream.Explainer.load("nem-tiny") as explainer:
        mask = explainer(image).mask[0]  # image: RGB uint8 (H, W, 3)

Names are imported when they are first used: `import stream` itself loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nem.classes import Target
    from nem.explanation import Aim, Explanation
    from stream.errors import SinkError, SourceError, SourceLost, StreamError, UsageError
    from stream.explainer import Explainer, explain
    from stream.frame import Frame
    from stream.overlay import Overlay, Style
    from stream.pipeline import Pipeline
    from stream.sources import Source, open_source
    from stream.stats import Report

__all__ = [
    "Aim",
    "Explainer",
    "Explanation",
    "Frame",
    "Overlay",
    "Pipeline",
    "Report",
    "SinkError",
    "Source",
    "SourceError",
    "SourceLost",
    "StreamError",
    "Style",
    "Target",
    "UsageError",
    "explain",
    "open_source",
]

_HOMES = {
    "Aim": "nem.explanation",
    "Explainer": "stream.explainer",
    "Explanation": "nem.explanation",
    "Frame": "stream.frame",
    "Overlay": "stream.overlay",
    "Pipeline": "stream.pipeline",
    "Report": "stream.stats",
    "SinkError": "stream.errors",
    "Source": "stream.sources",
    "SourceError": "stream.errors",
    "SourceLost": "stream.errors",
    "StreamError": "stream.errors",
    "Style": "stream.overlay",
    "Target": "nem.classes",
    "UsageError": "stream.errors",
    "explain": "stream.explainer",
    "open_source": "stream.sources",
}


if not TYPE_CHECKING:  # or a checker would take any name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'stream' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
