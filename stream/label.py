"""The label line: class names and percentages on a dark strip in the top left corner.

`cv2.putText` draws most scripts, and "?" for what its font lacks. So each character is tried once;
what can't be drawn is folded to ASCII letters where it has some (é -> e, ß -> ss) and else spelled
as its code (U+1F408).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.colour import ColourTags
from stream.letters import FONT, PLAIN, measure, prepare, write
from stream.paint import Planes
from stream.palette import yuv
from stream.worker import Crew

TEXT_SHARE = 1 / 36
"""Height of the letters per shorter side: 20 pixels at 720p, also of an upright picture."""
MIN_TEXT = 8
"""Lower letters can't be read; a picture too small for them gets no label."""
MAX_STRIP_SHARE = 1 / 3
"""A strip may not hide more of the picture's height than this."""
AHEAD_SECONDS = 1.0
"""How long to wait for letters at most."""
INK, STRIP = (240, 240, 240), (16, 16, 16)
# Letters that Unicode gives no decomposition into a plain letter and marks.
SPELLED = {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d"}
SPELLED |= {"Đ": "D", "ł": "l", "Ł": "L", "ı": "i", "þ": "th", "Þ": "Th", "ð": "d", "Ð": "D"}
SPELLED |= {"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."}


@contextmanager
def letters_ahead(height: int, width: int) -> Iterator[None]:
    """A thread draws the letters of such a picture's label while the caller does something else.

    The first label would wait 20 ms for them, and with it all that is under way.
    """
    crew = Crew(lambda _: None)  # what fails here fails again when it is needed
    crew.start("letters", partial(prepare, _letters(height, width)))
    try:
        yield
    finally:
        crew.join(AHEAD_SECONDS)


def draw_label(
    planes: Planes, entries: Sequence[tuple[str, float]], tags: ColourTags, lead: str = ""
) -> None:
    """Draw `make_label` onto `planes` in place; all under it is overwritten."""
    strip = make_label(planes[0].shape[:2], entries, tags, lead)
    if strip is not None:
        for plane, piece in zip(planes, strip, strict=True):
            plane[: piece.shape[0], : piece.shape[1]] = piece


def make_label(
    size: tuple[int, int],
    entries: Sequence[tuple[str, float]],
    tags: ColourTags,
    lead: str = "",
) -> Planes | None:
    """The strip "lead   name 87 %   ..." with as many entries as fit, best first.

    Args:
        size: (height, width) of the picture it is for.
        entries: names and probabilities in [0, 1], best first.
        tags: how the planes are to be read.
        lead: what is explained, before them; "" for nothing.

    Returns:
        Planes of even sides for the top left corner; None if nothing fits, or nothing is to say.
    """
    texts = [f"{name} {100 * share:.0f} %" for name, share in entries]
    coverage = _strip(lead, tuple(texts), *size)
    if coverage is None:
        return None
    ink, strip = yuv(INK, tags), yuv(STRIP, tags)
    y = cv2.convertScaleAbs(coverage, alpha=(ink[0] - strip[0]) / 255, beta=strip[0])
    half = coverage.shape[0] // 2, coverage.shape[1] // 2
    u, v = (np.full(half, level, np.uint8) for level in strip[1:])
    return np.asarray(y, np.uint8), u, v


def drawable(text: str) -> str:
    """`text` with every character that this OpenCV can't draw folded or spelled (see above).

    Half characters, as in file names that are no UTF-8, become "?".
    """
    if PLAIN.issuperset(text):
        return text
    return "".join(_drawable(char) for char in text.encode("utf-8", "replace").decode())


def fold(char: str) -> str:
    """ASCII for one character: its plain letters where it has some, else "U+" and its code."""
    if char in SPELLED:
        return SPELLED[char]
    plain = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    if plain.strip():
        return plain
    if char.isspace() or unicodedata.category(char).startswith("M"):
        return " " if char.isspace() else ""
    return f"U+{ord(char):04X}"


@lru_cache(maxsize=4096)
def _drawable(char: str) -> str:
    if char in PLAIN:
        return char
    drawn = _trial(char)
    missing = any(np.array_equal(drawn, _trial(sign)) for sign in ("", "?"))
    return fold(char) if missing else char


def _trial(text: str) -> NDArray[np.uint8]:
    image = np.zeros((48, 128), np.uint8)
    cv2.putText(image, text, (8, 32), FONT, 0.8, 255, 1)
    return image


@lru_cache(maxsize=32)
def _strip(lead: str, texts: tuple[str, ...], height: int, width: int) -> NDArray[np.uint8] | None:
    """How much ink each pixel of the strip has, uint8 of even size; None if nothing fits."""
    letters = _letters(height, width)
    parts = (lead, *texts) if lead else texts
    for count in range(len(parts), 0, -1):
        found = _fitting("   ".join(parts[:count]), letters, height, width)
        if found is not None:
            return found
    if not parts:
        return None
    found = _fitting(parts[0], MIN_TEXT, height, width)
    if found is not None:
        return found
    if lead:  # "target: tab..", else at least the classes
        found = _shortened(lead, "", lead.find(": ") + 5, height, width)
        return found if found is not None else _strip("", texts, height, width)
    name, share, unit = texts[0].rsplit(" ", 2)
    return _shortened(name, f" {share} {unit}", 3, height, width)


def _letters(height: int, width: int) -> int:
    """How high they are."""
    return max(MIN_TEXT, round(min(height, width) * TEXT_SHARE))


def _shortened(
    name: str, rest: str, least: int, height: int, width: int
) -> NDArray[np.uint8] | None:
    """The name cut so that it and the rest fit; at least so many letters of it must."""
    for length in range(len(name) - 1, least - 1, -1):
        found = _fitting(f"{name[:length]}..{rest}", MIN_TEXT, height, width)
        if found is not None:
            return found
    return None


def _fitting(text: str, letters: int, height: int, width: int) -> NDArray[np.uint8] | None:
    text = drawable(text)
    size = measure(text, letters)
    margin = letters // 2
    rows = _even(letters + size.below + margin)
    columns = _even(size.width + 2 * margin)
    if columns > width or rows > height * MAX_STRIP_SHARE:
        return None
    ink = np.zeros((rows, columns), np.uint8)
    write(ink, text, (margin, margin // 2 + letters), letters)
    return ink


def _even(size: int) -> int:
    return size + size % 2
