"""An overlay that can be turned while it draws, by the keys of a window."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from nem.explanation import Explanation
from stream.frame import Frame
from stream.overlay import STYLES, Overlay, Style

RECENT = 13
"""Frames kept as they came, more than can be between the drawing and a window."""
STEP = 0.1
"""Strength per press of a key; it stays within STEP .. 1."""


class OverlayDial:
    """Draws with the overlay of the moment; safe from two threads, a turn sets one attribute.

    Args:
        overlay: what to begin with.
        fixed_size: True where a change of the picture's size would break another output, as a
            file: `next_style` then keeps to styles of the size begun with.
        keep: remember the last `RECENT` frames as they came, for `as_it_came`.
    """

    def __init__(self, overlay: Overlay, *, fixed_size: bool = False, keep: bool = False) -> None:
        self.overlay = overlay
        self._recent: deque[Frame] = deque(maxlen=RECENT if keep else 0)
        wide = overlay.style == "side"
        self._styles = [s for s in STYLES if not fixed_size or (s == "side") == wide]

    def __call__(self, frame: Frame, explanation: Explanation) -> Frame:
        """Draw, see `Overlay`."""
        self._recent.append(frame)
        return self.overlay(frame, explanation)

    def as_it_came(self, index: int) -> Frame | None:
        """Frame `index` with nothing drawn on it, if it is one of the last."""
        return next((frame for frame in tuple(self._recent) if frame.index == index), None)

    def next_style(self) -> Style:
        """Go to the next style and return it."""
        at = self._styles.index(self.overlay.style)
        style = self._styles[(at + 1) % len(self._styles)]
        self.overlay = replace(self.overlay, style=style)
        return style

    def change_strength(self, steps: int) -> float:
        """Raise (or lower, below zero) the strength by `steps` and return it."""
        strength = min(max(round(self.overlay.strength + steps * STEP, 2), STEP), 1.0)
        self.overlay = replace(self.overlay, strength=strength)
        return strength
