"""What the window's process does with OpenCV."""

from __future__ import annotations

import io
import json

import cv2
import numpy as np
import pytest

from stream.sinks.viewer import serve


class FakeGui:
    """The window functions of OpenCV; `keys` are what `waitKeyEx` returns, one by one."""

    def __init__(self, keys=()) -> None:
        self._keys = iter(keys)
        self.calls: list[tuple] = []
        self.shown: list[np.ndarray] = []
        self.visible = 1.0

    def namedWindow(self, title, flags):  # noqa: N802
        self.calls.append(("namedWindow", title))

    def resizeWindow(self, title, width, height):  # noqa: N802
        self.calls.append(("resizeWindow", title, width, height))

    def imshow(self, title, picture):
        self.calls.append(("imshow", title))
        self.shown.append(picture)

    def waitKeyEx(self, milliseconds):  # noqa: N802
        assert milliseconds > 0, "0 waits for ever"
        return next(self._keys, -1)

    def getWindowProperty(self, title, prop):  # noqa: N802
        if self.visible is None:
            raise cv2.error("NULL guiReceiver (please create a window)")
        return self.visible


def show(picture: np.ndarray) -> bytes:
    return json.dumps({"show": picture.shape[:2]}).encode() + b"\n" + picture.tobytes()


def run(gui: FakeGui, *requests: bytes) -> list[dict]:
    answers = io.BytesIO()
    serve("name", io.BytesIO(b"".join(requests)), answers, gui)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


POLL = b'{"poll": 0}\n'


def test_answers_once_the_window_is_open():
    gui = FakeGui()
    assert run(gui) == [{"key": -1, "open": True}]
    assert gui.calls == [("namedWindow", "name")]


def test_shows_pictures_byte_by_byte():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, size, np.uint8) for size in [(4, 6, 3), (4, 6, 3), (5, 2, 3)]]
    gui = FakeGui()
    run(gui, *(show(p) for p in pictures))
    assert all(np.array_equal(a, b) for a, b in zip(gui.shown, pictures, strict=True))
    assert [c for c in gui.calls if c[0] == "resizeWindow"] == [
        ("resizeWindow", "name", 6, 4),
        ("resizeWindow", "name", 2, 5),
    ]


def test_tells_keys():
    answers = run(FakeGui([-1, 113, -1]), POLL, POLL)
    assert [a["key"] for a in answers] == [-1, 113, -1]


@pytest.mark.parametrize(
    ("code", "key"),
    [(0x100071, ord("q")), (0xFF51, 0xFF51), (0x10FF53, 0xFF53), (27, 27)],
    ids=["q with Num Lock, GTK", "left", "right with Num Lock, GTK", "Esc"],
)
def test_arrows_are_no_letters(code, key):
    assert run(FakeGui([-1, code]), POLL)[1]["key"] == key


@pytest.mark.parametrize("visible", [0.0, -1.0, None], ids=["hidden", "gone", "Qt has ended"])
def test_a_window_counts_as_closed_only_after_it_showed_something(visible):
    gui = FakeGui()
    gui.visible = visible
    answers = run(gui, POLL, show(np.zeros((2, 2, 3), np.uint8)), POLL)
    assert [a["open"] for a in answers] == [True, True, False]
