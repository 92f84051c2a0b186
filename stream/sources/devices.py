"""Camera devices: which there are, why one can't be used, and opening one quietly."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2

from nem.opencv import quiet
from stream.errors import SourceError
from stream.sources.names import natural_key

Device = int | str
DEV = Path("/dev")
NAMES = Path("/sys/class/video4linux")


def describe(device: Device) -> str:
    """The name of a camera in messages: "camera 0"."""
    return f"camera {device}"


def cameras() -> list[tuple[str, str]]:
    """(path, name) of the video devices of this machine; Linux only, empty elsewhere.

    A camera often has several: pictures come from the first, the others carry metadata.
    """
    found = []
    for path in sorted(DEV.glob("video[0-9]*"), key=natural_key):
        label = NAMES / path.name / "name"
        found.append((str(path), label.read_text().strip() if label.is_file() else ""))
    return found


def check_device(device: Device) -> None:
    """Refuse a camera that the system doesn't have or doesn't let us use (Linux).

    Raises:
        SourceError: naming the devices found, or how to get permission.
    """
    if not sys.platform.startswith("linux"):
        return
    path = DEV / f"video{device}" if isinstance(device, int) else Path(device)
    if not path.exists():
        found = [f"{p} ({name})" if name else p for p, name in cameras()]
        cure = f"found {', '.join(found)}" if found else f"found no {DEV}/video*; plug one in"
        raise SourceError(f"{describe(device)}: there is no {path}; {cure}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceError(
            f"{describe(device)}: no permission for {path}; join its group with "
            "'sudo usermod -aG video $USER' and log in again"
        )


def open_capture(device: Device) -> cv2.VideoCapture:
    """Open a camera with OpenCV; its own messages on stderr are kept back."""
    backend = cv2.CAP_V4L2 if sys.platform.startswith("linux") else cv2.CAP_ANY
    with quiet():
        return cv2.VideoCapture(device, backend)
