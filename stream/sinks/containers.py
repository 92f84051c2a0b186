"""Which files can be written, and what each of them can hold."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Stream

from stream.errors import UsageError

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Suffix to FFmpeg's name of the muxer."""
FRAGMENT_SECONDS = 1
MIN_TIMESCALE, MAX_TIMESCALE = 1000, 2**31 - 1
"""Ticks per second: a multiple of the source's, so that chapters too land within a millisecond."""


def format_of(path: str | Path) -> str:
    """FFmpeg's name of the container for this file name.

    Raises:
        UsageError: if the suffix stands for none that can be written.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in FORMATS:
        raise UsageError(
            f"{path}: can't write {suffix or 'a file without suffix'}; "
            f"choose one of {', '.join(FORMATS)}"
        )
    return FORMATS[suffix.lower()]


def muxer_options(container: str, time_base: Fraction) -> dict[str, str]:
    """Options that keep time stamps exact and what is written so far playable.

    MP4 and MOV are cut into fragments that need nothing written later. Their clocks run at the
    source's: the track's for the stamps, the movie's for the offset of the first frame, which
    FFmpeg rounds to milliseconds by default. Matroska always stores milliseconds.
    """
    if container == "matroska":
        return {}
    ticks = time_base.denominator
    timescale = str(min(ticks * -(-MIN_TIMESCALE // ticks), MAX_TIMESCALE))
    return {
        "movflags": "delay_moov+default_base_moof",
        "frag_duration": str(FRAGMENT_SECONDS * 1_000_000),
        "video_track_timescale": timescale,
        "movie_timescale": timescale,
    }


def holds(container: str, stream: Stream) -> bool:
    """Whether the container can store the packets of `stream`: asked by writing a header."""
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def holds_encoder(container: str, codec: str, options: dict[str, str]) -> bool:
    """Whether the container can store what this encoder writes, which must open here."""
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            trial.add_stream(codec, rate=25, options=options)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True
