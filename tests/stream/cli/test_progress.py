import io
from contextlib import nullcontext

import pytest

from stream.cli.console import Console
from stream.cli.progress import LINE_SECONDS, Bar, Lines, open_progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_come_every_ten_seconds(capsys):
    clock = Clock()
    with Lines(512, Console(), clock=clock) as progress:
        for _ in range(300):
            clock.now += LINE_SECONDS / 128
            progress()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "128 frames of 512 (25 %), 12.8 fps",
        "256 frames of 512 (50 %), 12.8 fps",
    ]


def test_lines_without_a_known_end(capsys):
    clock = Clock()
    with Lines(None, Console(), clock=clock) as progress:
        clock.now = 20.0
        progress()
    assert capsys.readouterr().err == "1 frames, 0.1 fps\n"


@pytest.mark.parametrize("total", [None, 50])
def test_a_bar_is_drawn_on_a_terminal_and_leaves_it_clean(monkeypatch, total):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    clock = Clock()
    with Bar(total, clock=clock) as progress:
        for _ in range(50):
            clock.now += 0.0625
            progress()
    drawn = terminal.getvalue()
    assert "48 frames" in drawn
    assert "16.0 fps" in drawn
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
