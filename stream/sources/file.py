"""Video files: every frame once, in order, with its true time stamp."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

import av

from engines.errors import EngineError
from nem.deinterlace import DEINTERLACED
from stream.errors import SourceError, UsageError
from stream.frame import Facts, Frame
from stream.gpu_frame import GpuFrame
from stream.redact import redact
from stream.sources import planar
from stream.sources.base import SourceInfo
from stream.sources.cuda import CudaUnavailable, read_on_cuda, surface_of
from stream.sources.door import SEE_THROUGH, Door
from stream.sources.extent import Extent
from stream.sources.opening import check_file
from stream.sources.pulled import PulledSource
from stream.sources.reading import Reading, open_for_cpu

TRUNCATED = "file is truncated"
CHANGED = "file changed size while it was read"
Decoder = Literal["auto", "cpu", "cuda"]
"""Who decodes: the CPU, an NVIDIA GPU, or the GPU where it was seen to give the CPU's frames."""


class FileSource(PulledSource):
    """A video file read with PyAV.

    Opening decodes the first frame, so a file that can't be read is refused here and all of
    `info` is known. Stamps stay in the stream's time base, strictly increasing, and variable
    frame rates stay variable. `counts` tells what was repaired or skipped.

    The GPU is the caller's choice and never the default. Frames decoded there stay there where
    torch is installed, which takes seconds to load, and the CPU has nothing to do to them (see
    `stream.gpu_frame`). Else they come down at once: 1.5 bytes per pixel (3 beyond 8 bits) over the
    bus, during which no other Python thread runs, and one more pass over them. That pays where
    decoding takes the CPU from other work, as with large HEVC or AV1 pictures, not with small ones.
    Frames, stamps and tags are those of the CPU; damage inside a picture is seen by the GPU alone,
    so `counts` may tell of less.

    Args:
        path: the file.
        decode: "cpu"; "cuda", an NVIDIA GPU or an error; or "auto", the GPU if it decodes the
            first frame of this file as the CPU does, else the CPU. `info.notes` tells what "auto"
            came to and why.

    Raises:
        UsageError: another `decode`.
        SourceError: if the file is missing, forbidden, empty, no video, encrypted, without
            pictures, or of an unknown codec, or the GPU asked for can't decode it.
    """

    def __init__(self, path: str | Path, *, decode: Decoder = "cpu") -> None:
        super().__init__()
        if decode not in get_args(Decoder):
            raise UsageError(f"decode {decode!r}: choose {', '.join(get_args(Decoder))}")
        self._path = Path(path)
        self._name = redact(str(path))
        extent = check_file(self._path, self._name)
        self._size = extent.size
        # Whatever is wrong with the file shows here, also where the GPU goes on reading it.
        cpu = Reading(self._name, open_for_cpu(self._path, self._name, extent), extent)
        self._video = cpu
        try:
            self._video, note = self._choose(cpu, extent, decode)
            self.counts = self._video.counts
            if extent.missing:
                self.counts[TRUNCATED] = 1
            codec = cpu.decoder.canonical_name
            self._door = Door(self._name, cpu.first, codec, cpu.aspect, self.counts)
            on_gpu = self._video is not cpu
            self.info = self._describe(codec, "NVDEC" if on_gpu else "the CPU", note)
            if on_gpu:
                cpu.close()
        except BaseException:
            cpu.close()
            self._video.close()
            raise
        self._index = 0

    def _choose(
        self, cpu: Reading, extent: Extent, decode: Decoder
    ) -> tuple[Reading, tuple[str, ...]]:
        """Who reads on, and what to tell of it."""
        if decode == "cpu":
            return cpu, ()
        try:
            cuda, where = read_on_cuda(self._path, self._name, extent, cpu)
        except CudaUnavailable as error:
            if decode == "cuda":
                raise SourceError(
                    f"{self._name}: can't be decoded on the GPU: {error}; or use --decode cpu"
                ) from error
            return cpu, (f"decoded by the CPU: {error}",)
        return cuda, (f"frames decoded by the GPU (NVDEC), the first as by the CPU; {where}",)

    def _read(self) -> Frame | None:
        frame = self._video.take()
        if frame is None:
            # FFmpeg ends where a file was cut, or is not copied here yet, as at a proper end.
            with suppress(OSError):  # one that was deleted is read whole
                if self._path.stat().st_size != self._size:
                    self.counts[CHANGED] = 1
            return None
        captured_at = time.monotonic()
        index, self._index = self._index, self._index + 1
        assert frame.pts is not None  # set in `Reading`
        times = frame.pts, self.info.time_base, captured_at
        facts = index, *times, self._door.colour, frame.duration or None, None
        if planar.is_up(frame):
            if self._door.passes(frame):
                return self._on_gpu(frame, facts)
            frame = planar.come_down(frame, self._name)
        y, u, v = self._door.planes(frame)
        return Frame(y, u, v, *facts)

    def _on_gpu(self, frame: av.VideoFrame, facts: Facts) -> Frame:
        try:
            return GpuFrame(surface_of(frame), *facts)
        except EngineError as error:
            raise SourceError(f"{self._name}: {error}") from error

    def _free(self) -> None:
        self._video.close()

    def _describe(self, codec: str, decoder: str, note: tuple[str, ...]) -> SourceInfo:
        notes = self._door.notes
        if self._video.alpha and SEE_THROUGH not in notes:
            notes += (SEE_THROUGH,)
        if self.counts[DEINTERLACED]:
            notes += ("interlaced fields joined to whole frames",)
        return SourceInfo(
            name=self._name,
            live=False,
            width=self._door.width,
            height=self._door.height,
            fps_declared=self._video.fps,
            frames_declared=self._video.frames_declared,
            seconds_declared=self._video.seconds_declared,
            time_base=self._video.time_base,
            colour=self._door.colour,
            codec=codec,
            path=self._path,
            notes=(*notes, *note),
            decoder=decoder,
        )
