"""The window's key s: pictures on disk."""

from __future__ import annotations

import errno
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream.sinks import WindowSink
from tests.builders import make_explanation, make_frame
from tests.stream.sinks.fake_screen import FakeScreen
from tests.stream.sinks.reading import names

EXPLANATION = make_explanation()
SIZE = (120, 320)


def press(keys, **options):
    said: list[str] = []
    return WindowSink(screen=FakeScreen(keys), say=said.append, **options), said


def test_saves_pictures_without_losing_any(tmp_path):
    sink, said = press("sss", snapshots=tmp_path)
    frame = make_frame(1080, 1920, index=7)
    for _ in range(2):
        sink.write(frame, EXPLANATION)
    sink.write(make_frame(*SIZE, index=8), EXPLANATION)
    expected = ["nem-stream-000007-2.png", "nem-stream-000007.png", "nem-stream-000008.png"]
    assert names(tmp_path) == expected
    saved = cv2.imread(str(tmp_path / "nem-stream-000007.png"))
    assert np.array_equal(saved[..., ::-1], frame.rgb())
    assert said[0] == f"saved {tmp_path / 'nem-stream-000007.png'}"


def test_a_picture_that_cannot_be_saved_ends_nothing(tmp_path):
    sink, said = press("s", snapshots=tmp_path / "nowhere")
    sink.write(make_frame(*SIZE), EXPLANATION)
    assert "not saved" in said[0]
    assert "No such file" in said[0]
    assert not sink.stop_requested()


def test_a_picture_is_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(path, data):
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    sink, said = press("s", snapshots=tmp_path)
    sink.write(make_frame(*SIZE), EXPLANATION)
    assert "No space left on device" in said[0]
    assert names(tmp_path) == []


def test_a_picture_cut_short_never_has_its_name(tmp_path, monkeypatch):
    def killed(path, data):
        with path.open("wb") as file:
            file.write(data[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", killed)
    sink, _ = press("s", snapshots=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sink.write(make_frame(*SIZE), EXPLANATION)
    assert names(tmp_path) == ["nem-stream-000000.png.partial"]


def test_a_picture_in_a_folder_that_was_removed_ends_nothing(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    sink, said = press("s")
    sink.write(make_frame(*SIZE), EXPLANATION)
    assert said == ["picture not saved: nem-stream-000000.png: No such file or directory"]
