"""Whether a window can be opened here: asked in a child process, as Qt aborts where it can't."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from stream.errors import SinkError

CURE = "write a file with -o out.mp4, or run with --headless"
PROBE = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1)"
PROBE_SECONDS = 20


def check_display(
    environ: Mapping[str, str] = os.environ,
    platform: str = sys.platform,
    probe: tuple[str, ...] = (sys.executable, "-c", PROBE),
) -> None:
    """Refuse where no window can be opened.

    Args:
        environ: environment variables.
        platform: as `sys.platform`.
        probe: command that opens a window and ends with 0 if it could.

    Raises:
        SinkError: naming the reason and what to do instead.
    """
    x11, wayland = environ.get("DISPLAY"), environ.get("WAYLAND_DISPLAY")
    if platform.startswith("linux") and not (x11 or wayland):
        raise SinkError(f"window: no display (DISPLAY and WAYLAND_DISPLAY are not set); {CURE}")
    try:
        done = subprocess.run(
            probe, env=dict(environ), capture_output=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise SinkError(
            f"window: the display does not answer in {PROBE_SECONDS} s; {CURE}"
        ) from None
    if done.returncode:
        where = x11 or wayland or platform
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        said = f" ({_telling(lines)})" if lines else ""
        raise SinkError(f"window: can't open one on display {where}{said}; {CURE}")


def _telling(lines: list[str]) -> str:
    """The line that says what went wrong: an error's if there is one, not the talk around it."""
    marked = [line for line in lines if "could not" in line.lower() or "error" in line.lower()]
    return (marked or lines)[0].strip()
