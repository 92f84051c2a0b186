"""What holds for every source."""

import threading
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from unittest import mock

import cv2
import pytest

from stream.frame import Frame
from stream.sources import Source, cuda
from stream.sources.camera import CameraSource
from stream.sources.demo import DemoSource
from stream.sources.file import FileSource
from stream.sources.images import ImagesSource
from tests.builders import counted_picture, make_clip, read_index
from tests.stream.sources.fake_nvdec import FakeGpu, stay_up
from tests.stream.sources.fakes import FakeCapture, FakeClock, counted_bgr

COUNT = 8
Opener = Callable[[], Source]


def open_file(folder: Path) -> Source:
    return FileSource(make_clip(folder / "clip.mp4", frames=COUNT, options={"bf": "2"}))


def open_file_by_gpu(folder: Path) -> Source:
    clip = make_clip(folder / "clip.mp4", frames=COUNT, options={"bf": "2"})
    with mock.patch.object(cuda, "open_for_cuda", FakeGpu()):
        return FileSource(clip, decode="cuda")


def open_file_on_gpu(folder: Path) -> Source:
    clip = make_clip(folder / "clip.mp4", frames=COUNT, options={"bf": "2"})
    return FileSource(clip, decode="cuda")


def open_converted_file(folder: Path) -> Source:
    clip = make_clip(folder / "clip.mkv", frames=COUNT, codec="ffv1", pix_fmt="yuv444p10le")
    return FileSource(clip)


def open_images(folder: Path) -> Source:
    paths = [folder / f"{i}.png" for i in range(COUNT)]
    for i, path in enumerate(paths):
        assert cv2.imwrite(str(path), counted_picture(i, 96, 64)[..., ::-1])
    return ImagesSource(paths)


def open_camera(folder: Path) -> Source:
    capture = FakeCapture(counted_bgr(COUNT))
    return CameraSource(0, opening=lambda device: capture, clock=FakeClock(), stall_seconds=0.5)


def open_demo(folder: Path) -> Source:
    pytest.importorskip("skimage", reason="the demo needs scikit-image (extra demo)")
    return DemoSource(width=96, height=64, frames=COUNT, live=False)


OPENERS = [
    open_file,
    open_file_by_gpu,
    open_file_on_gpu,
    open_converted_file,
    open_images,
    open_camera,
    open_demo,
]


@pytest.fixture(params=OPENERS, ids=lambda opener: opener.__name__)
def source(request, tmp_path):
    keeps = stay_up() if request.param is open_file_on_gpu else nullcontext()
    with keeps, request.param(tmp_path) as source:
        yield source


def take(source: Source, count: int = COUNT) -> list[Frame]:
    frames = iter(source)
    return [next(frames) for _ in range(count)]


def checksum(frame: Frame) -> int:
    return zlib.crc32(b"".join(plane.tobytes() for plane in (frame.y, frame.u, frame.v)))


def test_frames_come_once_and_in_order(source):
    frames = take(source)
    assert [frame.index for frame in frames] == list(range(COUNT))
    if source.info.name != "demo":
        assert [read_index(frame.y) for frame in frames] == list(range(COUNT))


def test_stamps_increase_strictly_in_the_time_base_of_the_info(source):
    frames = take(source)
    stamps = [frame.pts for frame in frames]
    assert all(b > a for a, b in pairwise(stamps))
    assert {frame.time_base for frame in frames} == {source.info.time_base}
    assert all(isinstance(stamp, int) for stamp in stamps)


def test_the_info_tells_the_size_and_colour_of_the_frames(source):
    info = source.info
    for frame in take(source):
        assert (frame.width, frame.height) == (info.width, info.height) == (96, 64)
        assert frame.colour == info.colour


def test_frames_stay_valid_after_the_next_and_after_close(source):
    frames, sums = [], []
    for frame in take(source):
        frames.append(frame)
        sums.append(checksum(frame))
    source.close()
    assert [checksum(frame) for frame in frames] == sums
    assert len(set(sums)) == COUNT


def test_frames_are_read_one_at_a_time_by_any_iterator(source):
    first = next(iter(source))
    second = next(iter(source))
    assert (first.index, second.index) == (0, 1)


def test_capture_time_does_not_go_back(source):
    times = [frame.captured_at for frame in take(source)]
    assert times == sorted(times)


def test_close_before_and_twice_is_fine(source):
    source.close()
    source.close()
    assert list(source) == []


def test_close_from_another_thread_ends_the_iteration(source):
    seen = []
    for frame in source:
        seen.append(frame.index)
        if frame.index == 2:
            thread = threading.Thread(target=source.close)
            thread.start()
            thread.join()
    assert seen == [0, 1, 2]


def test_recorded_sources_end_and_stay_ended(source):
    if source.info.live:
        pytest.skip("a camera has no end")
    assert len(list(source)) == COUNT
    assert list(source) == []
