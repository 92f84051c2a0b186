"""The process that owns the window: pictures in on stdin, keys out on stdout.

Run as a program of its own by `stream.sinks.screen`, and so importing nothing of this package.

    in   {"show": [height, width]}, then height x width x 3 bytes of BGR
    in   {"poll": milliseconds}
    out  {"key": code or -1, "open": true or false}     after the start and after each poll

Codes under 128 are characters.
"""

from __future__ import annotations

import json
import sys
from typing import Any, BinaryIO

import cv2
import numpy as np

FLAGS = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL


def serve(title: str, requests: BinaryIO, answers: BinaryIO, gui: Any = cv2) -> None:
    """Open the window and do as asked until `requests` ends.

    Args:
        title: of the window.
        requests: read from, see the module's header.
        answers: written to.
        gui: OpenCV, or what stands in for its window functions.
    """
    size = None

    def poll(milliseconds: int) -> None:
        # Not waitKey, whose codes are cut to a byte: an arrow would be a letter, the left one Q.
        code = gui.waitKeyEx(max(1, milliseconds))  # 0 would wait for ever
        key = code & 0xFFFF if code >= 0 else -1  # above are Shift, Num Lock and the like
        try:
            visible = gui.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # so with Qt, which ends with its last window
            visible = False
        # Before the first picture some systems do not count the window as visible.
        is_open = visible or size is None
        answers.write(json.dumps({"key": key, "open": is_open}).encode() + b"\n")
        answers.flush()

    gui.namedWindow(title, FLAGS)
    poll(1)
    for line in requests:
        request = json.loads(line)
        if "poll" in request:
            poll(request["poll"])
            continue
        height, width = request["show"]
        pixels = requests.read(height * width * 3)
        if size != (height, width):
            size = height, width
            gui.resizeWindow(title, width, height)
        gui.imshow(title, np.frombuffer(pixels, np.uint8).reshape(height, width, 3))


if __name__ == "__main__":
    serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
