"""The video encoder: chosen and tried once, fed with frames."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import numpy as np
from av.codec.codec import Capabilities
from av.container import OutputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.plane import VideoPlane
from av.video.stream import VideoStream

from stream.colour import Matrix
from stream.errors import SinkError, UsageError
from stream.frame import Frame, Plane
from stream.sinks.containers import holds_encoder
from stream.sinks.nvenc import NVENC, nvenc_options, nvenc_trouble

FAST: dict[str, tuple[str | None, int]] = {
    "libx264": ("ultrafast", 20),
    "libx265": ("ultrafast", 24),
    "libvpx": (None, 10),
}
"""Preset and crf where none are given: fastest, and good enough to see no difference."""
ALWAYS = {"libx265": {"x265-params": "log-level=error"}, "libvpx": {"b": "100000000"}}
"""x265 writes some 20 lines to stderr each time it opens unless told not to; VP8 stays below a
bit rate whatever the crf, and that is 256 kbit/s unless told otherwise."""
MAX_CRF = 51
HEVC = frozenset({"libx265", "hevc_nvenc"})
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
USUAL_FPS = Fraction(30)
MAX_FPS = 1000
LONGEST = 3600
"""Seconds a frame is believed to be shown; MP4 has 32 bits of ticks and refuses what needs more."""
TRIAL_SIZE = (256, 256)
AUTO = "auto"
GPU_FIRST = ("h264_nvenc", "libx264")
"""What `AUTO` tries."""


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """An encoder that is known to work here.

    Attributes:
        codec: FFmpeg's name, as "libx264".
        options: its options, as {"crf": "20"}.
        notes: what was chosen and why, if it was not the caller's choice.
    """

    codec: str
    options: dict[str, str]
    notes: tuple[str, ...] = ()


class EncoderUnable(SinkError):  # noqa: N818 - a state, told by its name
    """An encoder that does not work on this machine.

    Attributes:
        reason: why not, with the cure.
    """

    def __init__(self, codec: str, reason: str) -> None:
        super().__init__(f"encoder {codec}: {reason}; or take libx264")
        self.reason = reason


def choose_encoder(
    codec: str,
    preset: str | None,
    crf: float | None,
    container: str = "mp4",
    size: tuple[int, int] | None = None,
) -> EncoderChoice:
    """Check that the encoder exists, takes 8-bit 4:2:0 and the options, and works.

    One of the CPU is opened; one of a GPU has to encode a frame.

    Args:
        codec: FFmpeg's name of the encoder; "auto" is h264_nvenc where that works, else libx264.
        preset: speed; None for the default of x264, x265 and NVENC, or none at all for others.
        crf: constant quality, lower is better; None as for `preset`. With NVENC its `cq`.
        container: FFmpeg's name of the format that will hold the video.
        size: (width, height) of the frames to come, as far as known: GPUs have limits.

    Raises:
        UsageError: if there is no such encoder, or not with these options.
        SinkError: if it does not work on this machine.
    """
    if codec == AUTO:
        return _choose_auto(preset, crf, container, size)
    try:
        found = av.Codec(codec, "w")
    except ValueError:
        raise UsageError(f"encoder {codec}: not in this FFmpeg; libx264 always is") from None
    formats = [f.name for f in getattr(found, "video_formats", None) or ()]
    if found.type != "video" or (formats and "yuv420p" not in formats):
        raise UsageError(f"encoder {codec}: does not encode 8-bit 4:2:0 video; try libx264")
    if codec in NVENC:
        options = nvenc_options(codec, preset, crf)
    else:
        options = _cpu_options(codec, preset, crf)
    if codec == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only; it has no option for it
    _try(codec, options, even(size or TRIAL_SIZE), encode=_is_hardware(found))
    if not holds_encoder(container, codec, options):
        raise UsageError(f"encoder {codec}: its video can't be stored in {container}; try .mkv")
    return EncoderChoice(codec, options)


def _choose_auto(
    preset: str | None, crf: float | None, container: str, size: tuple[int, int] | None
) -> EncoderChoice:
    if preset is not None or crf is not None:
        raise UsageError(
            f"encoder {AUTO}: preset and crf have another scale in each encoder; leave them out, "
            f"or name one: {', '.join(GPU_FIRST)}"
        )
    on_gpu, on_cpu = GPU_FIRST
    try:
        choice = choose_encoder(on_gpu, None, None, container, size)
    except EncoderUnable as error:
        choice = choose_encoder(on_cpu, None, None, container, size)
        return replace(choice, notes=(f"encoded by {on_cpu}, not {on_gpu}: {error.reason}",))
    return replace(choice, notes=(f"encoded by {on_gpu}",))


def _cpu_options(codec: str, preset: str | None, crf: float | None) -> dict[str, str]:
    if codec in FAST and crf is not None and not 0 <= crf <= MAX_CRF:
        raise UsageError(f"encoder {codec}: crf {crf}; choose 0 (best) .. {MAX_CRF} (smallest)")
    usual_preset, usual_crf = FAST.get(codec, (None, None))
    chosen = {"preset": preset or usual_preset, "crf": usual_crf if crf is None else crf}
    wished = {name: str(value) for name, value in chosen.items() if value is not None}
    return wished | ALWAYS.get(codec, {})


def _try(codec: str, options: dict[str, str], size: tuple[int, int], *, encode: bool) -> None:
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.framerate, context.time_base = USUAL_FPS, 1 / USUAL_FPS
    context.options = dict(options)
    try:
        context.open()
        works = not encode or _encodes(context)
    except (av.FFmpegError, OSError) as error:
        if codec in NVENC:
            raise EncoderUnable(codec, nvenc_trouble(codec, size, error)) from error
        if size != TRIAL_SIZE:
            _try(codec, options, TRIAL_SIZE, encode=encode)  # raises unless it is the size
            raise SinkError(
                f"encoder {codec}: takes no pictures of {size[0]}x{size[1]} ({error.strerror}); "
                "libx264 takes sides up to 16384, ffv1 with .mkv all"
            ) from error
        wished = [f"{name} {options[name]}" for name in ("preset", "crf") if name in options]
        said = ", ".join(wished) or "no options"
        raise SinkError(
            f"encoder {codec} with {said}: does not open here ({error.strerror}); try libx264 "
            "and its own presets (ultrafast .. veryslow) and crf (0 .. 51)"
        ) from error
    if unknown := [name for name in options if name in context.options]:
        raise UsageError(f"encoder {codec}: has no option {' or '.join(unknown)}; leave it out")
    if not works:
        raise EncoderUnable(codec, "opens here, but encodes nothing")


def _encodes(context: VideoCodecContext) -> bool:
    """Whether a grey frame comes out as a packet."""
    picture = av.VideoFrame(context.width, context.height, "yuv420p")
    for plane in picture.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    picture.pts, picture.time_base = 0, context.time_base
    packets = [*context.encode(picture), *context.encode(None)]
    return any(packet.size for packet in packets)


def _is_hardware(codec: av.Codec) -> bool:
    return bool(codec.capabilities & Capabilities.hardware)


def even(size: tuple[int, int]) -> tuple[int, int]:
    """What the encoder gets for frames of this size: even sides."""
    return size[0] + size[0] % 2, size[1] + size[1] % 2


class VideoEncoder:
    """Encodes frames of one size into a stream of `out`.

    Args:
        out: container to add the stream to.
        choice: what to encode with.
        first: the first frame; gives size, time base and colour tags.
        fps: about how many frames come per second, or None; only a hint for rate control, time
            stamps are the frames' own.
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
            time_base=first.time_base,
        )
        assert isinstance(stream, VideoStream)
        self._stream = stream
        stream.time_base = first.time_base
        context = stream.codec_context
        context.thread_count = 1
        inside = context.codec.canonical_name
        kept = inside in RANGE_INSIDE or out.format.name == "matroska"
        full = first.colour.full_range
        self._to_limited = full and (not kept or inside in LIMITED_ONLY)
        context.color_range = 2 if full and not self._to_limited else 1
        context.colorspace = FFMPEG_MATRIX[first.colour.matrix]
        context.color_primaries = first.colour.primaries
        context.color_trc = first.colour.transfer
        if choice.codec in HEVC and out.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # what Apple's players ask for
        self._picture = av.VideoFrame(width, height, "yuv420p")
        self._frames = 0
        self._last = first.pts - max(1, round(1 / (rate * first.time_base)))
        self._shown: dict[int | None, int] = {}  # by time stamp: encoders forget how long

    def encode(self, frame: Frame) -> list[Packet[VideoStream]]:
        """Encode one frame; an odd side is evened by repeating its last line.

        Raises:
            SinkError: if the frame has another size than the first.
        """
        if (frame.width, frame.height) != self.size:
            raise SinkError(
                f"frame {frame.index} is {frame.width}x{frame.height} after "
                f"{self.size[0]}x{self.size[1]}: a file keeps one size; write two files"
            )
        self._picture.make_writable()
        planes = frame.y, frame.u, frame.v
        if self._to_limited:
            planes = LUMA_LIMITED[frame.y], CHROMA_LIMITED[frame.u], CHROMA_LIMITED[frame.v]
        for target, plane in zip(self._picture.planes, planes, strict=True):
            _fill(target, plane)
        gap, self._last = frame.pts - self._last, frame.pts
        self._frames += 1
        self._picture.pts, self._picture.time_base = frame.pts, frame.time_base
        self._shown[frame.pts] = min(frame.duration or gap, int(LONGEST / frame.time_base))
        return self._timed(self._picture)

    def flush(self) -> list[Packet[VideoStream]]:
        """The packets still inside."""
        packets = self._timed(None)
        if self._frames <= 2:  # x265 makes up wild decoding times for fewer frames than its delay
            for packet in packets:
                packet.dts = packet.pts
        return packets

    def _timed(self, picture: av.VideoFrame | None) -> list[Packet[VideoStream]]:
        packets = list(self._stream.encode(picture))
        for packet in packets:
            packet.duration = self._shown.pop(packet.pts, 0)
        return packets


def _fill(target: VideoPlane, plane: Plane) -> None:
    image = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
    rows, columns = plane.shape
    image[:rows, :columns] = plane
    if columns < target.width:
        image[:rows, columns : target.width] = plane[:, -1:]
    if rows < target.height:
        image[rows : target.height] = image[rows - 1]
