"""Text in ink, in OpenCV's plain font.

OpenCV loads its fonts anew in each thread that writes: 20 ms, as long as it takes to explain some
frames. So the ASCII letters of a size are drawn once, by whichever thread is first, and set side by
side as OpenCV does it: a whole number of pixels on for each, whatever its neighbours are. Other
text is left to OpenCV as a whole, which joins and orders the letters of a script.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

FONT = cv2.FONT_HERSHEY_SIMPLEX
PLAIN = frozenset(map(chr, range(ord(" "), ord("~") + 1)))
"""What is set letter by letter."""


class Size(NamedTuple):
    """Of a line of text, in pixels.

    Attributes:
        width: from the left edge of the first letter to the right one of the last.
        below: how far it reaches below the base line.
    """

    width: int
    below: int


class _Piece(NamedTuple):
    """Letters in ink: uint8 (H, W), its corner `above` the base line and `left` of the pen."""

    ink: NDArray[np.uint8]
    above: int
    left: int
    size: Size


def prepare(height: int) -> None:
    """Draw the ASCII letters of a height, if that is not done yet; see `measure`."""
    _shared(height)
    _alphabet(height)


def measure(text: str, height: int) -> Size:
    """How much room a line of text takes.

    Args:
        text: of one line.
        height: of a capital letter in pixels, from 1.
    """
    if not PLAIN.issuperset(text):
        return _measured(text, height)
    return _joined([_piece(part, height).size for part in _parts(text)], height)


def write(image: NDArray[np.uint8], text: str, pen: tuple[int, int], height: int) -> None:
    """Write a line of text.

    Args:
        image: uint8 (H, W), changed; 255 is full ink. It has to hold the text, and `height` / 4
            more on the left.
        text: as for `measure`.
        pen: (column, row) of the left end of the base line.
        height: as for `measure`.
    """
    if PLAIN.issuperset(text):
        _set(image, [_piece(part, height) for part in _parts(text)], pen, height)
    else:
        _written(image, text, pen, height)


def _parts(text: str) -> list[str]:
    """What stands together, and the wide gaps between: most comes again, if not in the same line.

    Of something that stands together its words and spaces, of a word its letters.
    """
    wide = re.findall(" {2,}|[^ ]+(?: [^ ]+)*| ", text)
    if len(wide) > 1:
        return wide
    words = re.findall(" |[^ ]+", text)
    return words if len(words) > 1 else list(text)


@lru_cache(maxsize=1024)
def _piece(text: str, height: int) -> _Piece:
    if len(text) == 1:
        return _alphabet(height)[text]
    parts = [_piece(part, height) for part in _parts(text)]
    size = _joined([part.size for part in parts], height)
    return _cut(size, height, lambda room, pen: _set(room, parts, pen, height))


@lru_cache(maxsize=32)
def _alphabet(height: int) -> dict[str, _Piece]:
    def drawn(char: str) -> _Piece:
        size = _measured(char, height)
        return _cut(size, height, lambda room, pen: _written(room, char, pen, height))

    return {char: drawn(char) for char in PLAIN}


@lru_cache(maxsize=32)
def _shared(height: int) -> int:
    """Columns that neighbours have in common, each measured by itself."""
    return 2 * _measured("x", height).width - _measured("xx", height).width


def _joined(sizes: Sequence[Size], height: int) -> Size:
    width = sum(size.width for size in sizes) - max(0, len(sizes) - 1) * _shared(height)
    return Size(width, max((size.below for size in sizes), default=0))


def _set(
    image: NDArray[np.uint8], pieces: Sequence[_Piece], pen: tuple[int, int], height: int
) -> None:
    (column, row), shared = pen, _shared(height)
    for piece in pieces:
        rows, columns = piece.ink.shape
        top, left = row - piece.above, column - piece.left
        place = image[top : top + rows, left : left + columns]
        np.maximum(place, piece.ink, out=place)
        column += piece.size.width - shared


def _cut(
    size: Size, height: int, fill: Callable[[NDArray[np.uint8], tuple[int, int]], None]
) -> _Piece:
    """What `fill` writes into an empty image, the pen where it is told, cut out."""
    pen = height, 2 * height
    room = np.zeros((pen[1] + size.below, pen[0] + size.width), np.uint8)
    fill(room, pen)
    left, top, columns, rows = cv2.boundingRect(room)
    ink = room[top : top + rows, left : left + columns].copy()
    return _Piece(ink, pen[1] - top, pen[0] - left, size)


def _style(height: int) -> tuple[float, int]:
    """OpenCV's scale and thickness of letters."""
    stroke = max(1, round(height / 12))
    return cv2.getFontScaleFromHeight(FONT, height, stroke), stroke


def _measured(text: str, height: int) -> Size:
    (width, _), below = cv2.getTextSize(text, FONT, *_style(height))
    return Size(width, below)


def _written(image: NDArray[np.uint8], text: str, pen: tuple[int, int], height: int) -> None:
    scale, stroke = _style(height)
    cv2.putText(image, text, pen, FONT, scale, 255, stroke, cv2.LINE_AA)
