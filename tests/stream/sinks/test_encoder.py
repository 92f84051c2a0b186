"""The encoder: quiet, quick unless told otherwise, and with sane times for the shortest clips."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stream.colour import ColourTags
from stream.errors import SinkError
from stream.sinks import FileSink
from stream.sources import open_source
from tests.builders import make_explanation, make_frame
from tests.stream.sinks.reading import names, read_packets, read_video, written


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1"])
def test_encoders_write_nothing_to_the_terminal(tmp_path, codec, capfd):
    written(tmp_path / "c.mkv", range(3), codec=codec)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_few_frames_have_sane_times(tmp_path, codec, frames):
    video = written(tmp_path / "c.mp4", range(frames), codec=codec)
    assert video.indices == list(range(frames))
    with av.open(str(tmp_path / "c.mp4")) as clip:
        ahead = [(p.pts - p.dts) * p.time_base for p in clip.demux(video=0) if p.size]
    assert len(ahead) == frames
    assert max(map(abs, ahead)) < 1


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_more_cores_more_threads_and_the_same_frames(tmp_path, monkeypatch):
    threads = []
    for cores in (1, 2, 4, 64):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: range(n))
        with FileSink(tmp_path / f"{cores}.mkv") as sink:
            for index in range(40):
                frame = make_frame(512, 768, index=index, pts=3 * index)
                sink.write(frame, make_explanation())
            threads.append(len(list(Path("/proc/self/task").iterdir())))
    assert threads[0] == threads[1] < threads[2] < threads[3]
    one, *more = (read_video(path) for path in tmp_path.iterdir())
    for video in (one, *more):
        assert video.indices == list(range(40))
        assert video.seconds == one.seconds


@pytest.mark.parametrize(("suffix", "more"), [("mkv", ""), ("mp4", " or another suffix")])
def test_an_encoder_that_does_not_take_the_frames_names_one_that_does(tmp_path, suffix, more):
    with pytest.raises(SinkError, match=f"encoder vc2 .* try the encoder libx264{more}"):
        written(tmp_path / f"out.{suffix}", range(3), codec="vc2")
    assert names(tmp_path) == []


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video", "mpeg4"])
@pytest.mark.parametrize(
    ("ticks", "stamps"),
    [(1000, [0, 33, 70, 120, 150]), (90_000, [126_000, 129_003, 135_000, 135_900]), (1, [3, 4, 6])],
)
def test_encoders_of_few_frame_rates_keep_any_time_stamps(tmp_path, codec, ticks, stamps):
    for suffix, tick in (("mp4", Fraction(1, 10**6)), ("mkv", Fraction(1, 1000))):
        path = tmp_path / f"{codec}.{suffix}"
        video = written(path, stamps, Fraction(1, ticks), codec=codec, fps=Fraction(10))
        assert video.indices == list(range(len(stamps)))
        for found, pts in zip(video.seconds, stamps, strict=True):
            assert abs(found - Fraction(pts, ticks)) < tick


def test_an_encoder_called_by_its_format_is_that_encoder(tmp_path, capfd):
    by_format = written(tmp_path / "c.mp4", range(3), codec="hevc").stream.codec_context
    assert by_format.codec_tag == "hvc1"
    assert capfd.readouterr() == ("", "")
    for codec in ("h264", "libx264"):
        written(tmp_path / f"{codec}.mp4", range(3), codec=codec)
    assert (tmp_path / "h264.mp4").read_bytes() == (tmp_path / "libx264.mp4").read_bytes()


def test_vp8_is_as_good_as_asked_at_any_bit_rate(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    sizes, worst = {}, {}
    for crf in (None, 5, 45):
        path = tmp_path / f"{crf}.mkv"
        with FileSink(path, codec="libvpx", crf=crf) as sink:
            for index in range(4):
                frame = make_frame(rgb=np.roll(rgb, 37 * index, 0), index=index)
                sink.write(frame, make_explanation())
        sizes[crf] = path.stat().st_size
        worst[crf] = np.abs(read_video(path).luma[-1].astype(int) - frame.y).mean()
    assert sizes[5] > sizes[None] > sizes[45]
    assert worst[5] < worst[None] < 5 < worst[45]


def test_codec_preset_and_crf_reach_the_encoder(tmp_path):
    sizes = {}
    for crf in (5, 45):
        written(tmp_path / f"{crf}.mp4", range(5), crf=crf)
        sizes[crf] = (tmp_path / f"{crf}.mp4").stat().st_size
    assert sizes[5] > 1.5 * sizes[45]
    video = written(tmp_path / "hevc.mp4", range(5), codec="libx265")
    assert video.stream.codec_context.name == "hevc"
    assert video.indices == list(range(5))
    # x264 writes its settings into the stream.
    assert b"crf=5.0" in (tmp_path / "5.mp4").read_bytes()


@pytest.mark.parametrize(
    ("codec", "asked", "same_as"),
    [
        ("libx265", {}, {"preset": "ultrafast", "crf": 24}),
        ("libx264", {}, {"preset": "ultrafast"}),
        ("libx264", {}, {"preset": "0"}),
        ("libx264", {"preset": "fast"}, {"preset": "fast", "crf": 20}),
    ],
)
def test_where_nothing_is_asked_it_is_quick_and_good(tmp_path, codec, asked, same_as):
    written(tmp_path / "usual.mkv", range(5), codec=codec, **asked)
    written(tmp_path / "named.mkv", range(5), codec=codec, **same_as)
    usual, named = (read_packets(tmp_path / f"{n}.mkv", "video") for n in ("usual", "named"))
    assert usual == named


def test_x264_gives_all_frames_one_quantiser_unless_asked_for_a_crf(tmp_path):
    # It writes its settings into the stream.
    written(tmp_path / "usual.mp4", range(5))
    written(tmp_path / "crf.mp4", range(5), preset="ultrafast", crf=20)
    usual, by_crf = ((tmp_path / f"{name}.mp4").read_bytes() for name in ("usual", "crf"))
    assert b"rc=cqp mbtree=0 qp=25" in usual
    assert b"me_range=4" in usual
    assert b"rc=crf mbtree=0 crf=20.0" in by_crf


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("libvpx", "mkv"), ("mpeg2video", "mkv"), ("mpeg4", "mp4"), ("mpeg4", "mkv"), ("ffv1", "mkv")],
)
def test_full_range_looks_the_same_where_a_file_can_not_tell_it(tmp_path, codec, suffix):
    colours = np.repeat(np.array([[0, 0, 0], [255, 255, 255], [220, 40, 60]], np.uint8), 64, 0)
    rgb = colours[None].repeat(64, 0)
    frame = make_frame(rgb=rgb, colour=ColourTags("bt601", full_range=True))
    with FileSink(tmp_path / f"c.{suffix}", codec=codec) as sink:
        sink.write(frame, make_explanation())
    with open_source(tmp_path / f"c.{suffix}") as source:
        [found] = source
    middles = np.s_[32, 32::64]
    assert np.abs(found.rgb()[middles].astype(int) - rgb[middles]).max() <= 6
    assert found.colour.full_range == (codec == "ffv1" or (codec, suffix) == ("mpeg4", "mkv"))


@pytest.mark.parametrize(("suffix", "tag"), [("mp4", "hvc1"), ("mov", "hvc1"), ("mkv", None)])
def test_hevc_has_the_tag_that_apples_players_ask_for(tmp_path, suffix, tag):
    video = written(tmp_path / f"c.{suffix}", range(3), codec="libx265")
    assert tag is None or video.stream.codec_context.codec_tag == tag


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_single_picture_is_shown_as_long_as_a_frame(tmp_path, suffix):
    path = tmp_path / f"one.{suffix}"
    written(path, [3], Fraction(1, 1000), fps=Fraction(5))
    with av.open(str(path)) as found:
        [packet] = [p for p in found.demux(video=0) if p.size]
        assert packet.duration * packet.time_base == Fraction(1, 5)


@pytest.mark.parametrize(
    "fps", [Fraction(90_000), Fraction(1, 100_000), Fraction(-25), Fraction(0)]
)
def test_a_wild_rate_costs_no_output(tmp_path, fps):
    stamps = [0, 40, 80]
    video = written(
        tmp_path / "c.mkv", stamps, Fraction(1, 1000), fps=Fraction(fps), codec="libsvtav1"
    )
    assert [1000 * s for s in video.seconds] == stamps
