"""Opening video files with FFmpeg, and them alone: whatever a file says, no other one is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.stream import Disposition

# What FFmpeg would take for a video though it is text (drawn as a picture) or a list of other
# files, which it would go and fetch; a live list without an end would even hold up the opening.
NO_VIDEO = frozenset(
    {"applehttp", "concat", "dash", "ffmetadata", "hls", "imf", "lavfi"}
    | {"rtp", "rtsp", "sdp", "tty", "webm_dash_manifest"}
)

LIMITED_GREY = frozenset({"h264", "hevc", "av1", "vp9", "mpeg2video"})
"""Codecs whose grey is of limited range where they don't tell."""

STILL = Disposition.attached_pic | Disposition.timed_thumbnails


def open_video(
    path: Path,
    *,
    whole: int | None = None,
    device: HWAccel | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> InputContainer:
    """Open a video file for reading.

    Args:
        path: the file.
        whole: bytes of it to read, None for all.
        device: decodes the video tracks; None is the CPU.
        options: further ones of FFmpeg.

    Raises:
        av.FFmpegError: it can't be read, or is of no format that holds pictures itself.
    """
    # With a protocol in front, no file name is taken for another protocol.
    location = f"file:{path}" if whole is None else f"subfile,,start,0,end,{whole},,:{path}"
    safe = {
        "protocol_whitelist": "file,subfile",
        "format_whitelist": ",".join(sorted(av.formats_available - NO_VIDEO)),
        "pattern_type": "none",  # a picture called x%d.tga is no row of pictures
    }
    return av.open(
        location,
        options=safe | dict(options),
        hwaccel=device,
        metadata_errors="replace",  # titles in older encodings are no reason to refuse
    )


def video_track(container: InputContainer) -> av.VideoStream | None:
    """The video track to read: FFmpeg's best one, cover pictures aside; None if there is none."""
    streams = [s for s in container.streams.video if not s.disposition & STILL]
    best = container.streams.best("video")
    return next((s for s in streams if s is best), streams[0] if streams else None)


def is_rgb(pixels: av.VideoFormat) -> bool:
    """Whether a pixel format holds RGB, in whatever form."""
    return pixels.is_rgb or pixels.has_palette or pixels.is_bayer


def is_grey(pixels: av.VideoFormat) -> bool:
    """Whether a pixel format holds nothing but luma, and transparency perhaps."""
    return not is_rgb(pixels) and sum(not c.is_alpha for c in pixels.components) == 1


def is_limited_grey(frame: av.VideoFrame, codec: str) -> bool:
    """Whether a picture is grey from 16 to 235; swscale takes all grey for 0 to 255.

    Args:
        frame: as decoded.
        codec: FFmpeg name of the codec.
    """
    stated = int(frame.color_range)
    return is_grey(frame.format) and (stated == 1 or (stated == 0 and codec in LIMITED_GREY))
