"""Sound, subtitles and data of the source file, packet by packet, untouched.

They come from a second reading of the file and never pass the pipeline.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Discard, Stream
from av.video.stream import VideoStream

from nem.videos import STILL
from stream.errors import SinkError
from stream.sinks.containers import FORMATS, add_copy, holds, language_in
from stream.sources.opening import check_file, open_container, video_stream
from stream.sources.reading import BAD_RUN
from stream.sources.stamps import Stamps
from stream.sources.timeline import Timeline

log = logging.getLogger(__name__)

OLD_FILE = {"major_brand", "minor_version", "compatible_brands", "encoder"}
"""Facts about the old file and its writer, in small letters; the new muxer writes its own."""
# What is said of how the pictures were stored, which they no longer are.
OLD_PICTURES = re.compile(
    r"(encoder|duration|bps|number_of_\w+|_statistics_\w+|vendor_id|alpha_mode|rotate)(-\w+)?", re.I
)
RUN_IN = Fraction(1, 10)
"""Seconds of sound before the first that is heard; no codec needs more."""
PATIENT = {"probesize": "100000000", "analyzeduration": "60000000"}
"""Options of FFmpeg to look 60 s into the file for what its tracks are, or 100 MB."""
DAMAGED = "damaged packets left out"


class CopiedStreams:
    """All streams of a file but its video, on their way into an output.

    Of the video go what is said of it, as its language and time code, and its marks.

    Args:
        source: file to copy from.
        container: FFmpeg's name of the output's format.

    Attributes:
        notes: what could not be kept, one sentence each.
        counts: damage and repairs of time stamps, by cause.
        metadata: of the file.

    Raises:
        SourceError: if the file can't be read.
        SinkError: if the output can't hold a sound or subtitle track and another format can.
    """

    def __init__(self, source: Path, container: str) -> None:
        self.notes: list[str] = []
        self.counts: Counter[str] = Counter()
        self._explained: VideoStream | None = None
        self._said: dict[str, str] = {}  # of the pictures
        self._path, self._container = source, container
        self._input = _open(source)
        try:
            self._streams = self._choose(container)
        except BaseException:
            self._input.close()
            raise
        said = _kept(self._input.metadata).items()
        self.metadata = {name: value for name, value in said if name.lower() not in OLD_FILE}
        # Its notes are those of the pictures' source, which reads the same packets.
        self._timeline = Timeline(self._input, Counter())
        self._packets = self._read()
        self._next: Packet[Stream] | None = None
        self._next_at = 0.0  # its time in seconds, asked for at every frame
        self._targets: dict[int, Stream] = {}
        self._filters: dict[int, BitStreamFilterContext] = {}
        self._clocks: dict[int, Stamps[Packet[Stream]]] = {}
        # Matroska has no time before the first frame but for a run-in of sound that it knows the
        # length of, and only its own reader tells that. It would move all tracks, so the run-in
        # is moved instead, to this time in seconds.
        self._earliest: Fraction | None = None

    def _choose(self, container: str) -> list[Stream]:
        # The demuxer discards what it has read itself: MP4's track of chapter names.
        others = [s for s in self._input.streams if s.type != "video" and s.discard != Discard.all]
        # Time code is a track of MP4 and MOV alone. As a word on the pictures all formats hold it,
        # and MOV's muxer, which writes nothing after a copied track, makes a new one of it.
        codes = [s for s in others if s.type == "data" and "timecode" in s.metadata]
        others = [s for s in others if s not in codes]
        kept = [s for s in others if holds(container, s)]
        videos = self._input.streams.video
        if videos:
            self._explained = video_stream(self._input, str(self._path))
            self._said = _said_of(self._explained, codes)
        for video in videos:
            if video is not self._explained and video.discard != Discard.all:
                what = "cover picture" if video.disposition & STILL else "video track"
                self.notes.append(f"{what} {video.index} left out: one track is explained")
        suffix = _suffix(container)
        heard = [s for s in others if s.type in ("audio", "subtitle")]
        wanted = [s for s in heard if s.codec_context is not None]
        for stream in others:
            if stream in kept:
                continue
            what = f"{stream.type} track {stream.index} ({_codec(stream)})"
            why = f"{suffix} can't hold it"
            if stream in wanted:
                cures = [s for s, name in FORMATS.items() if all(holds(name, w) for w in wanted)]
                if cures:
                    raise SinkError(
                        f"{self._path}: its {what} can't be stored in {suffix}; "
                        f"write to {' or '.join(cures)}"
                    )
            elif stream in heard:
                why = "this FFmpeg has no decoder for it"
            self.notes.append(f"{what} left out: {why}")
        return kept

    def add_to(self, out: OutputContainer, start: Fraction) -> None:
        """Give `out` the streams, chapters and metadata; before its first packet.

        Args:
            out: open output.
            start: time of its first frame in seconds.
        """
        if self._explained is not None:
            out.streams.video[0].metadata.update(self._said)
            out.streams.video[0].disposition = self._explained.disposition
        for stream in self._streams:
            target = add_copy(out, stream)
            target.metadata.update(_kept(stream.metadata))
            target.disposition = stream.disposition
            if _codec(stream) == "aac" and not stream.codec_context.extradata:
                # Headers in each packet, as broadcast needs them, become one in the file.
                self._filters[stream.index] = BitStreamFilterContext("aac_adtstoasc", stream)
            self._targets[stream.index] = target
            self._clocks[stream.index] = self._clock(stream)
        for stream in out.streams:
            if (spoken := stream.metadata.get("language", "und")) != "und":
                self._name_language(stream, spoken)
        out.metadata.update(self.metadata)
        out.set_chapters(self._input.chapters())
        if self._container == "matroska" and "matroska" not in self._input.format.name:
            self._earliest = min(start, Fraction(0))
        self._take_next()
        self._out = out

    def _name_language(self, stream: Stream, spoken: str) -> None:
        name = language_in(self._container, spoken)
        stream.metadata["language"] = name or "und"
        if name is None:
            what = f"language {spoken} of the {stream.type} track"
            self.notes.append(f"{what} left out: {_suffix(self._container)} can't hold it")

    def copy_until(self, seconds: float | None) -> None:
        """Mux the packets up to this time; None for all that are left."""
        while (packet := self._next) is not None:
            if seconds is not None and self._next_at > seconds:
                return
            self._take_next()
            self._out.mux_one(packet)

    def _take_next(self) -> None:
        self._next = next(self._packets, None)
        if self._next is not None:
            assert self._next.dts is not None
            self._next_at = float(self._next.dts * self._next.time_base)

    def close(self) -> None:
        """Close the file read."""
        self._input.close()

    def _clock(self, stream: Stream) -> Stamps[Packet[Stream]]:
        base = stream.time_base or Fraction(1, 1000)
        # As FFmpeg's muxers: of these, several packets may have one time.
        several = self._container == "matroska" or stream.type not in ("audio", "video")
        if not several and stream.codec_context is not None:
            # Short packets with the coarse stamps of Matroska need a finer clock to be put apart.
            rate = getattr(stream.codec_context, "sample_rate", 0)
            base = min(base, Fraction(1, rate)) if rate else base
        sounds = stream.type == "audio"  # the others come once in a while
        start = self._input.start_time
        return Stamps(base, None, self.counts, start=start, strict=not several, waits=sounds)

    def _read(self) -> Iterator[Packet[Stream]]:
        yield from self._demuxed()
        for clock in self._clocks.values():
            yield from _marked(clock.flush())

    def _demuxed(self) -> Iterator[Packet[Stream]]:
        bad = 0
        while self._streams:
            try:
                for packet in self._timeline.demux(self._streams):
                    if packet.dts is None:
                        packet.dts = packet.pts
                    if packet.dts is None:
                        continue  # the end mark of a stream
                    yield from self._ready(packet)
                    bad = 0
                return
            except av.FFmpegError as error:
                bad += 1
                self.counts[DAMAGED] += 1
                if bad >= BAD_RUN:
                    note = f"sound and subtitles end early: {self._path} is damaged"
                    self.notes.append(f"{note} ({error.strerror})")
                    log.warning("%s", self.notes[-1])
                    return

    def _ready(self, packet: Packet[Stream]) -> Iterator[Packet[Stream]]:
        """The packet as it goes into the output, or nothing."""
        index, time_base = packet.stream.index, packet.time_base
        reshape = self._filters.get(index)
        try:
            shaped = reshape.filter(packet) if reshape else [packet]
        except av.FFmpegError:
            self.counts[DAMAGED] += 1
            return
        for ready in shaped:
            ready.stream = self._targets[index]
            ready.time_base = time_base
            if not self._is_cut(ready):
                yield from self._in_order(ready, self._clocks[index])

    def _is_cut(self, packet: Packet[Stream]) -> bool:
        """What an edit list cuts away, more than a decoder needs to get going, is not moved."""
        if self._earliest is None or not packet.is_discard:
            return False
        assert packet.dts is not None
        return packet.dts * packet.time_base < self._earliest - RUN_IN

    def _in_order(
        self, packet: Packet[Stream], clock: Stamps[Packet[Stream]]
    ) -> Iterator[Packet[Stream]]:
        """Muxers refuse stamps that go back, as in damaged files and files put end to end."""
        assert packet.dts is not None
        said, duration = packet.dts, packet.duration or 0
        if (base := packet.time_base) != clock.time_base:
            scale = base / clock.time_base
            said, duration = round(said * scale), round(duration * scale)
            if packet.pts is not None:
                packet.pts = round(packet.pts * scale)
        if self._earliest is not None:
            said = max(said, round(self._earliest / clock.time_base))
        packet.dts, packet.duration, packet.time_base = said, duration, clock.time_base
        yield from _marked(clock.take(packet, said, duration))


def _marked(ready: list[tuple[Packet[Stream], int]]) -> Iterator[Packet[Stream]]:
    for packet, dts in ready:
        assert packet.dts is not None
        if packet.pts is not None:
            packet.pts = max(packet.pts + dts - packet.dts, dts)
        packet.dts = dts
        yield packet


def _open(source: Path) -> InputContainer:
    """The file, read far enough to know every track that sounds."""
    extent = check_file(source, str(source))
    found = open_container(source, str(source), extent)
    if all(_known(stream) for stream in found.streams.audio):
        return found
    found.close()
    return open_container(source, str(source), extent, options=PATIENT)


def _known(stream: Stream) -> bool:
    return stream.codec_context is None or bool(getattr(stream.codec_context, "sample_rate", 1))


def _suffix(container: str) -> str:
    return next(s for s, name in FORMATS.items() if name == container)


def _codec(stream: Stream) -> str:
    return getattr(stream, "name", None) or "unknown"  # some tracks without a decoder have none


def _said_of(pictures: Stream, codes: list[Stream]) -> dict[str, str]:
    """What is said of the pictures and still true, the time code of its own track included."""
    kept = {k: v for k, v in _kept(pictures.metadata).items() if not OLD_PICTURES.fullmatch(k)}
    code = codes[0].metadata if codes else {}
    return {name: code[name] for name in ("timecode", "reel_name") if name in code} | kept


def _kept(metadata: dict[str, str]) -> dict[str, str]:
    kept = dict(metadata)
    if "name" in kept:  # what MP4's reader calls a track's title
        kept.setdefault("title", kept.pop("name"))
    return kept
