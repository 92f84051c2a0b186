"""Decoding on the GPU: who is chosen and what is told, with a fake GPU and with none."""

import errno
import os
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from stream.errors import SourceError, UsageError
from stream.nvidia import decoder_trouble
from stream.sources import cuda, open_source, reading
from stream.sources.file import FileSource
from tests.builders import counted_picture, make_clip, read_index
from tests.stream.sources.fake_nvdec import FakeGpu

GPU_NOTE = (
    "frames decoded by the GPU (NVDEC), the first as by the CPU; they come down at once: no torch"
)


@pytest.fixture
def clip(tmp_path) -> Path:
    return make_clip(tmp_path / "clip.mp4", frames=6, options={"bf": "2"})


@pytest.fixture
def gpu(monkeypatch):
    """Puts a fake GPU in place."""

    def install(change=None) -> FakeGpu:
        fake = FakeGpu(change)
        monkeypatch.setattr(cuda, "open_for_cuda", fake)
        monkeypatch.setattr(cuda, "context_trouble", lambda: "no torch")
        monkeypatch.setattr(cuda, "decoder_trouble", lambda: None)
        return fake

    return install


def indices(source):
    return [read_index(frame.y) for frame in source]


@pytest.mark.parametrize("asked", ["gpu", "CUDA", "", None])
def test_another_decoder_is_refused(clip, asked):
    with pytest.raises(UsageError, match="choose auto, cpu, cuda") as refused:
        FileSource(clip, decode=asked)
    assert refused.value.exit_code == 2


def test_the_cpu_unless_asked(clip, gpu):
    fake = gpu()
    for source in (FileSource(clip), FileSource(clip, decode="cpu"), open_source(clip)):
        with source:
            assert GPU_NOTE not in source.info.notes
    assert not fake.opened


@pytest.mark.parametrize("asked", ["cuda", "auto"])
def test_the_gpu_reads_on_where_its_first_frame_is_right(clip, gpu, asked):
    fake = gpu()
    with open_source(clip, decode=asked) as source:
        assert (source.info.decoder, source.info.notes[-1]) == ("NVDEC", GPU_NOTE)
        assert indices(source) == list(range(6))
    (opened,) = fake.opened
    with pytest.raises(AssertionError):
        opened.container.seek(0)  # closed


def test_only_video_files_are_decoded(tmp_path):
    with pytest.raises(UsageError, match="decode: not for a camera"):
        open_source(0, decode="cuda")
    with pytest.raises(UsageError, match="decode: not for pictures"):
        open_source(tmp_path / "a.png", decode="cpu")


def another_size(frame, number):
    return frame.reformat(width=frame.width + 16, height=frame.height)


def another_matrix(frame, number):
    frame.colorspace = 9
    return frame


def another_picture(frame, number):
    plane = np.frombuffer(memoryview(frame.planes[1]), np.uint8)
    plane[:] = 0  # as a driver's green frames
    return frame


def one_frame_late(frame, number):
    return frame if number else None


def from_the_cpu(frame, number):
    return frame.reformat(format="yuv420p")


def nothing(frame, number):
    return None


UNLIKE = {
    another_size: "has another size or other colour tags",
    another_matrix: "has another size or other colour tags",
    another_picture: r"differs from the CPU's by \d+\.\d levels",
    one_frame_late: r"first frame has stamp 512, the CPU's 0",
    from_the_cpu: r"NVDEC does not take h264 96x64 yuv420p",
    nothing: r"NVDEC does not take h264 96x64 yuv420p",
}


@pytest.mark.parametrize("change", UNLIKE, ids=lambda change: change.__name__)
def test_a_gpu_that_gives_other_frames_is_not_taken(clip, gpu, change):
    fake = gpu(change)
    with FileSource(clip, decode="auto") as source:
        assert source.info.decoder == "the CPU"
        assert source.info.notes[-1].startswith("decoded by the CPU: NVDEC")
        assert indices(source) == list(range(6))
        assert not source.counts
    refusal = f"can't be decoded on the GPU: .*{UNLIKE[change]}.*; or use --decode cpu"
    with pytest.raises(SourceError, match=refusal) as refused:
        FileSource(clip, decode="cuda")
    assert "\n" not in str(refused.value)
    for opened in fake.opened:
        with pytest.raises(AssertionError):
            opened.container.seek(0)


@pytest.mark.parametrize(
    ("codec", "pixels", "size", "said"),
    [
        ("libx265", "gray", (96, 64), "gray can't be brought down"),
        ("libx264", "yuv444p", (96, 64), "yuv444p can't be brought down"),
        ("mpeg2video", "yuv422p", (96, 64), "yuv422p can't be brought down"),
        ("ffv1", "yuv420p", (96, 64), "no decoder of ffv1 knows NVIDIA's GPUs"),
        ("png", "rgb24", (96, 64), "no decoder of png knows NVIDIA's GPUs"),
        ("mjpeg", "yuvj420p", (97, 64), "97x64: odd sides"),
        ("mjpeg", "yuvj420p", (96, 65), "96x65: odd sides"),
    ],
)
def test_what_would_come_down_changed_is_left_to_the_cpu(tmp_path, gpu, codec, pixels, size, said):
    fake = gpu()
    path = make_clip(
        tmp_path / "c.mov" if codec == "png" else tmp_path / "c.mkv",
        frames=3, codec=codec, pix_fmt=pixels, width=size[0], height=size[1],
        options={"x265-params": "log-level=none"} if codec == "libx265" else {},
    )  # fmt: skip
    with FileSource(path, decode="auto") as source:
        assert said in source.info.notes[-1]
    with pytest.raises(SourceError, match=said):
        FileSource(path, decode="cuda")
    assert not fake.opened


def test_a_bad_file_is_told_of_as_ever(tmp_path, gpu):
    fake = gpu()
    (tmp_path / "notes.mp4").write_text("just some notes\n" * 50)
    for asked in ("auto", "cuda"):
        with pytest.raises(SourceError, match="not a video that can be read"):
            FileSource(tmp_path / "notes.mp4", decode=asked)
    assert not fake.opened


def test_a_gpu_that_fails_later_is_told_of_with_the_cure(tmp_path, gpu, monkeypatch):
    monkeypatch.setattr(reading, "BAD_RUN", 5)

    def fail(frame, number):
        if number >= 3:
            raise av.error.InvalidDataError(1, "broken")
        return frame

    clip = make_clip(tmp_path / "c.mp4", frames=12, options={"bf": "0"})
    gpu(fail)
    with FileSource(clip, decode="cuda") as source:
        assert [next(source).index for _ in range(3)] == [0, 1, 2]
        with pytest.raises(SourceError, match=r"5 bad packets .*use --decode cpu"):
            next(source)
    assert source.counts[reading.SKIPPED] == 5


def test_a_new_layout_midway_is_no_silent_change(clip, gpu):
    gpu(lambda frame, number: from_the_cpu(frame, number) if number == 4 else frame)
    with (
        FileSource(clip, decode="cuda") as source,
        pytest.raises(SourceError, match=r"the GPU as yuv420p.*--decode cpu"),
    ):
        list(source)


def test_close_from_another_thread(clip, gpu):
    gpu()
    with FileSource(clip, decode="cuda") as source:
        next(source)
        thread = threading.Thread(target=source.close)
        thread.start()
        thread.join()
        assert list(source) == []


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSYS, "this GPU's decoder lacks it"), (errno.EIO, "Input/output error")],
)
def test_what_the_gpu_does_not_take_is_said_with_the_reason(clip, monkeypatch, number, said):
    def refuse(*_, stay):
        raise av.error.FFmpegError(number, os.strerror(number))

    monkeypatch.setattr(cuda, "open_for_cuda", refuse)
    monkeypatch.setattr(cuda, "decoder_trouble", lambda: None)
    with pytest.raises(SourceError, match="NVDEC does not take h264 ") as refused:
        FileSource(clip, decode="cuda")
    assert f"({said})" in str(refused.value)


needs_no_gpu = pytest.mark.skipif(decoder_trouble() is None, reason="an NVIDIA GPU is here")


@needs_no_gpu
def test_without_a_gpu_cuda_is_an_error_in_one_line(clip):
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(SourceError) as refused:
        FileSource(clip, decode="cuda")
    assert str(refused.value) == (
        f"{clip}: can't be decoded on the GPU: {decoder_trouble()}; or use --decode cpu"
    )
    assert refused.value.exit_code == 3
    del refused
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@needs_no_gpu
def test_without_a_gpu_auto_says_so_and_gives_the_same(clip):
    with FileSource(clip) as plain, FileSource(clip, decode="auto") as source:
        assert source.info.notes == (
            *plain.info.notes,
            f"decoded by the CPU: {decoder_trouble()}",
        )
        for one, other in zip(plain, source, strict=True):
            assert (one.index, one.pts) == (other.index, other.pts)
            np.testing.assert_array_equal(one.y, other.y)
        assert source.counts == plain.counts


def test_a_picture_of_its_own_is_compared(clip):
    """The test's own pictures are unlike enough to be told apart."""
    one, other = (counted_picture(i, 96, 64).astype(int) for i in (0, 1))
    assert np.abs(one - other).mean() > cuda.MOST_DIFFERENCE
