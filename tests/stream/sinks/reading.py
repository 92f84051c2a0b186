"""Writing files, and reading back what a sink wrote."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from stream.sinks import FileSink
from tests.builders import make_explanation, make_frame, read_index


@dataclass
class Video:
    """What a decoder finds in a file."""

    seconds: list[Fraction]
    luma: list[np.ndarray]
    stream: av.VideoStream
    first: av.VideoFrame

    @property
    def indices(self) -> list[int]:
        return [read_index(plane) for plane in self.luma]


def read_video(path: Path) -> Video:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        base = stream.time_base
        luma = [f.to_ndarray()[: f.height, : f.width] for f in frames]
        return Video([f.pts * base for f in frames], luma, stream, frames[0])


def written(
    path: Path,
    stamps: Iterable[int],
    time_base: Fraction = Fraction(1, 25),
    size: tuple[int, int] = (64, 96),
    **options: Any,
) -> Video:
    """A file of frames with these time stamps, as a decoder finds it."""
    with FileSink(path, **options) as sink:
        for index, pts in enumerate(stamps):
            frame = make_frame(*size, index=index, pts=pts, time_base=time_base)
            sink.write(frame, make_explanation())
    return read_video(path)


def read_packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """Time and content of the packets of the first stream of this kind."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.size]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())
