"""On an NVIDIA GPU: frames decoded there stay there, and are those of the CPU."""

import numpy as np
import pytest

from engines import open_engine
from engines.fake import FakeEngine
from stream.gpu_frame import GpuFrame
from stream.hardware import probe_encoder
from stream.overlay import Overlay
from stream.pipeline import Pipeline
from stream.sinks import FileSink
from stream.sources.file import FileSource
from tests.builders import make_clip, make_explanation
from tests.required import need
from tests.stream.sinks.reading import read_video

pytestmark = pytest.mark.gpu
NEAR = 3
"""Levels by which pictures made there differ at most."""


@pytest.fixture
def clip(tmp_path):
    need("cuda")
    need("nvdec")
    return make_clip(
        tmp_path / "c.mp4", frames=30, width=640, height=360, audio=True, options={"bf": "2"}
    )


def test_they_stay_and_are_those_of_the_cpu(clip):
    explanation = make_explanation(160)
    with FileSource(clip) as on_cpu, FileSource(clip, decode="cuda") as on_gpu:
        assert "they stay on the GPU" in on_gpu.info.notes[-1]
        for one, other in zip(on_cpu, on_gpu, strict=True):
            assert isinstance(other, GpuFrame)
            assert other.surface.y.device.type == "cuda"
            small = other.rgb((224, 224)).astype(int)
            assert np.abs(small - one.rgb((224, 224))).max() <= 2 * NEAR
            drawn, expected = Overlay()(other, explanation), Overlay()(one, explanation)
            assert isinstance(drawn, GpuFrame)
            for name in "yuv":
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
                difference = getattr(drawn, name).astype(int) - getattr(expected, name)
                assert np.abs(difference).max() <= NEAR


def test_whatever_gpu_and_stream_the_caller_uses(tmp_path, clip):
    torch = pytest.importorskip("torch")
    explanation, out = make_explanation(160), tmp_path / "c.mkv"
    last = torch.cuda.device_count() - 1
    codec = "libx264" if probe_encoder("h264_nvenc") else "h264_nvenc"
    with torch.cuda.device(last), torch.cuda.stream(torch.cuda.Stream()):
        with FileSource(clip) as on_cpu, FileSource(clip, decode="cuda") as on_gpu:
            assert "they stay on the GPU" in on_gpu.info.notes[-1]
            with FileSink(out, codec=codec) as sink:
                for one, other in zip(on_cpu, on_gpu, strict=True):
                    drawn = Overlay()(other, explanation)
                    sink.write(drawn, explanation)
                    difference = drawn.y.astype(int) - Overlay()(one, explanation).y
                    assert np.abs(difference).max() <= NEAR
        assert torch.cuda.current_device() == last
    assert read_video(out).indices == list(range(30))


def test_a_model_on_the_gpu_sees_the_same(clip):
    masks = []
    with open_engine("nem-tiny", "eager", device="cuda") as engine:
        for decode in ("cpu", "cuda"):
            pipeline = Pipeline(FileSource(clip, decode=decode), engine, overlay=Overlay())
            masks.append(np.stack([found.mask[0] for _, found in pipeline.frames()]))
    assert np.abs(masks[0] - masks[1]).mean() < 1 / 255


@pytest.mark.parametrize("codec", ["libx264", "h264_nvenc", "hevc_nvenc"])
def test_from_decoder_to_encoder(tmp_path, clip, codec):
    if codec != "libx264":
        need("nvenc")
        if reason := probe_encoder(codec):
            pytest.skip(f"{codec}: {reason}")
    videos = []
    for decode in ("cpu", "cuda"):
        out = tmp_path / f"{decode}.mkv"
        with FakeEngine() as engine:
            source = FileSource(clip, decode=decode)
            sink = FileSink(out, copy_from=clip, codec=codec)
            assert Pipeline(source, engine, [sink], overlay=Overlay()).run().frames_out == 30
        videos.append(read_video(out))
    expected, found = videos
    assert found.seconds == expected.seconds
    assert found.indices == expected.indices
    for one, other in zip(found.luma, expected.luma, strict=True):
        assert np.abs(one.astype(int) - other).mean() < NEAR
