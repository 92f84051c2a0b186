"""The window's process, from outside: started, killed, hung, and on a real X server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import av  # noqa: F401 - what hung OpenCV's windows in the same process
import numpy as np
import pytest

from stream.errors import SinkError
from stream.sinks import WindowSink, screen
from stream.sinks.screen import Screen
from tests.builders import make_explanation, make_frame

ANSWER = 'import sys; print(\'{"key": -1, "open": true}\', flush=True)\n'


def open_screen(tmp_path, program: str, **environ: str) -> Screen:
    viewer = tmp_path / "viewer.py"
    viewer.write_text(program)
    return Screen("test", environ={**os.environ, **environ}, platform="linux", viewer=viewer)


def test_no_display_on_linux_is_told_without_a_try(tmp_path):
    with pytest.raises(SinkError, match=r"DISPLAY.*-o out\.mp4.*--scores - --headless") as refused:
        Screen("test", environ={}, platform="linux", viewer=tmp_path / "nowhere")
    assert refused.value.exit_code == 5


def test_elsewhere_no_variable_is_needed(tmp_path):
    (tmp_path / "viewer.py").write_text(ANSWER)
    environ = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    Screen("test", environ=environ, platform="darwin", viewer=tmp_path / "viewer.py").close()


@pytest.mark.parametrize("variable", ["DISPLAY", "WAYLAND_DISPLAY"])
def test_the_reason_is_told(tmp_path, variable):
    program = "import sys; sys.exit('talk\\ncould not connect to display\\nmore talk')"
    with pytest.raises(SinkError, match=r"\(could not connect to display\); write a file"):
        open_screen(tmp_path, program, **{variable: ":9"})


def test_a_viewer_that_aborts_is_no_crash_of_ours(tmp_path):
    with pytest.raises(SinkError, match="can't be shown on display :9;"):
        open_screen(tmp_path, "import os; os.abort()", DISPLAY=":9")


def test_a_display_that_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(screen, "START_SECONDS", 0.3)
    with pytest.raises(SinkError, match="can't be shown"):
        open_screen(tmp_path, "import time; time.sleep(60)", DISPLAY=":9")


def test_a_viewer_that_goes_away_is_told(tmp_path):
    shown = open_screen(tmp_path, ANSWER + "sys.exit('error: display lost')", DISPLAY=":9")

    def show() -> None:
        for _ in range(10):
            shown.show(np.zeros((200, 200, 3), np.uint8))
            shown.poll(1)

    with pytest.raises(SinkError, match="error: display lost"):
        show()
    shown.close()
    shown.close()


def test_a_viewer_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(screen, "END_SECONDS", 0.1)
    shown = open_screen(tmp_path, ANSWER + "import time; time.sleep(60)", DISPLAY=":9")
    shown.close()
    assert shown._viewer.returncode is not None


def test_ctrl_c_in_the_terminal_is_not_for_the_viewer(tmp_path):
    program = f"{ANSWER}import os; print(os.getsid(0), file=sys.stderr); sys.exit(1)"
    shown = open_screen(tmp_path, program, DISPLAY=":9")
    with pytest.raises(SinkError, match=r"\(\d+\); write a file") as told:
        shown.poll(1)
    shown.close()
    assert f"({os.getsid(0)})" not in str(told.value)


def test_modules_beside_the_viewer_are_not_imported_for_others(tmp_path):
    (tmp_path / "json.py").write_text("raise ImportError('this is another module')")
    open_screen(tmp_path, f"import json\n{ANSWER}", DISPLAY=":9").close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux names its displays")
def test_a_display_that_is_not_there(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":987654")
    with pytest.raises(SinkError, match=r"on display :987654 \(.*could not connect"):
        WindowSink()


@pytest.fixture
def x_server(monkeypatch):
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24", "-nolisten", "tcp"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as answer:
        monkeypatch.setenv("DISPLAY", f":{answer.readline().strip()}")
    yield server
    server.terminate()
    server.wait(10)


@pytest.mark.parametrize("platform", [None, "wayland"])
def test_a_real_window(x_server, monkeypatch, platform):
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    if platform:
        monkeypatch.setenv("QT_QPA_PLATFORM", platform)
    with WindowSink() as sink:
        for index in range(5):
            sink.write(make_frame(120, 320, index=index), make_explanation())
        assert not sink.stop_requested()
    assert sink._screen._viewer.returncode == 0


CLOSED_AT_THE_THIRD_POLL = """
import sys
import cv2
sys.path.insert(0, {folder!r})
from viewer import serve
class Gui:
    polls = 0
    def __getattr__(self, name):
        return getattr(cv2, name)
    def waitKeyEx(self, milliseconds):
        Gui.polls += 1
        if Gui.polls == 4:
            cv2.destroyWindow(sys.argv[1])
        return cv2.waitKeyEx(milliseconds)
serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer, Gui())
"""


def test_a_real_window_that_is_closed_quits(x_server, tmp_path):
    folder = str(screen.VIEWER.parent)
    shown = open_screen(tmp_path, CLOSED_AT_THE_THIRD_POLL.format(folder=folder))
    with WindowSink(screen=shown) as sink:
        for index in range(3):
            assert not sink.stop_requested()
            sink.write(make_frame(120, 320, index=index), make_explanation())
        assert sink.stop_requested()
    assert shown._viewer.returncode == 0


def test_a_display_that_goes_away_ends_the_run_with_a_reason(x_server):
    sink = WindowSink()
    sink.write(make_frame(120, 320), make_explanation())
    x_server.terminate()
    x_server.wait(10)

    def write() -> None:
        for index in range(1000):
            sink.write(make_frame(120, 320, index=index), make_explanation())

    with pytest.raises(SinkError, match="can't be shown on display"):
        write()
    sink.close(whole=False)
