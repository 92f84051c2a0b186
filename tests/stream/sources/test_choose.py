"""From what the user wrote to a source."""

import inspect
import os
import time
from pathlib import Path

import cv2
import pytest

from stream.errors import SourceError, UsageError
from stream.redact import redact
from stream.sources import choose, open_source
from stream.sources.choose import VIDEOS
from stream.sources.demo import DemoSource
from stream.sources.file import FileSource
from stream.sources.images import ImagesSource
from stream.sources.names import natural_key
from tests.builders import counted_picture, make_clip


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "clip.mp4", frames=2)
    (tmp_path / "shots").mkdir()
    for i in (2, 10, 1):
        picture = counted_picture(i, 96, 64)
        assert cv2.imwrite(str(tmp_path / "shots" / f"s{i}.png"), picture)
    return tmp_path


def kind_and_count(spec, **options):
    with open_source(spec, **options) as source:
        return type(source), source.info.name, source.info.frames_declared


def test_every_kind(folder):
    assert kind_and_count("clip.mp4") == (FileSource, "clip.mp4", 2)
    assert kind_and_count(folder / "clip.mp4") == (FileSource, str(folder / "clip.mp4"), 2)
    assert kind_and_count(f"file://{folder}/clip.mp4")[0] is FileSource
    assert kind_and_count("*.mp4") == (FileSource, "clip.mp4", 2)
    assert kind_and_count("shots") == (ImagesSource, "shots", 3)
    assert kind_and_count("shots/s2.png") == (ImagesSource, "shots/s2.png", 1)
    assert kind_and_count("shots/s1*.png") == (ImagesSource, "shots/s1*.png", 2)
    assert kind_and_count("**/*.png") == (ImagesSource, "**/*.png", 3)


def test_videos_beside_pictures_are_told_of(folder):
    (folder / "shots" / "notes.txt").touch()
    with open_source("shots") as source:
        assert source.counts == {}
    (folder / "clip.mp4").rename(folder / "shots" / "clip.MP4")
    with open_source("shots") as source:
        assert source.counts == {VIDEOS: 1}
        assert len(list(source)) == 3


@pytest.mark.parametrize("spec", ["demo", "demo:"])
def test_the_demo_and_its_options(spec):
    pytest.importorskip("skimage", reason="the demo needs scikit-image (extra demo)")
    with open_source(spec, width=64, height=48, fps=5, frames=3, live=False) as source:
        assert isinstance(source, DemoSource)
        assert [f.y.shape for f in source] == [(48, 64)] * 3
        assert source.info.fps_declared == 5


@pytest.mark.parametrize(("spec", "device"), [(3, 3), ("12", 12), ("/dev/video5", "/dev/video5")])
def test_cameras(monkeypatch, spec, device):
    opened = []
    monkeypatch.setattr(choose, "CameraSource", lambda *a, **k: opened.append((a, k)))
    open_source(spec, width=640, height=480, fps=29.97)
    ((args, options),) = opened
    assert args == (device,)
    assert str(options["wish"]) == "640x480 at 29.97 fps"


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="needs files under /dev")  # noqa: PTH112
def test_a_file_under_dev_is_no_camera(folder):
    # As those that Linux keeps in memory, in /dev/shm.
    with Path("clip.mp4").open("rb") as clip:
        spec = f"/dev/fd/{clip.fileno()}"
        assert kind_and_count(spec) == (FileSource, spec, 2)
    with pytest.raises(SourceError, match="/dev/fd: no pictures in this directory"):
        open_source("/dev/fd")


def test_files_called_like_a_keyword_or_pattern(folder):
    for name in ("demo", "0", "[a].mp4"):
        Path("clip.mp4").rename(name)
        assert kind_and_count(f"./{name}")[0] is FileSource
        Path(name).rename("clip.mp4")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("", UsageError, "no source given; give a video file, a picture"),
        (None, UsageError, "no source given; give a video file, a picture"),
        (["a.png"], UsageError, "a source can't be of type list; give a video file"),
        ("-", UsageError, "the standard input is no source yet; give"),
        ("rtsp://me:pa@ss/w@host/1", UsageError, r"rtsp://\*\*\*@host/1: rtsp sources are not"),
        ("http://host/x.mp4", UsageError, "http sources are not supported; give a video"),
        ("nope.mp4", SourceError, r"nope.mp4: no such file in /.*; check the path$"),
        ("no/nope.mp4", SourceError, r"no such file \(nor a directory no\); check the path$"),
        ("nope.jpg", SourceError, r"nope.jpg: picture can't be read \(No such file"),
        ("clipp.mp4", SourceError, r"did you mean clip\.mp4\?"),
        ("*.avi", SourceError, "no file matches; check the pattern, and quote it"),
        (".", SourceError, r"no pictures in this directory \(it holds clip\.mp4, shots\)"),
        ("void", SourceError, r"no pictures in this directory \(it is empty\)"),
        ("mixed/*", UsageError, "matches 2 files, 1 of them no pictures; one video at a time"),
    ],
)
def test_what_fits_nothing_is_refused(folder, spec, error, message):
    (folder / "void").mkdir()
    (folder / "mixed").mkdir()
    for name in ("a.png", "b.mp4"):
        (folder / "mixed" / name).touch()
    before = {"void", "mixed"}
    if spec == ".":
        for name in before:
            for path in (folder / name).iterdir():
                path.unlink()
            (folder / name).rmdir()
    with pytest.raises(error, match=message) as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)
    assert "pa@ss" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("clip.mp4", {"fps": 25}, "fps: not for a video file"),
        (
            "clip.mp4",
            {"width": 64, "height": 48},
            r"^size \(width, height\): not for a video file; .*: decode\)$",
        ),
        ("shots", {"frames": 3}, r"frames: not for pictures; leave it out \(allowed there: fps\)"),
        ("0", {"live": True}, "live: not for a camera"),
        ("demo", {"width": 64}, "give width and height or neither"),
        ("demo", {"fps": 0}, "fps must be a positive number, got 0"),
        ("shots", {"fps": float("nan")}, "fps must be a positive number, got nan"),
        ("demo", {"fps": float("inf")}, "fps must be a positive number, got inf"),
        ("demo", {"frames": -2}, "frames must be a positive whole number, got -2"),
        ("demo", {"frames": 2.5}, "frames must be a positive whole number, got 2.5"),
        ("demo", {"fps": "25"}, "fps must be a positive number, got '25'"),
    ],
)
def test_options_that_would_do_nothing_are_refused(folder, spec, options, message):
    with pytest.raises(UsageError, match=message):
        open_source(spec, **options)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("rtsp://user:secret@host:554/live", "rtsp://***@host:554/live"),
        ("rtsp://user:s/e@c@host/live", "rtsp://***@host/live"),
        ("can't open http://token@host/a?b", "can't open http://***@host/a?b"),
        ("rtsp://host/live", "rtsp://host/live"),
        ("no directory http:/user:secret@host", "no directory http:/***@host"),
        ("a@b.mp4", "a@b.mp4"),
    ],
)
def test_passwords_are_hidden(text, hidden):
    assert redact(text) == hidden


def test_long_words_are_searched_for_passwords_quickly():
    began = time.process_time()
    for word in ("x", "aa:/", "aa:/@"):
        redact(word * 100_000)
    assert time.process_time() - began < 5


def test_natural_order():
    names = ["a10", "a9", "a", "b1", "10", "9", "a9b"]
    ordered = sorted(map(Path, names), key=natural_key)
    assert [str(p) for p in ordered] == ["9", "10", "a", "a9", "a9b", "a10", "b1"]


def test_a_number_that_python_cannot_read_is_a_name():
    assert sorted([Path("1\u00b23.png"), Path("1.png")], key=natural_key)


@pytest.mark.parametrize(
    ("name", "message"),
    [("x" * 300 + ".mp4", "can't be read"), ("x" * 300 + ".png", "picture can't be read")],
)
def test_a_name_too_long_is_refused(folder, name, message):
    with pytest.raises(SourceError, match=message):
        open_source(name)


def test_a_name_like_a_home_folder_of_nobody(folder):
    (folder / "clip.mp4").rename(folder / "~clip.mp4")
    assert kind_and_count("~clip.mp4")[0] is FileSource


def test_a_folder_that_may_not_be_listed(folder, monkeypatch):
    def denied(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", denied)
    with pytest.raises(SourceError, match=r"none\.mp4: no such file; check the path$"):
        open_source("none.mp4")


def test_a_pipe_is_no_picture(folder):
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(SourceError, match="is no regular file"):
        open_source("pipe.png")


def test_wishes_are_what_can_be_asked_for():
    taken = inspect.signature(open_source).parameters.values()
    asked = [each.name for each in taken if each.kind is each.KEYWORD_ONLY]
    assert list(choose.Wishes.__annotations__) == asked
