"""Letters drawn once give the text that OpenCV writes, in any thread."""

from __future__ import annotations

import random
import threading

import cv2
import numpy as np
import pytest

from stream import letters
from stream.letters import PLAIN, measure, write

HEIGHTS = (8, 9, 13, 20, 30, 60)


def opencv(text: str, height: int) -> tuple[tuple[int, int], np.ndarray]:
    """Its size and ink as OpenCV has it, the pen at (`height`, 2 * `height`)."""
    stroke = max(1, round(height / 12))
    scale = cv2.getFontScaleFromHeight(letters.FONT, height, stroke)
    (width, above), below = cv2.getTextSize(text, letters.FONT, scale, stroke)
    assert above == height
    ink = np.zeros((2 * height + below + 4, 2 * height + width), np.uint8)
    pen = height, 2 * height
    cv2.putText(ink, text, pen, letters.FONT, scale, 255, stroke, cv2.LINE_AA)
    return (width, below), ink


@pytest.mark.parametrize("height", HEIGHTS)
def test_writes_what_opencv_writes(height):
    draw = random.Random(height)
    texts = [" ", "golf_ball 87 %   cat 3 %", "AVATAR To", "  fi  ffl  ", "grün 猫 7 %"]
    texts += ["".join(draw.choices(sorted(PLAIN), k=draw.randint(1, 30))) for _ in range(40)]
    for text in texts:
        size, expected = opencv(text, height)
        assert measure(text, height) == size, text
        found = np.zeros_like(expected)
        write(found, text, (height, 2 * height), height)
        difference = np.abs(found.astype(int) - expected)
        # Where the soft edges of two letters meet, OpenCV adds them up.
        assert difference.max(initial=0) <= 64, text
        assert difference.sum() <= 0.1 * expected.sum(), text


def test_nothing_takes_no_room():
    assert measure("", 20) == (0, 0)
    image = np.zeros((4, 4), np.uint8)
    write(image, "", (2, 2), 20)
    assert not image.any()


def test_what_is_there_already_stays():
    _, ink = opencv("cat", 20)
    image = np.full_like(ink, 90)
    write(image, "cat", (20, 40), 20)
    assert np.array_equal(image, np.maximum(ink, 90))


def test_a_second_thread_loads_no_font(monkeypatch):
    write(np.zeros((60, 400), np.uint8), "first 1 %", (20, 40), 20)
    for name in ("getTextSize", "putText"):
        monkeypatch.setattr(letters.cv2, name, None)
    sizes = []
    thread = threading.Thread(target=lambda: sizes.append(measure("second: 23 %", 20)))
    thread.start()
    thread.join()
    assert sizes[0].width > 100
