"""Which files can be written, and what each of them can hold."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import av
from av.audio.layout import AudioLayout
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Stream

from stream.errors import UsageError

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Suffix to FFmpeg's name of the muxer."""
FRAGMENT_SECONDS = 1
EARLY = {"movflags": "empty_moov"}
"""Options for MP4 and MOV that write the index without any packet."""
MIN_TIMESCALE, MAX_TIMESCALE = 30_000, 2**31 - 1
"""Ticks per second: a multiple of the source's, so fine that chapters keep their time, and frames
at most usual rates have a whole number of ticks, which counts for time codes."""

# MOV numbers languages; FFmpeg knows each by one name, and its muxer drops the others.
MOV_LANGUAGES = {
    "bod": "tib", "cym": "wel", "cze": "ces", "deu": "ger", "ell": "gre", "eus": "baq",
    "fao": "fo ", "fas": "per", "fre": "fra", "gle": "iri", "hrv": "hr ", "hye": "arm",
    "isl": "ice", "kat": "geo", "mkd": "mac", "msa": "may", "mya": "bur", "nld": "dut",
    "pan": "pa ", "rum": "ron", "slo": "slk", "sqi": "alb", "srp": "sr ", "swe": "sve",
    "zho": "chi",
}  # fmt: skip
# Names that are no one else's.
ISO_LANGUAGES = {MOV_LANGUAGES[name]: name for name in ("fao", "gle", "hrv", "pan", "srp", "swe")}


def format_of(path: str | Path) -> str:
    """FFmpeg's name of the container for this file name.

    Raises:
        UsageError: if the suffix stands for none that can be written.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in FORMATS:
        if os.path.isdir(path):  # noqa: PTH112 - pathlib's raises where it may not look
            raise UsageError(f"{path}: is a directory; give the output a file name in it")
        raise UsageError(
            f"{path}: can't write {suffix or 'a file without suffix'}; "
            f"choose one of {', '.join(FORMATS)}"
        )
    return FORMATS[suffix.lower()]


def muxer_options(
    container: str, time_base: Fraction, metadata: Mapping[str, str]
) -> dict[str, str]:
    """Options that keep time stamps and metadata and what is written so far playable.

    MP4 and MOV are cut into fragments that need nothing written later. Their clocks run at the
    source's: the track's for the stamps, the movie's for the offset of the first frame, which
    FFmpeg rounds to milliseconds by default. Matroska always stores milliseconds. Of metadata MP4
    and MOV have a few places that every player looks at; if that is not enough, as for a phone's,
    all go into a list of names and values.
    """
    if container == "matroska":
        return {}
    listed = "" if _has_places(container, metadata) else "+use_metadata_tags"
    ticks = time_base.denominator
    timescale = str(min(ticks * -(-MIN_TIMESCALE // ticks), MAX_TIMESCALE))
    return {
        "movflags": "delay_moov+default_base_moof" + listed,
        "frag_duration": str(FRAGMENT_SECONDS * 1_000_000),
        "video_track_timescale": timescale,
        "movie_timescale": timescale,
    }


def _has_places(container: str, metadata: Mapping[str, str]) -> bool:
    """Whether the usual places of MP4 or MOV hold all of these: asked by reading them back."""

    def add(trial: OutputContainer) -> None:
        trial.add_stream("mpeg4", rate=25)
        trial.metadata.update(metadata)

    with av.open(_trial(container, add)) as found:
        kept = {name.lower(): value for name, value in found.metadata.items()}
    return all(kept.get(name.lower()) == value for name, value in metadata.items())


def language_in(container: str, name: str) -> str | None:
    """The name by which FFmpeg's muxer keeps a language; None if it can't."""
    usual = ISO_LANGUAGES.get(name, name)
    if container == "matroska":
        return usual
    name = MOV_LANGUAGES.get(usual, usual) if container == "mov" else usual

    def add(trial: OutputContainer) -> None:
        trial.add_stream("mpeg4", rate=25).metadata["language"] = name

    with av.open(_trial(container, add, EARLY)) as found:
        return name if found.streams[0].metadata.get("language") == name else None


def holds(container: str, stream: Stream) -> bool:
    """Whether the container can store the packets of `stream`."""
    taken = _takes(container, lambda trial: add_copy(trial, stream))
    return taken and (container == "matroska" or _found_again(container, stream))


def add_copy(out: OutputContainer, stream: Stream) -> Stream:
    """Give `out` a stream for the packets of `stream`.

    Of PCM MP4 stores which channel is which, and without that FFmpeg's muxer writes a file that no
    one can open. AVI, MXF and Matroska only say how many there are: then the usual ones are meant.

    Raises:
        ValueError: if `out` can't hold it.
    """
    copy = out.add_stream_from_template(stream)
    if out.format.name == "mp4" and isinstance(copy, AudioStream):
        context = copy.codec_context
        if context.name.startswith("pcm_") and context.layout.name.endswith(" channels"):
            context.layout = AudioLayout(f"{context.channels}c")
    return copy


def _found_again(container: str, stream: Stream) -> bool:
    """Whether the track is in an index of MP4 or MOV: asked by reading one.

    FFmpeg's muxer takes some tracks that it then leaves out, or cuts the index short there, without
    an error.
    """
    try:
        file = _trial(container, lambda trial: add_copy(trial, stream), EARLY)
    except av.FFmpegError:
        return True  # AC-3 is described by its first packet, which is not here
    try:
        with av.open(file) as found:
            return bool(found.streams)
    except av.FFmpegError:
        return False


def holds_encoder(container: str, codec: str, options: dict[str, str]) -> bool:
    """Whether the container can store what this encoder writes, which must open here."""

    def add(trial: OutputContainer) -> None:
        trial.add_stream(codec, rate=25, options=options).codec_context.thread_count = 1

    return _takes(container, add)


def _takes(container: str, add: Callable[[OutputContainer], object]) -> bool:
    """Whether a stream can be added: asked by writing a header."""
    try:
        _trial(container, add)
    except (av.FFmpegError, ValueError):
        return False
    return True


def _trial(
    container: str,
    add: Callable[[OutputContainer], object],
    options: dict[str, str] | None = None,
) -> io.BytesIO:
    """A file in memory with what `add` gives it and no packet, to be read from its beginning.

    Raises:
        av.FFmpegError, ValueError: if that can't be written.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container, container_options=options) as trial:
        add(trial)
        trial.start_encoding()
    file.seek(0)
    return file
