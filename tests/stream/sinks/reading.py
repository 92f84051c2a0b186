"""Reading back what a sink wrote."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.builders import read_index

DATA = Path(os.environ.get("NEM_DATA", Path(__file__).parents[4] / "shared" / "data"))


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


def read_packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """Time and content of the packets of the first stream of this kind."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.size]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())
