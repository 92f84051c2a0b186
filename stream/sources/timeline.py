"""One clock for all tracks of a file whose time may jump: MPEG-TS, MPEG-PS, Ogg.

Recordings put end to end and a transmitter that starts anew shift every track by the same; each
track repaired on its own would end apart from the others wherever one was shorter. So the packets
of all tracks are looked at in the order of the file, by everyone who reads any of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import TypeVar, cast

from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.stream import Discard, Stream

from stream.sources.stamps import CONTINUED, NUDGED

StreamT = TypeVar("StreamT", bound=Stream)

BACK = Fraction(1)
"""Seconds that a track's stamps may go back before it is a new start of the clock."""
AHEAD = Fraction(10)
"""Seconds that a stamp may lie ahead of all others before it has to be confirmed by the next."""
WRAP = 1 << 33
"""Ticks of 1/90000 s after which the stamps of MPEG start over: 26.5 hours."""
HELD = 500
"""Packets held at most until then."""


class Timeline:
    """Moves the stamps of a file's packets so that time goes on.

    A jump back by more than `BACK` begins a new part, which continues after the latest end of all
    tracks. A single stamp far ahead, that the track's next one takes back, is damage and becomes
    the end of the packet before it. A gap that lasts is left as it is. Clocks that run over go on.

    Args:
        container: open file.
        counts: where changes are counted.
    """

    def __init__(self, container: InputContainer, counts: Counter[str]) -> None:
        self._container = container
        self._counts = counts
        self._shifts = [Fraction(0)]  # of the part that is read, and of the one before
        self._ends: dict[int, Fraction] = {}
        self._held: list[Packet[Stream]] = []

    @property
    def may_jump(self) -> bool:
        """Whether the time of files in this format may jump; if not, nothing is changed."""
        return bool(self._container.format.flags & cast(int, Flags.ts_discont.value))

    def discard_all_but(self, streams: Sequence[Stream]) -> None:
        """Skip tracks that are not needed, so that damage in them ends nothing."""
        if not self.may_jump:
            for stream in self._container.streams:
                if stream not in streams:
                    stream.discard = Discard.all

    def demux(self, streams: Sequence[StreamT]) -> Iterator[Packet[StreamT]]:
        """The packets of some tracks, in the order of the file."""
        if not self.may_jump:
            yield from cast("Iterator[Packet[StreamT]]", self._container.demux(streams))
            return
        for packet in self.join(self._container.demux()):
            if packet.stream in streams:
                yield cast("Packet[StreamT]", packet)

    def join(self, packets: Iterable[Packet[Stream]]) -> Iterator[Packet[Stream]]:
        """The packets, of all tracks and in the order of the file, with stamps that go on."""
        for packet in packets:
            self._unwrap(packet)
            said = _seconds(packet)
            if said is None:
                yield from self._release(None)
                yield packet
            elif self._held:
                suspect = self._held[0].stream.index
                self._held.append(packet)
                if packet.stream.index == suspect or len(self._held) > HELD:
                    yield from self._release(said)
            elif self._fits(packet, said) is None and self._is_far(said):
                self._held.append(packet)
            else:
                yield self._moved(packet, said)
        yield from self._release(None)

    def _unwrap(self, packet: Packet[Stream]) -> None:
        """Take the stamps for what is nearest to the others, as they are known up to `WRAP`."""
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is None or self._container.format.name not in ("mpegts", "mpeg"):
            return
        start = Fraction(self._container.start_time or 0, 1_000_000) + self._shifts[0]
        near = max(self._ends.values(), default=start) - self._shifts[0]
        near_ticks = round(near / packet.time_base)
        if packet.dts is not None:
            packet.dts -= round((packet.dts - near_ticks) / WRAP) * WRAP
            near_ticks = packet.dts
        if packet.pts is not None:
            packet.pts -= round((packet.pts - near_ticks) / WRAP) * WRAP

    def _fits(self, packet: Packet[Stream], said: Fraction) -> Fraction | None:
        """The shift, of this part or the one before, by which the packet follows its track's last.

        The last packets of a part may come after the first ones of the next.
        """
        end = self._ends.get(packet.stream.index)
        fits = (s for s in self._shifts if end is not None and abs(said + s - end) <= BACK)
        return next(fits, None)

    def _is_far(self, said: Fraction) -> bool:
        moved = said + self._shifts[0]
        return moved - max(self._ends.values(), default=moved) > AHEAD

    def _release(self, confirmed: Fraction | None) -> Iterator[Packet[Stream]]:
        """What was held; `confirmed` is what the track of the first says next."""
        held, self._held = self._held, []
        for number, packet in enumerate(held):
            said = _seconds(packet)
            assert said is not None
            if not number and (confirmed is None or confirmed < said - BACK):
                self._counts[NUDGED] += 1
                end = self._ends.get(packet.stream.index, max(self._ends.values()))
                yield self._put(packet, said, end - said)
            else:
                yield self._moved(packet, said)

    def _moved(self, packet: Packet[Stream], said: Fraction) -> Packet[Stream]:
        fits, end = self._fits(packet, said), self._ends.get(packet.stream.index)
        if fits is not None:
            self._shifts.sort(key=lambda shift: shift != fits)
        elif end is not None and said + self._shifts[0] < end - BACK:
            self._counts[CONTINUED] += 1
            self._shifts = [max(self._ends.values()) - said, self._shifts[0]]
        return self._put(packet, said, self._shifts[0])

    def _put(self, packet: Packet[Stream], said: Fraction, shift: Fraction) -> Packet[Stream]:
        base = packet.time_base
        self._ends[packet.stream.index] = said + shift + (packet.duration or 0) * base
        ticks = round(shift / base)
        if packet.dts is not None:
            packet.dts += ticks
        if packet.pts is not None:
            packet.pts += ticks
            if packet.dts is not None and abs(packet.pts - packet.dts) * base > AHEAD:
                self._counts[NUDGED] += 1  # no picture waits that long for its turn
                packet.pts = packet.dts
        return packet


def _seconds(packet: Packet[Stream]) -> Fraction | None:
    stamp = packet.pts if packet.dts is None else packet.dts
    return None if stamp is None else stamp * packet.time_base
