"""The source contract: frames in order, facts about them, and a clean close."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

from stream.colour import ColourTags
from stream.frame import Frame

RESIZED = "frames of another size scaled to the first"
"""Cause in `Source.counts`, of files and of cameras."""
_PLURALS = re.compile(r"\b(packet|frame|picture|stamp|jump|change|read|video|animation|page)s\b")
"""What causes in `Source.counts` are numbers of."""


def counted(count: int, cause: str) -> str:
    """A count in words, as "3 bad packets skipped" or "1 bad packet skipped".

    What can't be counted is told without a number: "file is truncated".
    """
    if count != 1:
        return f"{count} {cause}"
    one = _PLURALS.sub(r"\1", cause)
    return cause if one == cause else f"1 {one}"


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known of a source once it is open.

    Attributes:
        name: what to call it in messages; never holds a password.
        live: True for cameras: newest frame only, no end, drops are counted.
        width: of the upright frames in pixels.
        height: of the upright frames in pixels.
        fps_declared: frames per second the source claims, or None; never used for timing.
        frames_declared: number of frames the source claims, or None; never used to end.
        seconds_declared: length the source claims, or None; never used to end.
        time_base: seconds per tick of `Frame.pts`.
        colour: tags of the first frame.
        codec: as "h264", or "raw".
        decoder: who decodes it, "the CPU" or "NVDEC".
        path: the file on disk from which sound and subtitles can be copied, or None.
        notes: conversions done at the door, one sentence each ("10-bit reduced to 8-bit").
        pictures: the files of a source of pictures.
    """

    name: str
    live: bool
    width: int
    height: int
    fps_declared: Fraction | None
    frames_declared: int | None
    time_base: Fraction
    colour: ColourTags
    codec: str
    path: Path | None = None
    seconds_declared: float | None = None
    notes: tuple[str, ...] = ()
    pictures: tuple[Path, ...] = ()
    decoder: str = "the CPU"


class Source(ABC):
    """Yields frames. The constructor opens and checks; iteration reads; `close` frees.

    Attributes:
        info: facts, known before the first frame is asked for.
        counts: what happened on the way, by cause ("bad packets skipped": 3).
    """

    info: SourceInfo

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Frames in presentation order, `pts` strictly increasing. One pass per source.

        Raises:
            SourceError: if the source can't be read on. The normal end is just the end.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the source; safe from another thread while iterating, safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
