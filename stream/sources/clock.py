"""The clock that some tracks of a file share: jumps continued, wild stamps mended."""

from __future__ import annotations

from collections import Counter

from av.packet import Packet
from av.stream import Stream

from stream.sources.stamps import BACK, CONTINUED, NUDGED

AHEAD = 10.0
"""Seconds that a stamp may lie ahead of all others before it has to be confirmed by the next."""
HELD = 500
"""Packets held at most until then."""


class Clock:
    """Moves the stamps of some tracks' packets, which come in the order of the file.

    A jump back by more than `BACK` begins a new part, which continues after the latest end of all
    tracks; the last packets of a part may come after the first ones of the next. A single stamp
    far ahead, that the track's next one takes back, is damage and becomes the end of the packet
    before it. A gap that lasts is left as it is.

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
            return self._release(said) if again or len(self._held) > HELD else []
        if said is None:
            return [packet]
        far = bool(self._ends) and said - self.now > AHEAD
        if far and self._fitting(packet, said) is None:
            self._held.append((packet, said))
            return []
        return [self._moved(packet, said)]

    def flush(self) -> list[Packet[Stream]]:
        """What is held, at the end of the file."""
        return self._release(None)

    def _release(self, confirmed: float | None) -> list[Packet[Stream]]:
        """What was held; `confirmed` is what the track of the first says next."""
        held, self._held = self._held, []
        ready = []
        for number, (packet, said) in enumerate(held):
            if said is None:
                ready.append(packet)
            elif not number and (confirmed is None or confirmed < said - BACK):
                self._counts[NUDGED] += 1
                end = self._ends.get(packet.stream.index, max(self._ends.values()))
                ready.append(self._put(packet, said, end - said))
            else:
                ready.append(self._moved(packet, said))
        return ready

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
