"""Frames that could stay on the GPU and do not, and a GPU that fails later."""

import av
import pytest

from engines.errors import EngineError
from engines.surface import Surface
from stream.errors import SourceError
from stream.gpu_frame import GpuFrame
from stream.sources import cuda
from stream.sources import file as file_module
from stream.sources.file import FileSource
from tests.builders import make_clip, read_index
from tests.stream.sources.fake_nvdec import stay_up

FRAMES = 6


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "c.mp4", frames=FRAMES)


def black(frame) -> Surface:
    picture = Surface.take(frame.planes)
    picture.y.zero_()
    return picture


def out_of_memory(frame) -> Surface:
    raise EngineError("pictures on the GPU: too little memory")


def refused(gpu):
    """A GPU that decodes only what is brought down."""

    def open_for_cuda(*args, stay):
        if stay:
            raise av.ExternalError(-1, "no")
        return gpu(*args, stay=stay)

    return open_for_cuda


@pytest.mark.parametrize(
    ("taken", "why"),
    [
        (black, "NVDEC's first frame differs from the CPU's by "),
        (out_of_memory, "pictures on the GPU: too little memory"),
        (None, "NVDEC does not take h264 96x64 yuv420p"),
    ],
    ids=["wrong picture", "no memory", "refused"],
)
def test_what_can_not_stay_comes_down(clip, monkeypatch, taken, why):
    # Undone first, as it was put on top.
    with stay_up() as gpu, monkeypatch.context() as patch:
        if taken is None:
            patch.setattr(cuda, "open_for_cuda", refused(gpu))
            patch.setattr(cuda, "decoder_trouble", lambda: None)
        else:
            patch.setattr(cuda, "surface_of", taken)
        with FileSource(clip, decode="cuda") as source:
            assert f"they come down at once: {why}" in source.info.notes[-1]
            frames = list(source)
    assert [read_index(frame.y) for frame in frames] == list(range(FRAMES))
    assert not any(isinstance(frame, GpuFrame) for frame in frames)


def test_memory_that_runs_out_later_is_told_in_a_line(clip, monkeypatch):
    with stay_up(), FileSource(clip, decode="cuda") as source:
        assert isinstance(next(source), GpuFrame)
        monkeypatch.setattr(file_module, "surface_of", out_of_memory)
        with pytest.raises(SourceError, match=r"c\.mp4: pictures on the GPU: too little memory"):
            next(source)
