"""Frames on a GPU into files: encoded where they are by NVENC, else brought down.

Encoders of the CPU stand in for NVENC: they take NV12 from DLPack as it does.
"""

import gc
from unittest import mock

import av
import numpy as np
import pytest
import torch
from av.video.frame import CudaContext

from engines.errors import EngineError
from engines.fake import FakeEngine
from engines.surface import Surface
from stream.errors import SinkError
from stream.gpu_frame import GpuFrame
from stream.overlay import Overlay
from stream.pipeline import Pipeline
from stream.sinks import FileSink, encoded
from stream.sources.file import FileSource
from tests.builders import make_clip, make_explanation, make_frame
from tests.engines.test_surface import taken
from tests.stream.sinks.reading import read_video
from tests.stream.sources.fake_nvdec import stay_up


@pytest.fixture
def nvenc(monkeypatch):
    """libx264 counts as an encoder of the GPU; gives the pictures that were encoded there."""
    there = []
    take = encoded.VideoEncoder._where_it_is

    def where_it_is(encoder, surface):
        there.append(surface)
        return take(encoder, surface)

    monkeypatch.setattr(encoded, "NVENC", {"libx264": None})
    monkeypatch.setattr(encoded, "ON_GPU", "nv12")
    monkeypatch.setattr(encoded.VideoEncoder, "_where_it_is", where_it_is)
    return there


def on_gpu(frame):
    return GpuFrame(taken(frame), *frame.facts)


def written(path, frames, **options):
    with FileSink(path, **options) as sink:
        for frame in frames:
            sink.write(frame, make_explanation())
    return read_video(path)


FRAMES = [make_frame(48, 66, index=i) for i in range(6)]


def test_the_encoder_gets_the_pictures_where_they_are(tmp_path, nvenc):
    frames = [on_gpu(frame) for frame in FRAMES]
    expected = written(tmp_path / "cpu.mp4", FRAMES)
    found = written(tmp_path / "gpu.mp4", frames)
    assert nvenc == [frame.surface for frame in frames]
    assert found.seconds == expected.seconds
    for one, other in zip(found.luma, expected.luma, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.stream.codec_context.colorspace == expected.stream.codec_context.colorspace


def test_nvenc_is_asked_for_pictures_in_torchs_context(tmp_path):
    choice = encoded.EncoderChoice("h264_nvenc", {})
    with av.open(str(tmp_path / "c.mkv"), "w") as out:
        for first, kind in ((on_gpu(FRAMES[0]), "cuda"), (FRAMES[0], "yuv420p")):
            encoder = encoded.VideoEncoder(out, choice, first, None)
            assert out.streams.video[-1].codec_context.pix_fmt == kind
            cuda = encoder._cuda
            assert (cuda is not None) == (kind == "cuda")
            assert cuda is None or (cuda.current_ctx, cuda.primary_ctx) == (True, False)


@pytest.mark.parametrize("whole", [True, False])
def test_the_gpu_is_let_go_of_at_the_end_and_not_by_the_garbage_collector(tmp_path, nvenc, whole):
    """Which takes PyAV's context apart before it can free what it holds."""

    def held():
        return sum(type(each) is CudaContext for each in gc.get_objects())

    before = held()
    sink = FileSink(tmp_path / "c.mkv")
    sink.write(on_gpu(FRAMES[0]), make_explanation())
    assert held() == before + 1
    sink.close(whole=whole)
    assert held() == before


def test_frames_that_came_down_midway_go_up_again(tmp_path, nvenc):
    mixed = [frame if frame.index in (2, 5) else on_gpu(frame) for frame in FRAMES]
    found = written(tmp_path / "gpu.mp4", mixed)
    assert len(nvenc) == 4
    assert found.indices == list(range(6))


@pytest.mark.parametrize("codec", ["ffv1", "libx265"])
def test_other_encoders_get_them_brought_down(tmp_path, nvenc, codec):
    found = written(tmp_path / "c.mkv", map(on_gpu, FRAMES), codec=codec)
    assert nvenc == []
    assert found.indices == list(range(6))


def test_a_file_that_began_on_the_cpu_goes_on_so(tmp_path, nvenc):
    mixed = [FRAMES[0], *map(on_gpu, FRAMES[1:])]
    assert written(tmp_path / "c.mp4", mixed).indices == list(range(6))
    assert nvenc == []


@pytest.mark.parametrize("first", [FRAMES[0], on_gpu(FRAMES[0])])
def test_an_encoder_that_takes_none_from_there_is_told_with_the_cure(tmp_path, nvenc, first):
    """As where the first GPU has no NVENC and another has."""
    sink = FileSink(tmp_path / "c.mkv")
    refuse = mock.Mock(side_effect=av.ExternalError(-542398533, "Generic error"))
    with (
        mock.patch.object(encoded.VideoEncoder, "_timed", refuse),
        pytest.raises(SinkError, match="libx264 or container failed") as told,
    ):
        sink.write(first, make_explanation())
    there = first is not FRAMES[0]
    assert ("try decoding by the CPU (--decode cpu)" in str(told.value)) == there


def test_a_gpu_that_fails_before_the_picture_is_complete(tmp_path, nvenc, monkeypatch):
    def fail(_):
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(Surface, "_finish", fail)
    with pytest.raises(EngineError, match="pictures on the GPU: completing a picture failed"):
        written(tmp_path / "c.mp4", map(on_gpu, FRAMES))
    assert not (tmp_path / "c.mp4").exists()


@pytest.mark.parametrize("style", ["heat", "side"])
def test_from_decoder_to_encoder(tmp_path, nvenc, style):
    """The whole way; whatever the style, the file is that of the CPU."""
    clip = make_clip(tmp_path / "c.mp4", frames=12, width=320, height=240, audio=True)
    outs = []
    for decode in ("cpu", "cuda"):
        with stay_up(), FakeEngine() as engine:
            out = tmp_path / f"{decode}.mkv"
            source = FileSource(clip, decode=decode)
            sink = FileSink(out, copy_from=clip, crf=0)
            report = Pipeline(source, engine, [sink], overlay=Overlay(style)).run()
        assert report.frames_out == 12
        outs.append(read_video(out))
        with av.open(str(out)) as container:
            assert len(container.streams.audio) == 1
    expected, found = outs
    assert len(nvenc) == (12 if style == "heat" else 0)
    assert found.seconds == expected.seconds
    for one, other in zip(found.luma, expected.luma, strict=True):
        difference = np.abs(one.astype(int) - other)
        assert difference.max() <= 3
        assert difference.mean() < 0.5
