"""Encoders of video: one is chosen and tried once."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from fractions import Fraction

import av
from av.codec.codec import Capabilities
from av.video.codeccontext import VideoCodecContext

from stream.errors import SinkError, UsageError
from stream.sinks.containers import holds_encoder
from stream.sinks.nvenc import NVENC, nvenc_options, nvenc_trouble

ULTRAFAST = "ultrafast"
FAST: dict[str, tuple[str | None, int]] = {
    "libx264": (ULTRAFAST, 20),
    "libx265": (ULTRAFAST, 24),
    "libvpx": (None, 10),
}
"""Preset and crf where none are given: fastest, and good enough to see no difference."""
X264_FASTEST = {"preset": ULTRAFAST, "qp": "25", "me_range": "4"}
"""x264 at its fastest preset where no crf is given: one quantiser for all frames. To keep a crf it
measures each picture, a good part of its time there, gives still scenes more bits than the eye
needs and moving ones fewer. 25 is the coarsest at which recordings that move look as at crf 20, in
the mean and in their worst frames. Motion is looked for up to 4 pixels from where neighbours moved:
what this search finds further away fits by chance, and gives no better pictures."""
ALWAYS = {"libx265": {"x265-params": "log-level=error"}, "libvpx": {"b": "100000000"}}
"""x265 writes some 20 lines to stderr each time it opens unless told not to; VP8 stays below a
bit rate whatever the crf, and that is 256 kbit/s unless told otherwise."""
PRESETS = (
    ULTRAFAST, "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
    "placebo",
)  # fmt: skip
"""Of x264 and x265, by name or number. They write lines of their own to stderr about any other."""
MAX_CRF = 51
USUAL_FPS = Fraction(30)
TRIAL_SIZE = (256, 256)
AUTO = "auto"
GPU_FIRST = ("h264_nvenc", "libx264")
"""What `AUTO` tries."""


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """An encoder that is known to work here.

    Attributes:
        codec: FFmpeg's name, as "libx264".
        options: its options, as {"preset": "fast", "crf": "20"}.
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
        crf: constant quality, lower is better; None as for `preset`, and of x264's fastest preset
            a constant quantiser, see `X264_FASTEST`. With NVENC its `cq`.
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
    codec = found.name  # of "h264" it is libx264
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
    numbers = map(str, range(len(PRESETS)))
    if codec in ("libx264", "libx265") and preset not in (None, *PRESETS, *numbers):
        raise UsageError(f"encoder {codec}: preset {preset}; choose from {', '.join(PRESETS)}")
    usual_preset, usual_crf = FAST.get(codec, (None, None))
    chosen = {"preset": preset or usual_preset, "crf": usual_crf if crf is None else crf}
    if codec == "libx264" and crf is None and chosen["preset"] in (ULTRAFAST, "0"):
        return dict(X264_FASTEST)
    wished = {name: str(value) for name, value in chosen.items() if value is not None}
    return wished | ALWAYS.get(codec, {})


def _try(codec: str, options: dict[str, str], size: tuple[int, int], *, encode: bool) -> None:
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.framerate, context.time_base = USUAL_FPS, 1 / USUAL_FPS
    context.options = dict(options)
    context.thread_count = 1  # of each thread more memory is freed untouched, to be filled later
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
