"""Frames encoded into a stream of a video file."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import CudaContext
from av.video.plane import VideoPlane
from av.video.stream import VideoStream

from engines.cpu import usable_cores
from stream.colour import Matrix
from stream.errors import SinkError
from stream.frame import Frame, Plane
from stream.gpu_frame import GpuFrame
from stream.sinks.encoder import USUAL_FPS, EncoderChoice, even
from stream.sinks.nvenc import NVENC

if TYPE_CHECKING:
    from engines.surface import Surface

FFMPEG_MATRIX: dict[Matrix, int] = {"bt601": 6, "bt709": 1, "bt2020": 9}
"""FFmpeg's numbers of the YUV matrices."""
LIMITED_ONLY = frozenset({"vp8", "mpeg1video", "mpeg2video"})
"""Codecs whose decoders take every picture for limited range."""
RANGE_INSIDE = frozenset({"h264", "hevc", "av1", "vp9"})
"""Codecs that tell the range themselves; of others MP4 and MOV lose it, Matroska keeps it."""
LUMA_LIMITED, CHROMA_LIMITED = (
    np.rint(at + (np.arange(256) - at_full) * share / 255).astype(np.uint8)
    for at, at_full, share in ((16, 0, 219), (128, 128, 224))
)
"""Levels of full range in limited range."""
MAX_FPS = 1000
LONGEST = 3600
"""Seconds a frame is believed to be shown; MP4 has 32 bits of ticks and refuses what needs more."""
SLOWEST = 20
"""Frames per second: MPEG-1 and MPEG-2 know some rates and no others; MPEG-1 by its standard none
below."""
ON_GPU, LAYOUT = "cuda", "nv12"
"""What FFmpeg calls a picture on a GPU, and its layout there."""
COPIES = frozenset({"libx264"})
"""Encoders that make a copy of each picture, of any alignment, before they return."""
MPEG4_TICKS = 2**16 - 1
"""Of a second at most."""
MOST_THREADS = 8
"""Of an encoder: at the usual preset four keep up with decoding and drawing, slow ones use more."""


class VideoEncoder:
    """Encodes frames of one size into a stream of `out`.

    Args:
        out: container to add the stream to.
        choice: what to encode with.
        first: the first frame; gives size, time base and colour tags.
        fps: about how many frames come per second, or None; only a hint for rate control, time
            stamps are the frames' own.

    Attributes:
        on_gpu: whether pictures on a GPU are taken where they are.
    """

    def __init__(
        self, out: OutputContainer, choice: EncoderChoice, first: Frame, fps: Fraction | None
    ) -> None:
        self.size = (first.width, first.height)
        width, height = even(self.size)
        rate = fps if fps and 0 < fps <= MAX_FPS else USUAL_FPS
        stream = out.add_stream(
            choice.codec,
            rate=rate,
            options=choice.options,
            width=width,
            height=height,
        )
        assert isinstance(stream, VideoStream)
        self._stream = stream
        stream.time_base = self._time_base = first.time_base
        self._longest = int(LONGEST / first.time_base)
        context = stream.codec_context
        context.thread_type, context.thread_count = "FRAME", _threads()
        self._steady = _steady_clock(context.codec, first.time_base, rate)
        context.time_base = self._steady or first.time_base
        inside = context.codec.canonical_name
        kept = inside in RANGE_INSIDE or out.format.name == "matroska"
        full = first.colour.full_range
        self._to_limited = full and (not kept or inside in LIMITED_ONLY)
        context.color_range = 2 if full and not self._to_limited else 1
        context.colorspace = FFMPEG_MATRIX[first.colour.matrix]
        context.color_primaries = first.colour.primaries
        context.color_trc = first.colour.transfer
        if inside == "hevc" and out.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # what Apple's players ask for
        self._cuda: CudaContext | None = None
        self.on_gpu = isinstance(first, GpuFrame) and choice.codec in NVENC
        if self.on_gpu:
            context.pix_fmt = ON_GPU
            self._cuda = CudaContext(primary_ctx=False, current_ctx=True)
        self._picture = av.VideoFrame(width, height, "yuv420p")
        fits = (width, height) == self.size and height % 4 == 0  # PyAV cuts off what is over
        self._wraps = fits and choice.codec in COPIES and not self._to_limited
        self._frames = 0
        self._last = first.pts - max(1, round(1 / (rate * first.time_base)))
        # By the encoder's time stamp: the frame's own, and how long it is shown.
        self._shown: dict[int | None, tuple[int, int]] = {}

    def encode(self, frame: Frame) -> list[Packet[VideoStream]]:
        """Encode one frame; an odd side is evened by repeating its last line.

        Raises:
            SinkError: if the frame has another size than the first.
        """
        if (frame.width, frame.height) != self.size:
            raise SinkError(
                f"{frame.file or f'frame {frame.index}'} is {frame.width}x{frame.height} after "
                f"{self.size[0]}x{self.size[1]}: a video has one size; write one for each"
            )
        if self._cuda is not None and isinstance(frame, GpuFrame):
            picture = self._where_it_is(frame.surface)
        else:
            picture = self._filled(frame)
        gap, self._last = frame.pts - self._last, frame.pts
        stamp = self._frames if self._steady else frame.pts
        self._frames += 1
        picture.pts, picture.time_base = stamp, self._steady or frame.time_base
        self._shown[stamp] = frame.pts, min(frame.duration or gap, self._longest)
        return self._timed(picture)

    def _where_it_is(self, surface: Surface) -> av.VideoFrame:
        """A picture on the GPU as FFmpeg takes it; it keeps the surface's memory."""
        with surface.complete():
            planes = surface.y, surface.uv
            return av.VideoFrame.from_dlpack(planes, LAYOUT, cuda_context=self._cuda)

    def _filled(self, frame: Frame) -> av.VideoFrame:
        if self._wraps and (whole := frame.buffer) is not None:
            return av.VideoFrame.from_numpy_buffer(whole.reshape(-1, frame.width), "yuv420p")
        self._picture.make_writable()
        planes = frame.y, frame.u, frame.v
        if self._to_limited:
            planes = LUMA_LIMITED[frame.y], CHROMA_LIMITED[frame.u], CHROMA_LIMITED[frame.v]
        for target, plane in zip(self._picture.planes, planes, strict=True):
            _fill(target, plane)
        return self._picture

    def flush(self) -> list[Packet[VideoStream]]:
        """The packets still inside."""
        packets = self._timed(None)
        if self._frames <= 2:  # x265 makes up wild decoding times for fewer frames than its delay
            for packet in packets:
                packet.dts = packet.pts
        return packets

    def close(self) -> None:
        """Let go of the GPU; nothing can be encoded any more.

        Not left to the garbage collector: PyAV's context fails where that takes it apart.
        """
        self._cuda = None

    def _timed(self, picture: av.VideoFrame | None) -> list[Packet[VideoStream]]:
        packets = list(self._stream.encode(picture))
        for packet in packets:
            stamp, packet.duration = self._shown.pop(packet.pts, (packet.pts, 0))
            if self._steady:  # such encoders keep the order of frames
                packet.pts = packet.dts = stamp
                packet.time_base = self._time_base
        return packets


def _threads() -> int:
    """One on two cores, where more would only move the waiting; of more cores half."""
    return max(1, min(MOST_THREADS, usable_cores() // 2))


def _steady_clock(codec: av.Codec, time_base: Fraction, rate: Fraction) -> Fraction | None:
    """Seconds per frame for an encoder that can't have the frames' own clock; None if it can."""
    if codec.frame_rates:
        known = (Fraction(usual.num, usual.den) for usual in codec.frame_rates)
        return 1 / min((r for r in known if r >= SLOWEST), key=lambda usual: abs(usual - rate))
    if codec.name == "mpeg4" and time_base.denominator > MPEG4_TICKS:
        return (1 / rate).limit_denominator(MPEG4_TICKS)
    return None


def _fill(target: VideoPlane, plane: Plane) -> None:
    image = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
    rows, columns = plane.shape
    image[:rows, :columns] = plane
    if columns < target.width:
        image[:rows, columns : target.width] = plane[:, -1:]
    if rows < target.height:
        image[rows : target.height] = image[rows - 1]
