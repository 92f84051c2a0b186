"""Draw an explanation on a frame: how to draw is the constructor's, what to draw the call's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np

from nem.explanation import Explanation
from stream.aim import in_words
from stream.colour import ColourTags
from stream.errors import UsageError
from stream.frame import Frame
from stream.gpu_frame import GpuFrame
from stream.label import draw_label, make_label
from stream.paint import Levels, Planes, outline, side_by_side, tint
from stream.palette import COLORMAPS, Colormap, Tints, dim_tints, heat_tints, yuv

Style = Literal["heat", "contour", "dim", "side"]
STYLES: tuple[Style, ...] = get_args(Style)
DRAWN_THERE: tuple[Style, ...] = ("heat", "dim")
"""Styles that a frame on a GPU is drawn in there; for others it comes down."""
LINE, CASING = (255, 225, 0), (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Overlay:
    """A way to draw. Calling it with a frame and its explanation gives a new frame.

    Nothing is remembered between calls, and neither frame nor explanation is changed. A mask
    value is drawn as it is: no gamma, no stretching to the frame's own minimum and maximum.

    Attributes:
        style: `heat` tints by mask strength; `contour` draws the border of mask >= threshold;
            `dim` darkens what the mask leaves out; `side` puts the frame and its `heat` side by
            side, twice as wide (an odd width is evened first).
        colormap: of `heat` and `side`.
        strength: opacity in (0, 1] of the tint at mask 1 (heat, side), of the line (contour), of
            the darkness at mask 0 (dim).
        threshold: in (0, 1), for `contour`.
        label: number of classes in the label line, 0 for none.

    Raises:
        UsageError: if an option is out of range.
    """

    style: Style = "heat"
    colormap: Colormap = "inferno"
    strength: float = 0.65
    threshold: float = 0.5
    label: int = 3

    def __post_init__(self) -> None:
        for option, value, allowed in (
            ("style", self.style, STYLES),
            ("colormap", self.colormap, COLORMAPS),
        ):
            if value not in allowed:
                raise UsageError(f"overlay {option}: {value!r}; choose from {', '.join(allowed)}")
        if not 0 < self.strength <= 1:
            raise UsageError(f"overlay strength: {self.strength}; choose 0 < strength <= 1")
        if not 0 < self.threshold < 1:
            raise UsageError(f"overlay threshold: {self.threshold}; choose 0 < threshold < 1")
        if self.label < 0:
            raise UsageError(f"overlay label: {self.label}; choose 0 or a number of classes")

    def __call__(self, frame: Frame, explanation: Explanation) -> Frame:
        """Draw.

        Args:
            frame: of any size.
            explanation: of this one frame (N = 1).

        Returns:
            A frame with planes of its own; index, times and colour tags are the input's.

        Raises:
            ValueError: if the explanation holds another number of masks.
        """
        if len(explanation.mask) != 1:
            raise ValueError(f"overlay: expected one mask, got {explanation.mask.shape}")
        levels = np.asarray(cv2.convertScaleAbs(explanation.mask[0], alpha=255), np.uint8)
        entries, lead = [], ""
        if self.label:
            entries, lead = explanation.top(self.label), in_words(explanation)
        if isinstance(frame, GpuFrame) and self.style in DRAWN_THERE:
            label = make_label((frame.height, frame.width), entries, frame.colour, lead)
            return frame.tinted(levels, self._tints(frame.colour), label)
        y, u, v = planes = self._draw(frame, levels)
        draw_label(planes, entries, frame.colour, lead)
        return Frame(y, u, v, *frame.facts)

    def _draw(self, frame: Frame, levels: Levels) -> Planes:
        planes, tags = (frame.y, frame.u, frame.v), frame.colour
        if self.style == "contour":
            threshold = max(1, round(255 * self.threshold))
            line, casing = yuv(LINE, tags), yuv(CASING, tags)
            return outline(planes, levels, threshold, self.strength, line, casing)
        drawn = tint(planes, levels, self._tints(tags))
        return side_by_side(planes, drawn) if self.style == "side" else drawn

    def _tints(self, tags: ColourTags) -> Tints:
        if self.style == "dim":
            return dim_tints(self.strength, tags)
        return heat_tints(self.colormap, self.strength, tags)
