"""A video file as it is read: frames decoded, stamped and whole, the first of them at hand."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext

from nem.deinterlace import deinterlace
from stream.errors import SourceError
from stream.sources.container import Extent
from stream.sources.decode import SKIPPED, decode
from stream.sources.opening import open_container, video_stream
from stream.sources.planar import as_the_cpu
from stream.sources.stamps import Stamps


class Opened(NamedTuple):
    """An open file, its video track, and what decodes it."""

    container: InputContainer
    stream: av.VideoStream
    context: VideoCodecContext


def open_for_cpu(path: Path, name: str, extent: Extent) -> Opened:
    """Open a file to be decoded by the CPU.

    Raises:
        SourceError: see `open_container` and `video_stream`.
    """
    container = open_container(path, name, extent)
    try:
        stream = video_stream(container, name)
    except BaseException:
        container.close()
        raise
    return Opened(container, stream, stream.codec_context)


class Reading:
    """The frames of an open file, in order, each once. It owns the file.

    The constructor decodes the first frame.

    Args:
        name: of the source, for messages.
        opened: what is read; closed also if this raises.
        extent: what the file's outer structure tells.

    Attributes:
        counts: what was repaired or skipped, by cause.
        decoder: FFmpeg's decoder that PyAV opened the file with.
        time_base: seconds per tick of the frames' `pts`.
        fps: frames per second the file claims, or None.
        frames_declared: number of frames the file claims, or None.
        aspect: width : height of a stored pixel, or None.

    Raises:
        SourceError: if there is no frame.
    """

    def __init__(self, name: str, opened: Opened, extent: Extent) -> None:
        self._name, self._container = name, opened.container
        # Facts and not the stream, which would keep a decoder's GPU memory beyond `close`.
        stream = opened.stream
        self.counts: Counter[str] = Counter()
        self._failures: deque[av.FFmpegError] = deque(maxlen=1)
        self.decoder = stream.codec_context.codec
        self.time_base = stream.time_base or Fraction(1, 90000)
        self.fps: Fraction | None = stream.average_rate or stream.guessed_rate or None
        self.frames_declared: int | None = stream.frames or None
        self.aspect: Fraction | None = stream.sample_aspect_ratio
        try:
            self._frames = self._decode(opened, extent)
            self._ahead: av.VideoFrame | None = self._first(extent)
        except BaseException:
            self._container.close()
            raise

    @property
    def first(self) -> av.VideoFrame:
        """The first frame, as long as it has not been taken."""
        assert self._ahead is not None
        return self._ahead

    def take(self) -> av.VideoFrame | None:
        """The next frame, whole, its `pts` after the last one's; None at the end.

        Raises:
            SourceError: if the file can't be read on.
        """
        frame = self._ahead or next(self._frames, None)
        self._ahead = None
        return frame

    def close(self) -> None:
        """Close the file; frames that were taken stay valid. Not while one is taken."""
        self._ahead = None
        self._frames.close()
        self._container.close()

    def _decode(self, opened: Opened, extent: Extent) -> Generator[av.VideoFrame, None, None]:
        frames = decode(
            opened.container,
            opened.stream,
            opened.context,
            name=self._name,
            truncated=extent.missing > 0,
            counts=self.counts,
            failures=self._failures,
        )
        if opened.context.is_hwaccel:
            frames = as_the_cpu(frames, self._name)
        return deinterlace(self._stamped(frames), self.counts)

    def _stamped(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        stamps = Stamps(self.time_base, self.fps, self.counts)
        # AVI stores no times of showing. FFmpeg makes some up for H.264: a frame late, and back and
        # forth where there are B-frames.
        made_up = self._container.format.name == "avi" and self.decoder.canonical_name == "h264"
        for frame in frames:
            said = frame.dts if frame.pts is None or made_up else frame.pts
            frame.pts = stamps.next(said, frame.duration)
            yield frame

    def _first(self, extent: Extent) -> av.VideoFrame:
        frame = next(self._frames, None)
        if frame is not None:
            return frame
        bad = self.counts[SKIPPED]
        if extent.missing:
            raise SourceError(
                f"{self._name}: truncated before its first frame ({extent.missing} bytes missing); "
                "copy or download it again"
            )
        if extent.protection:
            raise SourceError(f"{self._name}: encrypted; decrypt the file first")
        if bad:
            raise SourceError(
                f"{self._name}: not one frame can be decoded ({bad} bad packets); the file is "
                "damaged or encrypted, check that a player shows it"
            ) from (self._failures[-1] if self._failures else None)
        raise SourceError(f"{self._name}: holds a video track without frames; nothing to explain")
