import logging
from pathlib import Path

import pytest

from engines import EngineError, EngineUnavailable, OptionError, StoreError
from nem import BundleError, DataError, ModelError, TrainError, WriteError
from stream.cli.console import Console, start_console
from stream.cli.errors import exit_code, one_line, report
from stream.cli.options import default_output, pick_places, read_wishes
from stream.errors import SinkError, SourceError, SourceLost, StreamError, UsageError


@pytest.mark.parametrize(
    ("positionals", "flags", "expected"),
    [
        (("a", None), {}, ("a", False, None)),
        (("a", "b"), {}, ("a", False, "b")),
        (("a", None), {"output": "b"}, ("a", False, "b")),
        ((None, None), {"source": "a"}, ("a", False, None)),
        (("b", None), {"source": "a"}, ("a", False, "b")),
        (("b", None), {"camera": "0"}, ("0", True, "b")),
        ((None, None), {"camera": "0", "output": "b"}, ("0", True, "b")),
    ],
)
def test_places(positionals, flags, expected):
    given = {"source": None, "camera": None, "output": None} | flags
    assert pick_places(positionals, **given) == expected


@pytest.mark.parametrize(
    ("positionals", "flags", "message"),
    [
        ((None, None), {"camera": "rtsp://u:pw@host/s"}, "--camera .* is an address"),
        (("a", "http://host/x.mp4"), {}, "OUTPUT .* is an address"),
        (("a", None), {"output": "http://host/x.mp4"}, "OUTPUT .* is an address"),
    ],
)
def test_addresses_are_no_cameras_and_no_outputs(positionals, flags, message):
    given = {"source": None, "camera": None, "output": None} | flags
    with pytest.raises(UsageError, match=message):
        pick_places(positionals, **given)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("clip.mp4", "clip.nem.mp4"),
        ("a/clip.MOV", "a/clip.nem.mov"),
        ("clip.mkv", "clip.nem.mkv"),
        ("clip.avi", "clip.nem.mkv"),
        ("clip", "clip.nem.mkv"),
        ("my.holiday.webm", "my.holiday.nem.mkv"),
    ],
)
def test_default_output(path, expected):
    assert default_output(Path(path)) == Path(expected)


def test_wishes():
    assert read_wishes(None, None, None) == {}
    assert read_wishes("640x480", 25.0, 3) == {
        "width": 640,
        "height": 480,
        "fps": 25.0,
        "frames": 3,
    }
    for bad in ("640", "640 x 480", "-1x2", "ax3"):
        with pytest.raises(UsageError, match="1280x720"):
            read_wishes(bad, None, None)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StreamError("x"), 1),
        (ValueError("x"), 1),
        (UsageError("x"), 2),
        (OptionError("x"), 2),
        (DataError("x"), 2),
        (SourceError("x"), 3),
        (SourceLost("x"), 4),
        (SinkError("x"), 5),
        (BrokenPipeError(), 5),
        (WriteError("x"), 5),
        (EngineError("x"), 6),
        (EngineUnavailable("x"), 6),
        (StoreError("x"), 6),
        (BundleError("x"), 6),
        (ModelError("x"), 6),
        (TrainError("x"), 6),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error, code, capsys):
    assert exit_code(error) == code
    assert report(error, Console()) == code
    assert len(capsys.readouterr().err.splitlines()) == (0 if code == 5 and not str(error) else 1)


def test_passwords_are_left_out(capsys):
    Console().error("no directory http:/user:secret@host")
    Console().say("http:/user:secret@host: h264")
    assert "secret" not in capsys.readouterr().err


def test_nothing_steers_the_terminal(capsys, monkeypatch):
    monkeypatch.setattr(logging, "root", logging.RootLogger(logging.WARNING))
    console = start_console(quiet=False, verbose=1)
    text = "clip\x1b[2J\x9b31m\r\n\udcff é猫.mp4"
    for tell in (console.say, console.detail, console.error, logging.warning):
        tell(text)
        assert capsys.readouterr().err.endswith("clip\\x1b[2J\\x9b31m\\r\\n\\udcff é猫.mp4\n")


def test_messages_are_one_line():
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line(ValueError()) == "ValueError"
