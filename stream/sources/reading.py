"""A video file as it is read: frames decoded, stamped and whole, the first of them at hand.

Bad packets are skipped and counted, and the end is what the demuxer says, not the decoder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from nem.deinterlace import deinterlace
from stream.errors import SourceError
from stream.sources.extent import Extent
from stream.sources.opening import open_container, video_stream
from stream.sources.planar import as_the_cpu
from stream.sources.stamps import Stamps
from stream.sources.timeline import Timeline

BAD_RUN = 300
"""Bad packets in a row after which a file can't be read on."""
SKIPPED = "bad packets skipped"
DAMAGED = "damaged frames delivered as well as could be"
RESHAPED = "changes of pixel aspect not followed"


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
        alpha: True where WebM keeps transparency apart from the pictures, for decoders to leave.
        seconds_declared: length the file claims, or None.
        aspect: width : height of a stored pixel, or None.

    Raises:
        SourceError: if there is no frame.
    """

    def __init__(self, name: str, opened: Opened, extent: Extent) -> None:
        self._name, self._extent, self._container = name, extent, opened.container
        # Facts and not the stream, which would keep a decoder's GPU memory beyond `close`.
        stream = opened.stream
        self.counts: Counter[str] = Counter()
        self._failure: av.FFmpegError | None = None  # what FFmpeg said of the last packet skipped
        self.decoder = stream.codec_context.codec
        self.time_base = stream.time_base or Fraction(1, 90000)
        self.fps: Fraction | None = stream.average_rate or stream.guessed_rate or None
        self.frames_declared: int | None = stream.frames or None
        self.alpha = stream.metadata.get("ALPHA_MODE", stream.metadata.get("alpha_mode")) == "1"
        length = (stream.duration or 0) * self.time_base  # Matroska tells only that of all tracks
        self.seconds_declared = float(length) or (opened.container.duration or 0) / 1e6 or None
        self.aspect: Fraction | None = stream.sample_aspect_ratio
        try:
            self._frames = self._whole(opened)
            self._ahead: av.VideoFrame | None = self._first()
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

    def _whole(self, opened: Opened) -> Generator[av.VideoFrame, None, None]:
        frames = self._decoded(opened)
        if opened.context.is_hwaccel:
            frames = as_the_cpu(frames, self._name)
        return deinterlace(self._stamped(frames), self.counts)

    def _stamped(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        stamps: Stamps[av.VideoFrame] = Stamps(
            self.time_base, self.fps, self.counts, start=self._container.start_time
        )
        # AVI stores no times of showing. FFmpeg makes some up for H.264: a frame late, and back and
        # forth where there are B-frames.
        made_up = self._container.format.name == "avi" and self.decoder.canonical_name == "h264"
        try:
            for frame in frames:
                said = frame.dts if frame.pts is None or made_up else frame.pts
                yield from _marked(stamps.take(frame, said, frame.duration))
        except SourceError:
            yield from _marked(stamps.flush())  # came before what can't be read
            raise
        yield from _marked(stamps.flush())

    def _decoded(self, opened: Opened) -> Iterator[av.VideoFrame]:
        """Every frame once, in the order of showing."""
        context = opened.context
        context.thread_type = "SLICE"
        context.thread_count = 1  # more only moves the waiting: the engine has all cores
        bad, last = 0, None
        aspect: Fraction | int | None = None
        for packet in self._packets(opened):
            try:
                frames = context.decode(packet)
            except av.FFmpegError as error:
                bad += 1
                self.counts[SKIPPED] += 1
                self._failure = error.with_traceback(None)  # which would hold the decoder
                if bad >= BAD_RUN:
                    raise self._unreadable(bad, last, error, gpu=context.is_hwaccel) from error
                continue
            for frame in frames:
                bad, last = 0, frame.time
                if frame.is_corrupt:
                    self.counts[DAMAGED] += 1
                before, aspect = aspect, context.sample_aspect_ratio or 1  # no frame tells its own
                if before not in (None, aspect):
                    self.counts[RESHAPED] += 1
                yield frame

    def _packets(self, opened: Opened) -> Iterator[Packet[av.VideoStream] | None]:
        """All packets, and a last one (or None) that makes the decoder give all it has."""
        bad, timeline = 0, Timeline(opened.container, self.counts)
        while True:
            try:
                for packet in timeline.demux([opened.stream]):
                    bad = 0
                    yield packet
                return
            except av.FFmpegError as error:
                if self._extent.missing:
                    break  # where the file was cut off
                bad += 1
                self.counts[SKIPPED] += 1
                if bad >= BAD_RUN:
                    raise self._unreadable(bad, None, error) from error
        yield None

    def _unreadable(
        self, bad: int, last: float | None, error: av.FFmpegError, *, gpu: bool = False
    ) -> SourceError:
        cure = "try to repair it with: ffmpeg -err_detect ignore_err -i IN -c copy OUT"
        why = f"the file is damaged, {cure}"
        if gpu:
            why = "the GPU does not take what comes there, or the file is damaged; use --decode cpu"
        where = "" if last is None else f" after {last:.2f} s"
        what = f"{bad} bad packets in a row{where} ({error.strerror})"
        return SourceError(f"{self._name}: {what}; {why}")

    def _first(self) -> av.VideoFrame:
        frame = next(self._frames, None)
        if frame is not None:
            return frame
        bad = self.counts[SKIPPED]
        if self._extent.missing:
            raise SourceError(
                f"{self._name}: truncated before its first frame ({self._extent.missing} bytes "
                "missing); copy or download it again"
            )
        if self._extent.protection:
            raise SourceError(f"{self._name}: encrypted; decrypt the file first")
        if bad:
            raise SourceError(
                f"{self._name}: not one frame can be decoded ({bad} bad packets); the file is "
                "damaged or encrypted, check that a player shows it"
            ) from self._failure
        raise SourceError(f"{self._name}: holds a video track without frames; nothing to explain")


def _marked(ready: list[tuple[av.VideoFrame, int]]) -> Iterator[av.VideoFrame]:
    for frame, stamp in ready:
        frame.pts = stamp
        yield frame
