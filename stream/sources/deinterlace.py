"""Interlaced frames made whole, one for one, from the first that says it is interlaced."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator

import av
from av.filter import Graph

DEINTERLACED = "interlaced frames made whole"


def deinterlace(
    frames: Iterable[av.VideoFrame], counts: Counter[str]
) -> Generator[av.VideoFrame, None, None]:
    """Pass frames on; interlaced ones go through FFmpeg's bwdif, which needs one frame ahead.

    As many frames come out as go in, with the same `pts`.
    """
    graph: _Bwdif | None = None
    for frame in frames:
        # The filter takes no pictures smaller than this (bwdif: 3 columns, 4 lines).
        flagged = frame.interlaced_frame and frame.width >= 3 and frame.height >= 4
        counts.update({DEINTERLACED: 1} if flagged else {})
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
        self._stamps: deque[int | None] = deque()
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
        self._stamps.append(frame.pts)
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
            # The filter counts in half ticks; the stamps are known better here.
            frame.pts = self._stamps.popleft()
            yield frame


def _key(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
