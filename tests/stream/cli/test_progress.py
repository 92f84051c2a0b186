import io
import sys
from contextlib import nullcontext

import pytest

from stream.cli import main
from stream.cli.console import Console
from stream.cli.progress import LINE_SECONDS, Bar, Lines, open_progress
from tests.builders import make_frame


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def tell(progress, clock, frames, seconds, begin=0):
    """Count `frames`, of 25 per second of the source, in so many seconds."""
    with progress as count:
        for index in range(frames):
            clock.now += seconds / frames
            count(make_frame(2, 2, index=index, pts=begin + index))


def lines(frames, seconds, capsys, **wanted):
    clock = Clock()
    tell(
        Lines(frames, seconds, Console(), clock=clock),
        clock,
        300,
        300 * LINE_SECONDS / 128,
        **wanted,
    )
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_lines_come_every_ten_seconds(capsys):
    assert lines(512, None, capsys) == [
        "128 frames of 512 (25 %), 12.8 fps",
        "256 frames of 512 (50 %), 12.8 fps",
    ]


@pytest.mark.parametrize("begin", [0, 90_000])
def test_where_no_number_is_told_the_time_says_how_much_is_done(capsys, begin):
    assert lines(None, 512 / 25, capsys, begin=begin) == [
        "128 frames (25 %), 12.8 fps",
        "256 frames (50 %), 12.8 fps",
    ]


@pytest.mark.parametrize(("frames", "seconds"), [(None, None), (100, None), (None, 4.0)])
def test_lines_without_a_known_end(capsys, frames, seconds):
    assert lines(frames, seconds, capsys) == [
        "128 frames, 12.8 fps",
        "256 frames, 12.8 fps",
    ]


@pytest.mark.parametrize(
    ("frames", "seconds", "percent"),
    [(None, None, False), (50, None, True), (None, 2.0, True), (1, None, False)],
)
def test_a_bar_is_drawn_on_a_terminal_and_leaves_it_clean(monkeypatch, frames, seconds, percent):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    clock = Clock()
    tell(Bar(frames, seconds, clock=clock), clock, 50, 50 * 0.0625)
    drawn = terminal.getvalue()
    assert "48 frames" in drawn
    assert "16.0 fps" in drawn
    assert ("96 %" in drawn or "94 %" in drawn) is percent
    assert ("0:00:01" in drawn) is percent
    assert drawn.rstrip("\r").endswith("\x1b[2K")


@pytest.mark.parametrize(
    ("verbosity", "wanted", "terminal", "kind"),
    [
        (0, True, True, Bar),
        (0, True, False, Lines),
        (0, False, True, nullcontext),
        (-1, True, True, nullcontext),
    ],
)
def test_the_kind_that_fits(monkeypatch, verbosity, wanted, terminal, kind):
    monkeypatch.setattr("sys.stderr", Terminal() if terminal else io.StringIO())
    monkeypatch.setenv("TERM", "xterm")
    progress = open_progress(10, Console(verbosity), wanted=wanted)
    assert type(progress) is kind
    with progress as count:
        count()


@pytest.mark.parametrize(("terminal", "drawn"), [(True, False), (False, True)])
def test_no_bar_among_scores_on_the_same_terminal(monkeypatch, clip, fake, terminal, drawn):
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(out, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert main([str(clip), "none", "--scores", "-", *fake]) == 0
    assert ("\x1b[" in sys.stderr.getvalue()) is drawn


@pytest.mark.parametrize(
    ("terminal", "no_colour", "coloured"),
    [(True, "", True), (True, "1", False), (False, "", False)],
)
def test_no_colour_where_none_is_wanted(monkeypatch, terminal, no_colour, coloured):
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_colour)
    Console().error("gone")
    assert ("\x1b[" in stream.getvalue()) is coloured
    assert stream.getvalue().endswith("gone\n")


def test_quiet_still_tells_errors(capsys):
    console = Console(-1)
    console.say("hello")
    console.detail("hello")
    console.error("gone")
    assert capsys.readouterr().err == "nem-stream: error: gone\n"
