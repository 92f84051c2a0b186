"""Sound, subtitles and data of the source file, packet by packet, untouched.

They come from a second reading of the file and never pass the pipeline.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Discard, Stream

from stream.errors import SinkError, SourceError
from stream.sinks.containers import FORMATS, holds
from stream.sources.stamps import Stamps

log = logging.getLogger(__name__)

# Facts about the old file or its writer; the new muxer writes its own.
NOT_COPIED = {"major_brand", "minor_version", "compatible_brands", "encoder", "rotate", "DURATION"}


class CopiedStreams:
    """All streams of a file but its video, on their way into an output.

    Args:
        source: file to copy from.
        container: FFmpeg's name of the output's format.

    Attributes:
        notes: what could not be kept, one sentence each.
        counts: repairs of time stamps, by cause.

    Raises:
        SourceError: if the file can't be read.
        SinkError: if the output can't hold a sound or subtitle track and another format can.
    """

    def __init__(self, source: Path, container: str) -> None:
        self.notes: list[str] = []
        self.counts: Counter[str] = Counter()
        self._path = source
        try:
            self._input = av.open(str(source))
        except (av.FFmpegError, OSError) as error:
            raise SourceError(f"{source}: can't be read for its sound: {error.strerror}") from error
        try:
            self._streams = self._choose(container)
        except BaseException:
            self._input.close()
            raise
        for stream in self._input.streams:
            if stream not in self._streams:
                stream.discard = Discard.all
        self._packets = self._read()
        self._next: Packet[Stream] | None = None
        self._targets: dict[int, Stream] = {}
        self._filters: dict[int, BitStreamFilterContext] = {}
        self._clocks: dict[int, Stamps] = {}
        # Matroska has no time before 0 but for a run-in of sound that it knows the length of, and
        # only its own reader tells that. It would move all tracks, so the run-in is moved instead.
        known = "matroska" in self._input.format.name
        self._clamp = container == "matroska" and not known
        self._out: OutputContainer | None = None

    def _choose(self, container: str) -> list[Stream]:
        # The demuxer discards what it has read itself: MP4's track of chapter names.
        others = [s for s in self._input.streams if s.type != "video" and s.discard != Discard.all]
        kept = [s for s in others if holds(container, s)]
        for stream in others:
            if stream in kept:
                continue
            suffix = next(s for s, name in FORMATS.items() if name == container)
            what = f"{stream.type} track {stream.index} ({stream.name or 'unknown'})"
            wanted = [s for s in others if s.type in ("audio", "subtitle")]
            cures = [s for s, name in FORMATS.items() if all(holds(name, w) for w in wanted)]
            if stream in wanted and cures:
                raise SinkError(
                    f"{self._path}: its {what} can't be stored in {suffix}; "
                    f"write to {' or '.join(cures)}"
                )
            self.notes.append(f"{what} left out: {suffix} can't hold it")
        return kept

    def add_to(self, out: OutputContainer) -> None:
        """Give `out` the streams, chapters and metadata; before its first packet."""
        self._out = out
        for stream in self._streams:
            target = out.add_stream_from_template(stream)
            target.metadata.update(_kept(stream.metadata))
            target.disposition = stream.disposition
            if stream.name == "aac" and not stream.codec_context.extradata:
                # Headers in each packet, as broadcast needs them, become one in the file.
                self._filters[stream.index] = BitStreamFilterContext("aac_adtstoasc", stream)
            self._targets[stream.index] = target
            base = stream.time_base or Fraction(1, 1000)
            self._clocks[stream.index] = Stamps(base, None, self.counts)
        out.metadata.update(_kept(self._input.metadata))
        out.set_chapters(self._input.chapters())
        self._next = next(self._packets, None)

    def copy_until(self, seconds: float | None) -> None:
        """Mux the packets up to this time; None for all that are left."""
        assert self._out is not None
        while self._next is not None:
            packet = self._next
            assert packet.dts is not None
            if seconds is not None and packet.dts * packet.time_base > seconds:
                return
            self._next = next(self._packets, None)
            self._out.mux_one(packet)

    def close(self) -> None:
        """Close the file read."""
        self._input.close()

    def _read(self) -> Iterator[Packet[Stream]]:
        if not self._streams:
            return
        try:
            for packet in self._input.demux(self._streams):
                if packet.dts is None:
                    packet.dts = packet.pts
                if packet.dts is None:
                    continue  # the end mark of a stream
                index, time_base = packet.stream.index, packet.time_base
                reshape = self._filters.get(index)
                for ready in reshape.filter(packet) if reshape else (packet,):
                    ready.stream = self._targets[index]
                    ready.time_base = time_base
                    yield self._in_order(ready, self._clocks[index])
        except av.FFmpegError as error:
            note = f"sound and subtitles end early: {self._path} is damaged ({error.strerror})"
            self.notes.append(note)
            log.warning("%s", note)

    def _in_order(self, packet: Packet[Stream], clock: Stamps) -> Packet[Stream]:
        """Muxers refuse stamps that go back, as in damaged files and files put end to end."""
        assert packet.dts is not None
        if self._clamp:
            packet.dts = max(packet.dts, 0)
        dts = clock.next(packet.dts, packet.duration)
        if packet.pts is not None:
            packet.pts = max(packet.pts + dts - packet.dts, dts)
        packet.dts = dts
        return packet


def _kept(metadata: dict[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in metadata.items() if key not in NOT_COPIED}
    if "name" in kept:  # what MP4's reader calls a track's title
        kept.setdefault("title", kept.pop("name"))
    return kept
