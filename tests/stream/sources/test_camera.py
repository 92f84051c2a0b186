"""Cameras: what is asked, what is granted, and every way to fail."""

import threading
from fractions import Fraction

import cv2
import numpy as np
import pytest
from cv2.utils import logging as cv2_logging

from stream.errors import SourceError, SourceLost
from stream.sources import devices
from stream.sources.base import RESIZED
from stream.sources.camera import FAILED, CameraSource, to_frame
from stream.sources.modes import Granted, Wish, exact_rate
from tests.builders import read_index
from tests.stream.sources.fakes import FakeCapture, FakeClock, counted_bgr

MJPG = float(cv2.VideoWriter.fourcc(*"MJPG"))
YUYV = float(cv2.VideoWriter.fourcc(*"YUYV"))


def camera(capture: FakeCapture, **options) -> CameraSource:
    options = {"clock": FakeClock(), "open_seconds": 0.5, "stall_seconds": 0.5, **options}
    return CameraSource(0, opening=lambda device: capture, **options)


def test_mjpg_is_asked_first_then_a_short_queue_size_and_at_last_the_rate():
    capture = FakeCapture(counted_bgr(1))
    camera(capture, wish=Wish(1280, 720, Fraction(30))).close()
    assert capture.asked == [
        (cv2.CAP_PROP_FOURCC, MJPG),
        (cv2.CAP_PROP_BUFFERSIZE, 2),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 30.0),
    ]


def test_what_was_granted_is_said():
    granted = {cv2.CAP_PROP_FOURCC: YUYV, cv2.CAP_PROP_FPS: 15.0}
    with camera(FakeCapture(counted_bgr(1), granted), wish=Wish(640, 480, Fraction(30))) as source:
        info = source.info
    assert info.notes == ("camera granted YUYV 96x64 at 15 fps (asked for 640x480 at 30 fps)",)
    assert (info.name, info.live, info.codec) == ("camera 0", True, "yuyv")
    assert (info.width, info.height, info.fps_declared) == (96, 64, 15)
    assert info.frames_declared is None


@pytest.mark.parametrize("said", [29.97, 10_000_000 / 333_667, 30000 / 1001])
@pytest.mark.parametrize("asked", [None, exact_rate(29.97)])
def test_a_wish_that_was_met_is_not_repeated(said, asked):
    capture = FakeCapture(counted_bgr(1), {cv2.CAP_PROP_FPS: said})
    with camera(capture, wish=Wish(96, 64, asked)) as source:
        assert source.info.notes == ("camera granted MJPG 96x64 at 29.97 fps",)
        assert source.info.fps_declared == Fraction(30000, 1001)


def test_a_camera_that_says_nothing():
    granted = Granted.read(FakeCapture(granted={cv2.CAP_PROP_FOURCC: -1.0, cv2.CAP_PROP_FPS: -1}))
    assert granted == Granted("", None)
    assert granted.sentence((8, 6), Wish()) == "camera granted 8x6"


def test_stamps_are_the_time_of_arrival():
    clock = FakeClock(0.01)
    with camera(FakeCapture(counted_bgr(4)), clock=clock) as source:
        frames = [next(source) for _ in range(4)]
    first = frames[0].captured_at
    assert frames[0].pts == 0
    for frame in frames:
        assert abs(frame.pts_seconds - (frame.captured_at - first)) <= 1 / 90000


def test_pictures_that_waited_for_the_first_read_are_not_shown():
    clock = FakeClock(0.01)
    with camera(FakeCapture(counted_bgr(8)), clock=clock) as source:
        clock.now += 2  # a model is loaded; a driver's queue fills meanwhile
        frames = [next(source) for _ in range(3)]
    assert [read_index(frame.y) for frame in frames] == [3, 4, 5]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert frames[0].pts == 0
    assert frames[1].pts_seconds < 0.1


def test_a_camera_lost_before_the_first_read_is_waited_for_once():
    clock = FakeClock(0.01)
    with camera(FakeCapture(counted_bgr(1)), clock=clock) as source:
        clock.now += 2
        began = clock.now
        with pytest.raises(SourceLost, match=r"no picture for 0\.5 s after frame 0"):
            next(source)
    assert clock.now - began < 0.7


def test_stamps_increase_even_if_the_clock_stands():
    with camera(FakeCapture(counted_bgr(4)), clock=lambda: 5.0) as source:
        assert [next(source).pts for _ in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [(96, 64), (98, 66), (50, 34), (51, 35), (1, 1)])
def test_colours_survive(size):
    width, height = size
    for rgb in ((200, 40, 40), (40, 200, 40), (40, 40, 200), (128, 128, 128), (250, 240, 10)):
        bgr = np.full((height, width, 3), rgb[::-1], np.uint8)
        frame = to_frame(bgr, index=0, pts=0, captured_at=0.0)
        assert np.abs(frame.rgb().astype(int) - rgb).max() <= 3


def test_grey_pictures_and_failed_reads_between():
    pictures = counted_bgr(4)
    pictures[1] = pictures[1][..., 0]
    reads = [*pictures[:2], None, cv2.error("select() timeout"), *pictures[2:]]
    with camera(FakeCapture(reads)) as source:
        assert [read_index(next(source).y) for _ in range(4)] == [0, 1, 2, 3]
    assert source.counts == {FAILED: 2}


def test_a_new_size_is_brought_to_the_first():
    pictures = [*counted_bgr(1), *counted_bgr(2, 192, 128)[1:]]
    with camera(FakeCapture(pictures)) as source:
        frames = [next(source), next(source)]
    assert frames[1].y.shape == (64, 96)
    assert read_index(frames[1].y) == 1
    assert source.counts == {RESIZED: 1}


def test_busy():
    capture = FakeCapture(opened=False)
    with pytest.raises(SourceError, match=r"0: can't be opened, busy .* nem-stream doctor lists"):
        camera(capture)
    assert capture.released == 1


def test_an_exception_at_opening():
    def opening(device):
        raise cv2.error("no such backend")

    with pytest.raises(SourceError, match=r"camera 0: can't be opened .*no such backend"):
        CameraSource(0, opening=opening)


def test_opened_but_no_picture():
    capture = FakeCapture([])
    with pytest.raises(SourceError, match=r"gave no picture within 0\.5 s; close other") as caught:
        camera(capture)
    assert not isinstance(caught.value, SourceLost)
    assert capture.released == 1


def test_unplugged():
    capture = FakeCapture(counted_bgr(3))
    source, seen = camera(capture), []
    with pytest.raises(SourceLost, match=r"no picture for 0\.5 s after frame 3") as caught:
        seen.extend(frame.index for frame in source)
    assert seen == [0, 1, 2]
    assert caught.value.exit_code == 4
    assert capture.released == 1
    assert list(source) == []


def test_a_driver_stuck_in_its_first_read_does_not_hang():
    capture = FakeCapture(counted_bgr(1), stuck_after=0)
    try:
        with pytest.raises(SourceError, match="gave no picture"):
            camera(capture, open_seconds=0.05, clock=lambda: 0.0)
    finally:
        capture.release_stuck.set()


def test_a_driver_stuck_in_opening_does_not_hang_and_is_released_later():
    go, released = threading.Event(), threading.Event()
    capture = FakeCapture(counted_bgr(1))
    capture.release = released.set

    def opening(device):
        go.wait(10)
        return capture

    with pytest.raises(SourceError, match=r"did not open within 0\.05 s; unplug it"):
        CameraSource(0, opening=opening, open_seconds=0.05)
    assert not released.is_set()
    go.set()
    assert released.wait(10)


def test_the_program_can_tell_that_a_camera_is_stuck():
    # By this name `nem-stream` knows at its end that a thread hangs in a driver.
    with camera(FakeCapture(counted_bgr(1))):
        assert "nem-camera 0" in [thread.name for thread in threading.enumerate()]


def test_close_frees_a_reader_that_waits_for_a_stuck_driver():
    capture = FakeCapture(counted_bgr(5), stuck_after=2)
    source, seen = camera(capture, stall_seconds=60, clock=lambda: 0.0), []
    reader = threading.Thread(target=lambda: seen.extend(f.index for f in source))
    reader.start()
    assert capture.stuck.wait(10)
    source.close()
    capture.release_stuck.set()
    reader.join(10)
    assert not reader.is_alive()
    assert seen == [0, 1]
    assert capture.released == 1


def test_a_camera_that_is_closed_while_it_stalls_is_not_waited_for():
    clock, capture = FakeClock(0.0), FakeCapture(counted_bgr(5), stuck_after=2)
    source = camera(capture, stall_seconds=60, clock=clock)
    reader = threading.Thread(target=lambda: list(source))
    reader.start()
    try:
        assert capture.stuck.wait(10)
        clock.now += 1.5
        source.close()
        reader.join(1.5)  # a release is waited for longer
        assert not reader.is_alive()
        assert not capture.released
    finally:
        capture.release_stuck.set()
    reader.join(10)


def test_absent_camera_names_what_was_found(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "DEV", tmp_path)
    monkeypatch.setattr(devices, "NAMES", tmp_path / "names")
    with pytest.raises(SourceError, match=r"camera 7: there is no .*video7; found no .*video\*"):
        CameraSource(7)
    for number in (10, 2):
        (tmp_path / f"video{number}").touch()
    (tmp_path / "names" / "video2").mkdir(parents=True)
    (tmp_path / "names" / "video2" / "name").write_text("Fine Cam\n")
    with pytest.raises(SourceError, match=r"found \S+video2 \(Fine Cam\), \S+video10$"):
        CameraSource(7)
    assert devices.cameras() == [
        (str(tmp_path / "video2"), "Fine Cam"),
        (str(tmp_path / "video10"), ""),
    ]


def test_no_permission_names_the_group(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "DEV", tmp_path)
    (tmp_path / "video0").touch()
    monkeypatch.setattr(devices.os, "access", lambda path, mode: False)
    with pytest.raises(SourceError, match="usermod -aG video"):
        CameraSource(0)


def test_a_path_that_is_no_camera_is_refused_quietly(tmp_path, capfd):
    path = tmp_path / "video0"
    path.write_bytes(b"no camera")
    with pytest.raises(SourceError, match="can't be opened"):
        CameraSource(str(path))
    assert capfd.readouterr() == ("", "")


def test_opencv_speaks_again_after_two_cameras_were_opened_at_once(monkeypatch):
    before = cv2_logging.getLogLevel()
    gates = {"first": threading.Event(), "second": threading.Event()}
    inside = threading.Semaphore(0)

    def opening(device, backend):
        inside.release()
        gates[device].wait(10)

    monkeypatch.setattr(devices.cv2, "VideoCapture", opening)
    threads = [threading.Thread(target=devices.open_capture, args=(name,)) for name in gates]
    for thread in threads:
        thread.start()
        assert inside.acquire(timeout=10)
    for thread, gate in zip(threads, gates.values(), strict=True):
        gate.set()
        thread.join(10)
    assert cv2_logging.getLogLevel() == before


@pytest.mark.parametrize(
    ("said", "meant"),
    [(29.97, Fraction(30000, 1001)), (23.976, Fraction(24000, 1001)), (30, 30), (12.5, 12.5),
     (59.94, Fraction(60000, 1001)), (0.5, 0.5), (0.004, 1 / Fraction(250)),
     (Fraction(7, 2), Fraction(7, 2))],
)  # fmt: skip
def test_broadcast_rates_are_meant_exactly(said, meant):
    assert exact_rate(said) == meant
