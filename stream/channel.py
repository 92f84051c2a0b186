"""Bounded hand-over between two threads, as between the stages of a camera.

A channel holds at most `capacity` items. When it is full the giver waits for room and nothing is
ever dropped; or, with `newest`, the oldest item makes room and is counted in `dropped`.

Closing wakes both sides. A plain close is an end: what was handed over is still taken. A close
with an error is a stop: the content is thrown away and both sides get `ChannelClosed`. There is
no polling; every wait is on one condition. Its lock is re-entrant, so that a signal handler may
close a channel while its own thread is inside one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")

IDLE_SECONDS = 0.05
"""How often who waits may do something else: a window has to answer its keys."""


class ChannelClosed(Exception):  # noqa: N818 - an end, not always an error
    """The channel takes or gives no more. `error` is why, or None after a plain close."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__("channel closed")
        self.error = error


class Channel(Generic[T]):
    """A first-in first-out hand-over of at most `capacity` items.

    Args:
        capacity: items held at most, >= 1.
        newest: what a full channel does, see the module's header.

    Attributes:
        dropped: items thrown away because a newer one came.
    """

    def __init__(self, capacity: int, *, newest: bool = False) -> None:
        self.dropped = 0
        self._capacity, self._newest = capacity, newest
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Hand over one item; when it is full see the module's header.

        Raises:
            ChannelClosed: if the channel is or gets closed; the item was not taken.
        """
        with self._changed:
            while len(self._items) >= self._capacity and not self._closed:
                if self._newest:
                    self._items.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if self._closed:
                raise ChannelClosed(self._error)
            self._items.append(item)
            self._changed.notify_all()

    def get(self, idle: Callable[[], object] | None = None) -> T:
        """Take the oldest item; wait while there is none.

        Args:
            idle: called every `IDLE_SECONDS` while waiting, on this thread.

        Raises:
            ChannelClosed: if it was closed and is empty, or was closed with an error.
        """
        while True:
            with self._changed:
                if not self._items and not self._closed:
                    self._changed.wait(IDLE_SECONDS if idle else None)
                if self._items:
                    item = self._items.popleft()
                    self._changed.notify_all()
                    return item
                if self._closed:
                    raise ChannelClosed(self._error)
            if idle:
                idle()

    def __iter__(self) -> Iterator[T]:
        """See `items`."""
        return self.items()

    def items(self, idle: Callable[[], object] | None = None) -> Iterator[T]:
        """Items until a plain close; `idle` as in `get`.

        Raises:
            ChannelClosed: if the channel was closed with an error.
        """
        while True:
            try:
                item = self.get(idle)
            except ChannelClosed as end:
                if end.error is not None:
                    raise
                return
            yield item

    def close(self, error: BaseException | None = None) -> None:
        """End the hand-over and wake both sides.

        Args:
            error: None to let what was handed over be taken; else the content is thrown away.
                The first error is kept.
        """
        with self._changed:
            self._closed = True
            if error is not None:
                self._error = self._error or error
                self._items.clear()
            # Always, even when closed before: a signal handler's own notification can fall
            # between its thread's last look and its wait; the next close then wakes it.
            self._changed.notify_all()
