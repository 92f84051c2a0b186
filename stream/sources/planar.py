"""Frames brought down from a GPU, with the planes apart as the CPU's decoders deliver them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import av
from av.video.reformatter import VideoReformatter

from stream.errors import SourceError

PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le", "p016le": "yuv420p12le"}
"""What NVDEC delivers for 8, 10 and 12 bits of 4:2:0, and the same with U and V apart."""
STAYS = "nv12"
"""Layout of frames that can be used where they are."""


def as_the_cpu(frames: Iterable[av.VideoFrame], name: str) -> Iterator[av.VideoFrame]:
    """Bring each frame down if it is not yet, and take U and V apart.

    Only order and position of the bits change, so all that follows (joining fields, reducing to
    8 bits) gives the very bytes it gives for frames decoded on the CPU. Stamps, tags and flags
    are kept. Frames on the GPU that need nothing of that stay there, up to the first that does.

    Args:
        frames: in system memory or on the GPU.
        name: of the source, for messages.

    Raises:
        SourceError: if a frame comes in another layout.
    """
    reformatter = VideoReformatter()
    stay = True
    for frame in frames:
        stay = stay and not frame.interlaced_frame
        if stay and is_up(frame) and layout(frame) == STAYS:
            yield frame
        else:
            yield come_down(frame, name, reformatter)


def is_up(frame: av.VideoFrame) -> bool:
    """Whether a frame is in a GPU's memory."""
    return frame.sw_format is not None


def layout(frame: av.VideoFrame) -> str:
    """FFmpeg's name of the pixel format, wherever the frame is."""
    return (frame.sw_format or frame.format).name


def come_down(
    frame: av.VideoFrame, name: str, reformatter: VideoReformatter | None = None
) -> av.VideoFrame:
    """One frame as `as_the_cpu` gives it.

    Raises:
        SourceError: as there.
    """
    kind = layout(frame)
    if kind not in PLANAR:
        raise SourceError(
            f"{name}: frames come from the GPU as {kind}, read are "
            f"{', '.join(PLANAR)}; use --decode cpu"
        )
    try:
        reformatter = reformatter or VideoReformatter()
        return reformatter.reformat(frame, format=PLANAR[kind], threads=1)
    except av.FFmpegError as error:
        raise SourceError(
            f"{name}: a frame from the GPU can't be converted ({error.strerror}); use --decode cpu"
        ) from error
