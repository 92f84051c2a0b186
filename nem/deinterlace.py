"""Interlaced frames made whole, one for one, from the first that says it is interlaced."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator

import av
from av.filter import Graph

DEINTERLACED = "interlaced frames made whole"
UNSTATED = 2, 0
"""FFmpeg's numbers of a colour matrix and a range that are not stated."""


def deinterlace(
    frames: Iterable[av.VideoFrame], counts: Counter[str]
) -> Generator[av.VideoFrame, None, None]:
    """Pass frames on; interlaced ones go through FFmpeg's bwdif, which needs one frame ahead.

    As many frames come out as go in, with the same `pts`.
    """
    graph: _Bwdif | None = None
    for frame in frames:
        flagged = frame.interlaced_frame and _large_enough(frame)
        if flagged:
            counts[DEINTERLACED] += 1
        if graph is not None and not graph.fits(frame):
            yield from graph.finish()
            graph = None
        if graph is None and flagged:
            graph = _Bwdif(frame)
        if graph is None:
            yield frame
        else:
            yield from graph.push(frame)
    if graph is not None:
        yield from graph.finish()


class _Bwdif:
    """One filter graph for frames of one size and format."""

    def __init__(self, frame: av.VideoFrame) -> None:
        self._key = _key(frame)
        self._facts: deque[tuple[int | None, int, int, int]] = deque()
        graph = Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        # One frame per frame, not per field; progressive frames in between pass untouched.
        whole = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        graph.link_nodes(source, whole, graph.add("buffersink")).configure()
        self._graph = graph

    def fits(self, frame: av.VideoFrame) -> bool:
        return _key(frame) == self._key

    def push(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        # Pixels that the filter does not take are converted by the graph, their values as they are
        # where it is told of no matrix and range. The stamps it counts in half ticks.
        facts = frame.pts, frame.duration, frame.colorspace, frame.color_range
        self._facts.append(facts)
        frame.colorspace, frame.color_range = UNSTATED
        self._graph.vpush(frame)
        yield from self._pull()

    def finish(self) -> Iterator[av.VideoFrame]:
        self._graph.vpush(None)
        yield from self._pull()

    def _pull(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                frame = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            facts = self._facts.popleft()
            frame.pts, frame.duration, frame.colorspace, frame.color_range = facts
            yield frame


def _large_enough(frame: av.VideoFrame) -> bool:
    """Whether the smallest plane has what the filter takes (bwdif: 3 columns, 4 lines)."""
    pixels = frame.format
    return pixels.chroma_width(frame.width) >= 3 and pixels.chroma_height(frame.height) >= 4


def _key(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
