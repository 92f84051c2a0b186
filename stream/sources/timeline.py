"""One clock for all tracks of a file whose time may jump: MPEG-TS, MPEG-PS, Ogg.

Recordings put end to end and a transmitter that starts anew shift every track by the same; each
track repaired on its own would end apart from the others wherever one was shorter. So the packets
of all tracks are looked at in the order of the file, by everyone who reads any of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, cast

from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.stream import Discard, Stream

from stream.sources.stamps import BACK, CONTINUED, NUDGED

StreamT = TypeVar("StreamT", bound=Stream)

AHEAD = 10.0
"""Seconds that tracks of one clock, and two stamps of one picture, lie apart at most."""
HELD = 500
"""Packets held at most until a stamp ahead of all others is confirmed by its track's next."""
WRAP = 1 << 33
"""Ticks of 1/90000 s after which the stamps of MPEG start over: 26.5 hours."""


class Timeline:
    """Moves the stamps of a file's packets so that time goes on; see `Clock`.

    Clocks that run over go on. The programs of a broadcast have clocks of their own: a track that
    begins more than `AHEAD` from all others is of another one.

    Args:
        container: open file.
        counts: where changes are counted.
    """

    def __init__(self, container: InputContainer, counts: Counter[str]) -> None:
        self._container = container
        self._counts = counts
        self._clocks: list[Clock] = []
        self._of: dict[int, Clock] = {}
        self._start = (container.start_time or 0) / 1_000_000
        self._wraps = container.format.name in ("mpegts", "mpeg")
        if self._wraps and self._start < -BACK:
            # More than a run-in: FFmpeg counts the last minute before the wrap down to zero, and
            # of time before zero MP4's sound is cut away.
            self._start += WRAP / 90_000

    def demux(self, streams: Sequence[StreamT]) -> Iterator[Packet[StreamT]]:
        """The packets of some tracks, in the order of the file.

        Where time can't jump nothing is changed, and the other tracks are skipped, so that damage
        in them ends nothing.
        """
        if not self._container.format.flags & cast(int, Flags.ts_discont.value):
            for stream in self._container.streams:
                if stream not in streams:
                    stream.discard = Discard.all
            yield from cast("Iterator[Packet[StreamT]]", self._container.demux(streams))
            return
        for packet in self.join(self._container.demux()):
            if packet.stream in streams:
                yield cast("Packet[StreamT]", packet)

    def join(self, packets: Iterable[Packet[Stream]]) -> Iterator[Packet[Stream]]:
        """The packets, of all tracks and in the order of the file, with stamps that go on."""
        for packet in packets:
            track = packet.stream.index
            if packet.pts is None and packet.dts is None:
                clock = self._of.get(track)
                yield from [packet] if clock is None else clock.take(packet, None)
                continue
            if self._wraps:
                self._unwrap(packet)
            self._agree(packet)
            said = (packet.pts if packet.dts is None else packet.dts) * float(packet.time_base)  # type: ignore[operator]
            if track not in self._of:
                self._of[track] = self._clock_at(said)
            yield from self._of[track].take(packet, said)
        for clock in self._clocks:
            yield from clock.flush()

    def _clock_at(self, said: float) -> Clock:
        """The clock that is about there, or a new one."""
        near = [c for c in self._clocks if abs(said - c.now) <= AHEAD]
        if not near:
            near = [Clock(self._counts)]
            self._clocks += near
        return min(near, key=lambda clock: abs(said - clock.now))

    def _now(self, packet: Packet[Stream]) -> float:
        """About what its stamps should say: as its own clock, another, or the file's start."""
        clock = self._of.get(packet.stream.index) or next(iter(self._clocks), None)
        return self._start if clock is None else clock.now

    def _unwrap(self, packet: Packet[Stream]) -> None:
        """Take the stamps for what is nearest to the others, as they are known up to `WRAP`."""
        near = round(self._now(packet) / float(packet.time_base))
        if packet.dts is not None:
            packet.dts -= round((packet.dts - near) / WRAP) * WRAP
        if packet.pts is not None:
            packet.pts -= round((packet.pts - near) / WRAP) * WRAP

    def _agree(self, packet: Packet[Stream]) -> None:
        """Of two stamps far apart one is wrong: no picture waits long for its turn."""
        pts, dts, base = packet.pts, packet.dts, float(packet.time_base)
        if pts is None or dts is None or abs(pts - dts) * base <= AHEAD:
            return
        self._counts[NUDGED] += 1
        near = self._now(packet)
        packet.pts = packet.dts = min(pts, dts, key=lambda stamp: abs(stamp * base - near))


class Clock:
    """Moves the stamps of some tracks' packets, which come in the order of the file.

    A jump back by more than `BACK` begins a new part, which continues after the latest end of all
    tracks; the last packets of a part may come after the first ones of the next. A single stamp
    ahead of all others, that the track's next one takes back, is damage and becomes the end of the
    packet before it. A gap that lasts is left as it is.

    Args:
        counts: where changes are counted.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._ends: dict[int, float] = {}
        self._shift = self._before = 0.0  # of the newest part, and of the one before it
        self._joint = float("inf")  # where the newest part begins
        self._held: list[tuple[Packet[Stream], float | None]] = []

    @property
    def now(self) -> float:
        """About what the stamps say at this place of the file, in seconds."""
        return max(self._ends.values(), default=0.0) - self._shift

    def take(self, packet: Packet[Stream], said: float | None) -> list[Packet[Stream]]:
        """The packets that are ready, their stamps moved.

        Args:
            packet: the next of the file.
            said: its time in seconds, None where it has none.
        """
        if self._held:
            suspect = self._held[0][0].stream.index
            self._held.append((packet, said))
            again = said is not None and packet.stream.index == suspect
            return self._release(said, again=again) if again or len(self._held) > HELD else []
        if said is None:
            return [packet]
        far = bool(self._ends) and said - self.now > BACK
        if far and self._fitting(packet, said) is None:
            self._held.append((packet, said))
            return []
        return [self._moved(packet, said)]

    def flush(self) -> list[Packet[Stream]]:
        """What is held, at the end of the file."""
        return self._release(None)

    def _release(self, confirmed: float | None, *, again: bool = False) -> list[Packet[Stream]]:
        """What was held; `confirmed` is said next, by the track of the first if `again`."""
        held, self._held = self._held, []
        ready = []
        for number, (packet, said) in enumerate(held):
            if said is None:
                ready.append(packet)
            elif not number and self._is_damage(packet, said, confirmed, again):
                self._counts[NUDGED] += 1
                end = self._end(packet)
                ready.append(self._put(packet, said, end - said))
            else:
                ready.append(self._moved(packet, said))
        return ready

    def _is_damage(
        self, packet: Packet[Stream], said: float, confirmed: float | None, again: bool
    ) -> bool:
        taken_back = confirmed is None or confirmed < said - BACK
        if said - self.now > AHEAD:
            return taken_back
        # That near, it may be a short gap before a new start, or a subtitle that comes early.
        goes_on = confirmed is not None and confirmed + self._shift >= self._end(packet)
        return taken_back and again and goes_on

    def _end(self, packet: Packet[Stream]) -> float:
        """Where its track ends so far or, before its first packet, all of them."""
        return self._ends.get(packet.stream.index, max(self._ends.values()))

    def _fitting(self, packet: Packet[Stream], said: float) -> float | None:
        """The shift by which the packet follows its track's last one, None if none does.

        It is that of this part or, about where they meet, of the one before.
        """
        end = self._ends.get(packet.stream.index)
        if end is not None and abs(said + self._shift - end) <= BACK:
            return self._shift
        late = self._joint - 2 * BACK < said + self._before
        if end is not None and late and abs(said + self._before - end) <= BACK:
            return self._before
        return None

    def _moved(self, packet: Packet[Stream], said: float) -> Packet[Stream]:
        shift, end = self._fitting(packet, said), self._ends.get(packet.stream.index)
        if shift is None and end is not None and said + self._shift < end - BACK:
            self._counts[CONTINUED] += 1
            self._joint = max(self._ends.values())
            self._before, self._shift = self._shift, self._joint - said
        return self._put(packet, said, self._shift if shift is None else shift)

    def _put(self, packet: Packet[Stream], said: float, shift: float) -> Packet[Stream]:
        base = float(packet.time_base)
        self._ends[packet.stream.index] = said + shift + (packet.duration or 0) * base
        ticks = round(shift / base)
        if packet.dts is not None:
            packet.dts += ticks
        if packet.pts is not None:
            packet.pts += ticks
        return packet
