"""Calls that may never come back, each with a time limit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

GRACE_SECONDS = 0.2
"""What a call gets after its limit: if the whole process was stopped (Ctrl-Z) it had no time."""

T = TypeVar("T")


class TimedOut(Exception):  # noqa: N818 - says that a limit passed, callers decide what it means
    """The call did not come back in time."""


class SideThread:
    """Runs calls one after another in a thread of its own, so that the caller can stop waiting.

    A driver may block for ever; no call to it can be broken off from outside. The thread is a
    daemon: one that is stuck holds up neither `close` nor the end of the program.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], object], SimpleQueue[object]] | None]
        self._jobs = SimpleQueue()
        self._current: SimpleQueue[object] = SimpleQueue()
        self._given_up = False
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def call(self, job: Callable[[], T], limit: float) -> T:
        """Run `job` there and wait for its result.

        Args:
            job: what to run.
            limit: seconds to wait at most.

        Raises:
            TimedOut: if it takes longer, or `give_up` was called; it goes on running unseen.
            BaseException: whatever the job raises.
        """
        answer: SimpleQueue[object] = SimpleQueue()
        self._current = answer
        if self._given_up:
            raise TimedOut
        self._jobs.put((job, answer))
        for seconds in (limit, GRACE_SECONDS):
            with suppress(Empty):
                result = answer.get(timeout=seconds)
                break
        else:
            raise TimedOut
        if isinstance(result, _Raised):
            raise result.error
        return result  # type: ignore[return-value]  # put there by this job alone

    def give_up(self) -> None:
        """Make a waiting `call`, and every later one, raise `TimedOut` at once."""
        self._given_up = True
        self._current.put(_Raised(TimedOut()))

    def finish(self, last: Callable[[], object]) -> None:
        """Run `last` after the job at hand, unless that never ends, then end the thread."""
        self._jobs.put((last, SimpleQueue()))
        self._jobs.put(None)

    def join(self, limit: float) -> bool:
        """Wait for the thread after `finish`; True if it ended within `limit` seconds."""
        self._thread.join(limit)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, answer = item
            try:
                answer.put(job())
            except BaseException as error:  # noqa: BLE001 - handed over to the caller
                answer.put(_Raised(error))


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error
