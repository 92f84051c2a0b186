"""A window that shows the frames as they come, with keys."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from nem.explanation import Explanation
from nem.relax import KEEP, bound, span_of
from stream.aim import AimDial
from stream.dial import OverlayDial
from stream.frame import Frame
from stream.refine import Refiner
from stream.sinks.base import Sink
from stream.sinks.partial import SUFFIX as PARTIAL
from stream.sinks.screen import Screen

log = logging.getLogger(__name__)

HELP = (
    "q, Esc  quit",
    "space   pause",
    "c       while paused: compare with RELAX, better with each second",
    "s       save a picture",
    "e       explain the next: embedding, class, ranking, target",
    "t       explain the best class; again, the next best",
    "o       next overlay style",
    "+ -     strength",
    "h       this help",
)
MAX_SIZE = (720, 1280)
"""Frames are shown at most this high and wide; pictures saved with s are whole."""
TOAST_SECONDS = 2.0
PAUSED_POLL_MS = 30
LATE_SECONDS = 0.25
"""A paced picture later than this is shown at once, and the clock starts anew from it."""
ESCAPE = 27


class Shows(Protocol):
    """What a `stream.sinks.screen.Screen` does."""

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Show BGR uint8 (H, W, 3)."""

    def poll(self, milliseconds: int) -> tuple[int, bool]:
        """Code of a key or -1, and whether the window is open."""

    def close(self) -> None:
        """Close the window."""


class WindowSink(Sink):
    """Shows frames in a window.

    Keys: q or Esc quit, space pause, s picture, e next aim, t next target, c RELAX of a paused
    frame, o next style, + and - strength, h help. Closing the window quits. While paused `write`
    does not return, so that files wait and cameras drop.

    Args:
        title: of the window.
        dial: the overlay that o, + and - turn; None disables these keys.
        paced: hold frames back to their own time stamps, for a file faster than its clock.
        snapshots: directory for pictures.
        say: told in words what a key did, besides the window itself; None logs it.
        screen: the window; None opens one.
        clock: seconds.

    Attributes:
        aim: what e and t turn; None, until it is set, disables these keys.
        explain: explains a frame by the aim of the moment, so that turning it shows at once while
            paused; None leaves a paused frame as it is.
        refine: makes the `Refiner` of a frame for c; None disables it, as does a missing dial.

    Raises:
        SinkError: if no window can be opened here.
    """

    def __init__(
        self,
        title: str = "nem-stream",
        *,
        dial: OverlayDial | None = None,
        paced: bool = False,
        snapshots: Path = Path(),
        say: Callable[[str], None] | None = None,
        screen: Shows | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dial, self._snapshots = dial, snapshots
        self._say = say or log.info
        self._clock = clock
        self._screen = screen or Screen(title)
        self._paced = paced
        self._epoch: float | None = None
        self._frame: Frame | None = None
        self._explanation: Explanation | None = None
        self.aim: AimDial | None = None
        self.explain: Callable[[Frame], Explanation] | None = None
        self.refine: Callable[[Frame], Refiner] | None = None
        self._refiner: Refiner | None = None
        self._toast, self._toast_until = "", 0.0
        self._help = self._paused = self._quit = self._closed = False

    def write(self, frame: Frame, explanation: Explanation) -> None:
        """Show one frame, at its time if paced; waits while paused."""
        if self._quit:
            return
        self._frame, self._explanation = frame, explanation
        self._wait_for_time(frame)
        self._show()
        self.pump()
        while self._paused and not self._quit:
            self.pump(1 if self._refiner else PAUSED_POLL_MS)
            self._refine_further()
        self._refiner = None

    def pump(self, milliseconds: int = 1) -> None:
        """Let the window work and answer its keys, also while no frame comes."""
        if self._closed or self._quit:
            return
        key, is_open = self._screen.poll(max(1, milliseconds))
        if not is_open:
            self._quit = True
        elif key >= 0:
            self._answer(key)

    def stop_requested(self) -> bool:
        """True after q, Esc or a closed window."""
        return self._quit

    def interrupt(self) -> None:
        """Go on if paused, as the run ends."""
        self._paused = False
        self._paced = False

    def close(self, *, whole: bool = True) -> None:
        """Close the window."""
        if self._closed:
            return
        self._closed = True
        self._screen.close()

    def _wait_for_time(self, frame: Frame) -> None:
        while self._paced and not self._quit and not self._paused:
            now = self._clock()
            if self._epoch is None or now - self._epoch - frame.pts_seconds > LATE_SECONDS:
                self._epoch = now - frame.pts_seconds
            left = self._epoch + frame.pts_seconds - now
            if left <= 0:
                return
            self.pump(min(PAUSED_POLL_MS, int(left * 1000)))

    def _answer(self, key: int) -> None:
        name = chr(key).lower()
        if key == ESCAPE or name == "q":
            self._quit = True
        elif name == " ":
            self._paused = not self._paused
            self._tell("paused" if self._paused else "going on")
        elif name == "s":
            self._save()
        elif name == "c":
            self._begin_refining()
        elif name == "h":
            self._help = not self._help
        elif name == "e" and self.aim is not None:
            self._tell(self.aim.next_aim())
            self._draw_paused(anew=True)
        elif name == "t" and self.aim is not None and self._explanation is not None:
            self._tell(self.aim.next_target(self._explanation))
            self._draw_paused(anew=True)
        elif name == "o" and self._dial is not None:
            self._tell(f"overlay {self._dial.next_style()}")
            self._draw_paused()
        elif name in "+=-" and self._dial is not None:
            strength = self._dial.change_strength(-1 if name == "-" else 1)
            self._tell(f"strength {strength:.1f}")
            self._draw_paused()
        self._show()

    def _draw_paused(self, *, anew: bool = False) -> None:
        """Draw the paused frame by what a key has just turned, explained `anew` or as it was."""
        if not self._paused or self._dial is None or self._frame is None:
            return
        raw = self._dial.as_it_came(self._frame.index)
        if raw is None:
            return
        if anew and self.explain is not None:
            self._explanation, self._refiner = self.explain(raw), None
        assert self._explanation is not None
        self._frame = self._dial.overlay(raw, self._explanation)

    def _begin_refining(self) -> None:
        if self.refine is None or self._dial is None or self._frame is None:
            return
        if not self._paused:
            self._tell("pause first (space), then c")
            return
        raw = self._dial.as_it_came(self._frame.index)
        if raw is None:
            self._tell("this frame is not kept any more; go on and pause again")
            return
        self._refiner = self.refine(raw)

    def _refine_further(self) -> None:
        """One step towards the slow reference's map of the paused frame."""
        if self._refiner is None or self._dial is None or self._refiner.done or self._quit:
            return
        self._explanation = self._refiner.step()
        self._frame = self._dial.overlay(self._refiner.frame, self._explanation)
        seen = self._refiner.seen
        error = bound(seen, span=span_of(self._explanation.embedding), keep=KEEP)
        self._toast = f"RELAX after {seen} masks, +-{error:.2f}"
        if self._refiner.done:
            self._say(self._toast)
        self._show()

    def _save(self) -> None:
        if self._frame is None:
            return
        picture = cv2.cvtColor(self._frame.rgb(), cv2.COLOR_RGB2BGR)
        stem = f"nem-stream-{self._frame.index:06d}"
        number = 1
        while (path := self._snapshots / f"{stem}{f'-{number}' * (number > 1)}.png").exists():
            number += 1
        partial = path.with_name(path.name + PARTIAL)
        try:
            partial.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            # As it is: a folder that was removed has no absolute path.
            self._tell(f"picture not saved: {path}: {error.strerror}")
        else:
            self._tell(f"saved {path.absolute()}")

    def _tell(self, words: str) -> None:
        self._toast, self._toast_until = words, self._clock() + TOAST_SECONDS
        self._say(words)

    def _show(self) -> None:
        if self._frame is None or self._quit:
            return
        size = fitted((self._frame.height, self._frame.width), MAX_SIZE)
        picture = cv2.cvtColor(self._frame.rgb(size), cv2.COLOR_RGB2BGR)
        lines = list(HELP) if self._help else []
        if self._toast and (self._paused or self._clock() < self._toast_until):
            lines.append(self._toast)
        _print(picture, lines)
        self._screen.show(np.asarray(picture, np.uint8))


def fitted(size: tuple[int, int], limit: tuple[int, int]) -> tuple[int, int]:
    """`size` (height, width) reduced in proportion until it is within `limit`; never enlarged."""
    scale = min(1.0, limit[0] / size[0], limit[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _print(picture: NDArray[Any], lines: list[str]) -> None:
    """Words in the bottom left corner, each on a dark strip, in place."""
    for row, line in enumerate(reversed(lines)):
        (width, height), below = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
        bottom = picture.shape[0] - row * (height + below + 6)
        top = max(0, bottom - height - below - 6)
        picture[top : max(bottom, 0), : width + 12] //= 4
        place = (6, bottom - below - 3)
        cv2.putText(
            picture, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (240, 240, 240), 1, cv2.LINE_AA
        )
