"""Packets to decoded frames: bad ones skipped and counted, the end only from the demuxer."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from stream.errors import SourceError
from stream.sources.timeline import Timeline

BAD_RUN = 300
SKIPPED = "bad packets skipped"
DAMAGED = "damaged frames delivered as well as could be"
RESHAPED = "changes of pixel aspect not followed"


def decode(
    container: InputContainer,
    stream: av.VideoStream,
    context: VideoCodecContext,
    *,
    name: str,
    truncated: bool,
    counts: Counter[str],
    failures: deque[av.FFmpegError],
) -> Iterator[av.VideoFrame]:
    """Every frame of `stream` once, in presentation order.

    Args:
        container: open input.
        stream: its video stream.
        context: decodes it; not open yet.
        name: of the source, for messages.
        truncated: True if the file is known to end early; then a read error is its end.
        counts: where skipped packets and damaged frames are counted.
        failures: where what FFmpeg said of skipped packets is kept.

    Raises:
        SourceError: after `BAD_RUN` bad packets in a row.
    """
    context.thread_type = "SLICE"
    context.thread_count = 1  # more only moves the waiting: the engine has all cores
    bad, last = 0, None
    aspect: Fraction | int = 0
    for packet in _packets(container, stream, name, truncated, counts):
        try:
            frames = context.decode(packet)
        except av.FFmpegError as error:
            bad += 1
            counts[SKIPPED] += 1
            failures.append(error.with_traceback(None))  # which would hold the decoder
            if bad >= BAD_RUN:
                raise _unreadable(name, bad, last, error, gpu=context.is_hwaccel) from error
            continue
        for frame in frames:
            bad, last = 0, frame.time
            if frame.is_corrupt:
                counts[DAMAGED] += 1
            before, aspect = aspect, context.sample_aspect_ratio or 1  # frames don't tell theirs
            if before not in (0, aspect):
                counts[RESHAPED] += 1
            yield frame


def _packets(
    container: InputContainer,
    stream: av.VideoStream,
    name: str,
    truncated: bool,
    counts: Counter[str],
) -> Iterator[Packet[av.VideoStream] | None]:
    """Packets of `stream`, and a last one (or None) that makes the decoder give all it has."""
    bad, timeline = 0, Timeline(container, counts)
    timeline.discard_all_but([stream])
    while True:
        try:
            for packet in timeline.demux([stream]):
                bad = 0
                yield packet
            return
        except av.FFmpegError as error:
            if truncated:
                break
            bad += 1
            counts[SKIPPED] += 1
            if bad >= BAD_RUN:
                raise _unreadable(name, bad, None, error) from error
    yield None


def _unreadable(
    name: str, bad: int, last: float | None, error: av.FFmpegError, *, gpu: bool = False
) -> SourceError:
    where = "" if last is None else f" after {last:.2f} s"
    cure = (
        "the GPU does not take what comes there, or the file is damaged; use --decode cpu"
        if gpu
        else "the file is damaged, "
        "try to repair it with: ffmpeg -err_detect ignore_err -i IN -c copy OUT"
    )
    return SourceError(f"{name}: {bad} bad packets in a row{where} ({error.strerror}); {cure}")
