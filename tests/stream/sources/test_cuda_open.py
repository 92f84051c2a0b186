"""What FFmpeg is asked for where a file is opened for the GPU."""

import sys
from base64 import b64decode
from contextlib import contextmanager

import av
import pytest

from stream.hardware import CLIPS
from stream.sources import cuda
from stream.sources.opening import check_file

NOT_THERE = NotImplementedError
"""FFmpeg's "platform doesn't support hardware accelerated AV1 decoding"."""


class Recorded:
    """A stand-in for `av.CodecContext` that tells what was asked of it."""

    asked: tuple = ()
    is_hwaccel = True
    extradata = None

    @classmethod
    def create(cls, *asked):
        made = cls()
        made.asked = asked
        return made


def test_av1_gets_ffmpegs_own_decoder(tmp_path, monkeypatch):
    """The one that PyAV opens with a file, dav1d, knows no GPU."""
    path = tmp_path / "av1.ivf"
    path.write_bytes(b64decode(CLIPS["av1"][1]))
    monkeypatch.setattr(av, "CodecContext", Recorded)
    extent = check_file(path, "x")
    opened = cuda.open_for_cuda(path, "x", extent, "av1", stay=False)
    with opened.container:
        codec, mode, device = opened.context.asked
        assert (codec, mode) == ("av1", "r")
        assert (device.allow_software_fallback, device.is_hw_owned) == (False, False)
        assert opened.context.extradata == opened.stream.codec_context.extradata
        assert opened.context.extradata
        packet = next(opened.container.demux(opened.stream))
    monkeypatch.undo()
    # As PyAV leaves it, FFmpeg takes the GPU for set up and wants its memory; now it asks for one.
    for written, error in (("cuda", av.ArgumentError), (opened.context.pix_fmt, NOT_THERE)):
        decoder = av.CodecContext.create("av1", "r")
        decoder.extradata, decoder.pix_fmt = opened.context.extradata, written
        with pytest.raises(error):
            decoder.decode(packet)


def test_frames_that_stay_are_decoded_in_torchs_context(tmp_path, monkeypatch):
    path = tmp_path / "av1.ivf"
    path.write_bytes(b64decode(CLIPS["av1"][1]))
    inside = []

    @contextmanager
    def context():
        inside.append("current")
        yield
        inside.clear()

    class Opened(Recorded):
        @classmethod
        def create(cls, *asked):
            assert inside  # FFmpeg takes the context that it finds when it opens a decoder
            return super().create(*asked)

    monkeypatch.setattr(av, "CodecContext", Opened)
    monkeypatch.setattr(cuda, "torchs_context", context)
    opened = cuda.open_for_cuda(path, "x", check_file(path, "x"), "av1", stay=True)
    with opened.container:
        device = opened.context.asked[2]
        assert device.is_hw_owned
        assert device.options == {"primary_ctx": "0", "current_ctx": "1"}
    assert not inside


def test_torch_is_loaded_only_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "engines.surface", None)  # as without torch
    monkeypatch.setattr(cuda, "driver_trouble", lambda: "no driver")
    assert cuda.context_trouble() == "no driver"
    monkeypatch.setattr(cuda, "driver_trouble", lambda: None)
    assert cuda.context_trouble().startswith("torch is missing (")
