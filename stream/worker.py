"""The only place that starts threads: named, stopped together, joined with a deadline.

A crew is a handful of threads that live and end together. The first error of any of them is
kept and stops all; what follows from being stopped (`ChannelClosed`) is no error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import RLock, Thread

from stream.channel import ChannelClosed

log = logging.getLogger(__name__)


class Crew:
    """Threads that work together.

    Args:
        stop: called once, with the first error; has to make every job return.

    Attributes:
        error: the first error, or None.
    """

    def __init__(self, stop: Callable[[BaseException], None]) -> None:
        self.error: BaseException | None = None
        self._stop = stop
        self._threads: list[Thread] = []
        self._lock = RLock()

    def start(self, name: str, job: Callable[[], None]) -> None:
        """Run `job` in a new thread called nem-`name`."""
        # Daemon only so that a source hung in a driver can't keep a finished process alive; a
        # crew that ends in good order has joined them all.
        thread = Thread(target=self._run, args=(job,), name=f"nem-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self, error: BaseException) -> None:
        """Stop all because of `error`. Only the first call counts."""
        with self._lock:
            if self.error is not None:
                return
            self.error = error
        self._stop(error)

    def join(self, seconds: float) -> list[str]:
        """Wait for all threads, at most `seconds` in all.

        Returns:
            Names of the threads still alive; empty when all have ended.
        """
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except ChannelClosed:
            log.debug("stopped by another thread")
        except BaseException as error:  # noqa: BLE001 - handed to the caller, never swallowed
            self.stop(error)
