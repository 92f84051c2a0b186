"""Frames brought down from a GPU, with the planes apart as the CPU's decoders deliver them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import av
from av.video.reformatter import VideoReformatter

from stream.errors import SourceError

PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le", "p016le": "yuv420p12le"}
"""What NVDEC delivers for 8, 10 and 12 bits of 4:2:0, and the same with U and V apart."""


def as_the_cpu(frames: Iterable[av.VideoFrame], name: str) -> Iterator[av.VideoFrame]:
    """Take U and V of each frame apart.

    Only order and position of the bits change, so all that follows (joining fields, reducing to
    8 bits) gives the very bytes it gives for frames decoded on the CPU. Stamps, tags and flags
    are kept.

    Args:
        frames: in system memory.
        name: of the source, for messages.

    Raises:
        SourceError: if a frame comes in another layout.
    """
    reformatter = VideoReformatter()
    for frame in frames:
        layout = frame.format.name
        if layout not in PLANAR:
            raise SourceError(
                f"{name}: frames come from the GPU as {layout}, read are "
                f"{', '.join(PLANAR)}; use --decode cpu"
            )
        try:
            yield reformatter.reformat(frame, format=PLANAR[layout], threads=1)
        except av.FFmpegError as error:
            raise SourceError(
                f"{name}: a frame from the GPU can't be converted ({error.strerror}); "
                "use --decode cpu"
            ) from error
