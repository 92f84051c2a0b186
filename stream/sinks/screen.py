"""A window in a process of its own.

Qt, which draws OpenCV's windows, ends its whole process where there is no display, wants the main
thread, and hangs in a process that has loaded PyAV before (both bring an X library of one name).
In a child none of this can hurt.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import SinkError

VIEWER = Path(__file__).with_name("viewer.py")
CURE = "write a file with -o out.mp4, or scores alone with --scores - --headless"
START_SECONDS = 20.0
END_SECONDS = 2.0


class Screen:
    """A window that shows pictures and tells keys.

    Args:
        title: of the window.
        environ: environment variables.
        platform: as `sys.platform`.
        viewer: program that talks as `stream.sinks.viewer`.

    Raises:
        SinkError: if no window can be opened here, with the reason and what to do instead.
    """

    def __init__(
        self,
        title: str,
        *,
        environ: Mapping[str, str] = os.environ,
        platform: str = sys.platform,
        viewer: Path = VIEWER,
    ) -> None:
        display = environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")
        if platform.startswith("linux") and not display:
            raise SinkError(f"window: no display (DISPLAY and WAYLAND_DISPLAY are not set); {CURE}")
        self._where = f"on display {display}" if display else "here"
        # Qt complains about fonts that these windows have no use for.
        environ = {"QT_LOGGING_RULES": "default.warning=false", **environ}
        if wanted := environ.get("QT_QPA_PLATFORM"):
            # As wayland, for the desktop's own programs. The Qt in OpenCV has xcb alone.
            environ["QT_QPA_PLATFORM"] = f"{wanted};xcb"
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._viewer = subprocess.Popen(
            # -P: this folder has modules with everyday names, none of them meant for imports.
            # A title that is no UTF-8, as a file's name may be, would end OpenCV.
            [sys.executable, "-P", str(viewer), title.encode("utf-8", "replace").decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environ,
            start_new_session=True,  # Ctrl-C is for this process
        )
        watchdog = threading.Timer(START_SECONDS, self._viewer.kill)
        watchdog.start()
        try:
            self._read()
        except BaseException:
            self.close()
            raise
        finally:
            watchdog.cancel()
            watchdog.join()

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Show BGR uint8 (H, W, 3); the window takes its size when that changes."""
        height, width = picture.shape[:2]
        self._send({"show": [height, width]}, np.ascontiguousarray(picture).data)

    def poll(self, milliseconds: int) -> tuple[int, bool]:
        """Let the window work.

        Args:
            milliseconds: to wait for a key at most.

        Returns:
            The code of a key or -1, and whether the window is still open.
        """
        self._send({"poll": milliseconds})
        return self._read()

    def close(self) -> None:
        """Close the window and end its process. Closing twice is fine."""
        assert self._viewer.stdin is not None
        assert self._viewer.stdout is not None
        with suppress(OSError):
            self._viewer.stdin.close()
        try:
            self._viewer.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._viewer.kill()
            self._viewer.wait()
        self._viewer.stdout.close()
        self._said.close()

    def _send(self, request: dict[str, Any], data: memoryview | bytes = b"") -> None:
        assert self._viewer.stdin is not None
        try:
            self._viewer.stdin.write(json.dumps(request).encode() + b"\n")
            self._viewer.stdin.write(data)
            self._viewer.stdin.flush()
        except OSError as error:
            raise self._failed() from error

    def _read(self) -> tuple[int, bool]:
        assert self._viewer.stdout is not None
        line = self._viewer.stdout.readline()
        if not line:
            raise self._failed()
        answer = json.loads(line)
        return int(answer["key"]), bool(answer["open"])

    def _failed(self) -> SinkError:
        self._viewer.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        reason = _telling([line.strip() for line in lines if line.strip()])
        return SinkError(f"window: can't be shown {self._where}{reason}; {CURE}")


def check_display() -> None:
    """Refuse where no window can be opened, by opening one.

    Raises:
        SinkError: as of `Screen`.
    """
    Screen("nem-stream").close()


def _telling(lines: list[str]) -> str:
    """The line that says what went wrong: an error's if there is one, not the talk around it."""
    marked = [line for line in lines if "could not" in line.lower() or "error" in line.lower()]
    return f" ({(marked or lines)[0]})" if lines else ""
