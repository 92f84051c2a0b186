"""The probes: the same code that reads and writes, on a clip of two frames."""

from base64 import b64decode

import numpy as np
import pytest

from stream import hardware
from stream.hardware import CLIPS, examine_hardware, probe_decoder, probe_encoder
from stream.nvidia import driver_trouble
from stream.sinks.nvenc import NVENC
from stream.sources import cuda
from stream.sources.file import FileSource
from tests.stream.sources.fake_nvdec import FakeGpu

needs_no_gpu = pytest.mark.skipif(driver_trouble() is None, reason="an NVIDIA GPU is here")


@pytest.mark.parametrize("codec", CLIPS)
def test_the_clips_are_what_they_are_said_to_be(tmp_path, codec):
    suffix, content = CLIPS[codec]
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(b64decode(content))
    with FileSource(path) as source:
        assert (source.info.codec, source.info.width, source.info.height) == (codec, 256, 256)
        frames = list(source)
    assert len(frames) == hardware.FRAMES
    for frame in frames:
        for plane, across in ((frame.y, 1), (frame.u, 0), (frame.v, 1)):
            ramp = plane.mean(axis=1 - across)
            assert np.abs(ramp - np.linspace(60, 187, len(ramp))).max() < 6


@needs_no_gpu
def test_without_a_gpu_everything_says_why():
    trouble = driver_trouble()
    assert list(examine_hardware()) == [("NVDEC, NVENC", trouble)]
    assert {probe_decoder(codec) for codec in CLIPS} == {trouble}
    assert {probe_encoder(codec) for codec in NVENC} == {trouble}


def test_with_a_gpu_each_is_tried(monkeypatch):
    monkeypatch.setattr(hardware, "driver_trouble", lambda: None)
    monkeypatch.setattr(hardware, "probe_decoder", {"av1": "no"}.get)
    monkeypatch.setattr(hardware, "probe_encoder", {"hevc_nvenc": "full"}.get)
    assert dict(examine_hardware()) == {
        "NVDEC h264": None,
        "NVDEC hevc": None,
        "NVDEC av1": "no",
        "NVDEC vp9": None,
        "NVENC h264": None,
        "NVENC hevc": "full",
        "NVENC av1": None,
    }


@pytest.mark.parametrize("codec", CLIPS)
def test_a_decoder_that_works(monkeypatch, codec):
    monkeypatch.setattr(cuda, "open_for_cuda", FakeGpu())
    assert probe_decoder(codec) is None


def test_a_decoder_that_ends_early(monkeypatch):
    monkeypatch.setattr(cuda, "open_for_cuda", FakeGpu(lambda f, n: f if n == 0 else None))
    assert probe_decoder("h264") == "NVDEC gave 1 of 2 frames of h264"
