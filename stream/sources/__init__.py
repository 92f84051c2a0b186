"""Sources of frames: video files, pictures, cameras and a demo; `open_source` chooses."""

from __future__ import annotations

from stream.sources.base import Source, SourceInfo
from stream.sources.choose import open_source

__all__ = ["Source", "SourceInfo", "open_source"]
