"""Video files: every frame once, in order, with its true time stamp."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path

import av

from stream.errors import SourceError
from stream.frame import Frame
from stream.sources.base import SourceInfo
from stream.sources.container import Extent
from stream.sources.decode import SKIPPED, decode
from stream.sources.deinterlace import DEINTERLACED, deinterlace
from stream.sources.door import Door
from stream.sources.names import redact
from stream.sources.opening import check_file, open_container, video_stream
from stream.sources.pulled import PulledSource
from stream.sources.stamps import Stamps

TRUNCATED = "file is truncated"


class FileSource(PulledSource):
    """A video file read with PyAV.

    Opening decodes the first frame, so a file that can't be read is refused here and all of
    `info` is known. Stamps stay in the stream's time base, strictly increasing, and variable
    frame rates stay variable. `counts` tells what was repaired or skipped.

    Args:
        path: the file.

    Raises:
        SourceError: if the file is missing, forbidden, empty, no video, encrypted, without
            pictures, or of an unknown codec.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._path = Path(path)
        self._name = redact(str(path))
        extent = check_file(self._path, self._name)
        if extent.missing:
            self.counts[TRUNCATED] = 1
        self._container = open_container(self._path, self._name, extent)
        try:
            self._stream = video_stream(self._container, self._name)
            self._decoded = self._decode(extent)
            first = self._first(extent)
            context = self._stream.codec_context
            codec = context.codec.canonical_name
            aspect = self._stream.sample_aspect_ratio
            self._door = Door(self._name, first, codec, aspect, self.counts)
            self._ahead: av.VideoFrame | None = first
            self.info = self._describe(codec, first)
        except BaseException:
            self._container.close()
            raise
        self._index = 0

    def _read(self) -> Frame | None:
        frame = self._ahead or next(self._decoded, None)
        self._ahead = None
        if frame is None:
            return None
        captured_at = time.monotonic()
        y, u, v = self._door.planes(frame)
        index, self._index = self._index, self._index + 1
        assert frame.pts is not None  # set in `_stamped`
        base = self.info.time_base
        return Frame(y, u, v, index, frame.pts, base, captured_at, self._door.colour)

    def _free(self) -> None:
        self._ahead = None
        self._decoded.close()
        self._container.close()

    def _decode(self, extent: Extent) -> Generator[av.VideoFrame, None, None]:
        frames = decode(
            self._container,
            self._stream,
            name=self._name,
            truncated=extent.missing > 0,
            counts=self.counts,
        )
        return deinterlace(self._stamped(frames), self.counts)

    def _stamped(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        stamps = Stamps(self._time_base, self._fps, self.counts)
        for frame in frames:
            said = frame.dts if frame.pts is None else frame.pts
            frame.pts = stamps.next(said, frame.duration)
            yield frame

    def _first(self, extent: Extent) -> av.VideoFrame:
        frame = next(self._decoded, None)
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
            )
        raise SourceError(f"{self._name}: holds a video track without frames; nothing to explain")

    @property
    def _time_base(self) -> Fraction:
        return self._stream.time_base or Fraction(1, 90000)

    @property
    def _fps(self) -> Fraction | None:
        return self._stream.average_rate or self._stream.guessed_rate or None

    def _describe(self, codec: str, first: av.VideoFrame) -> SourceInfo:
        notes = self._door.notes
        if self.counts[DEINTERLACED]:
            notes += ("interlaced fields joined to whole frames",)
        return SourceInfo(
            name=self._name,
            live=False,
            width=self._door.width,
            height=self._door.height,
            fps_declared=self._fps,
            frames_declared=self._stream.frames or None,
            time_base=self._time_base,
            colour=self._door.colour,
            codec=codec,
            path=self._path,
            notes=notes,
        )
