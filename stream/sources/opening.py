"""Opening a video file, and refusing what is none with the reason and the cure."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from nem.videos import open_video, video_track
from stream.errors import SourceError
from stream.sources.extent import Extent, examine


def check_file(path: Path, name: str) -> Extent:
    """What the file's outer structure tells.

    Raises:
        SourceError: if there is no such file, or it is forbidden, empty, no file or encrypted.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise SourceError(f"{name}: is no regular file; pipes and devices are not read here")
        extent = examine(path)
    except IsADirectoryError:
        raise SourceError(f"{name}: is a directory; name a file in it") from None
    except FileNotFoundError:
        raise SourceError(f"{name}: no such file{_similar(path)}") from None
    except PermissionError:
        raise SourceError(f"{name}: no permission to read it; try: chmod u+r '{name}'") from None
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(f"{name}: can't be read ({error.strerror or error})") from error
    if extent.size == 0:
        raise SourceError(f"{name}: file is empty (0 bytes); copy or download it again")
    if extent.encrypted:
        raise SourceError(f"{name}: encrypted (DRM); use a copy without protection")
    return extent


def open_container(
    path: Path,
    name: str,
    extent: Extent,
    device: HWAccel | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> InputContainer:
    """Open the file for reading.

    Args:
        path: the file.
        name: of the source, for messages.
        extent: what the file's outer structure tells.
        device: decodes the video tracks; None is the CPU.
        options: further ones of FFmpeg.

    Raises:
        SourceError: if FFmpeg knows no such format, or too much of the file is missing.
    """
    try:
        return open_video(path, device=device, options=options)
    except av.FFmpegError as error:
        if not extent.missing:
            raise SourceError(
                f"{name}: not a video that can be read ({error.strerror}); give a video or image "
                "file"
            ) from error
        if extent.whole:
            # Cut inside a part of the index: FFmpeg refuses the file, but reads it up to there.
            with suppress(av.FFmpegError):
                return open_video(path, whole=extent.whole, device=device, options=options)
        raise SourceError(
            f"{name}: file is truncated ({extent.missing} of {extent.size + extent.missing} bytes "
            "missing) and can't be read without them; copy or download it again"
        ) from error


def video_stream(container: InputContainer, name: str) -> av.VideoStream:
    """The video track to read.

    Raises:
        SourceError: if there is none, or its codec is unknown.
    """
    chosen = video_track(container)
    if chosen is None:
        kinds = sorted({stream.type for stream in container.streams} - {"video"})
        what = "audio only" if kinds == ["audio"] else f"tracks: {', '.join(kinds) or 'none'}"
        raise SourceError(f"{name}: no video in it ({what}); give a file with pictures")
    if chosen.codec_context is None:
        raise SourceError(
            f"{name}: its video codec is unknown to this FFmpeg ({av.ffmpeg_version_info}); "
            "convert it first: ffmpeg -i IN -c:v libx264 OUT.mp4"
        )
    return chosen


def _similar(path: Path) -> str:
    folder = path.parent
    try:
        if not folder.is_dir():
            return f" (nor a directory {folder}); check the path"
        names = get_close_matches(path.name, [entry.name for entry in folder.iterdir()], 3, 0.75)
    except OSError:
        return "; check the path"  # a folder that may be entered, but not listed
    if names:
        return f"; did you mean {' or '.join(names)}?"
    return f" in {folder.resolve()}; check the path"
