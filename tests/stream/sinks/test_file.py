"""The file sink: frame by frame what went in comes out."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from stream.colour import ColourTags
from stream.errors import SinkError, UsageError
from stream.overlay import Overlay
from stream.sinks import FileSink
from stream.sources.file import FileSource
from tests.builders import make_explanation, make_frame
from tests.stream.sinks.reading import names, read_video, written

EXPLANATION = make_explanation()
SUFFIXES = [".mp4", ".m4v", ".mov", ".mkv"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_frame_once_and_in_order(tmp_path, suffix):
    video = written(tmp_path / f"out{suffix}", range(40))
    assert video.indices == list(range(40))
    assert video.stream.codec_context.name == "h264"
    assert names(tmp_path) == [f"out{suffix}"]


@pytest.mark.parametrize("preset", ["ultrafast", "medium"])
@pytest.mark.parametrize(
    ("time_base", "stamps"),
    [
        (Fraction(1, 25), range(30)),
        (Fraction(1, 12800), [3 + 512 * i for i in range(30)]),
        (Fraction(1, 90000), [126000, 126001, 129003, 200000, 200090, 900000, 900003]),
        (Fraction(1001, 30000), range(5, 35)),
        (Fraction(1, 1_000_000), [7 + 33_333 * i + i % 5 for i in range(70)]),
        (Fraction(1, 90000), [36_000 * 90_000 + 3003 * i for i in range(9)]),
        (Fraction(1, 1000), [0, 1, 5000, 5001, 60_000]),
    ],
    ids=["cfr", "offset", "vfr", "ntsc", "microseconds", "ten hours", "sparse"],
)
def test_mp4_keeps_every_time_stamp(tmp_path, time_base, stamps, preset):
    video = written(tmp_path / "out.mp4", stamps, time_base, preset=preset)
    assert video.seconds == [pts * time_base for pts in stamps]
    assert video.indices == list(range(len(video.seconds)))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_the_last_frame_is_shown_as_long_as_in_the_source(tmp_path, suffix, codec):
    first, again = tmp_path / f"out.{suffix}", tmp_path / f"again.{suffix}"
    with FileSink(first, fps=Fraction(7), codec=codec) as sink:
        for index, ticks in enumerate([40, 40, 5000]):
            frame = make_frame(64, 96, index=index, pts=40 * index, time_base=Fraction(1, 1000))
            sink.write(replace(frame, duration=ticks), EXPLANATION)
    with FileSource(first) as source, FileSink(again, codec=codec) as sink:
        for frame in source:
            sink.write(frame, EXPLANATION)
    for path in (first, again):
        with av.open(str(path)) as found:
            assert found.duration == 5_080_000


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_wild_length_of_the_last_frame_costs_no_output(tmp_path, suffix):
    with FileSink(tmp_path / f"out.{suffix}") as sink:
        for index, ticks in enumerate([40, 10**9]):
            frame = make_frame(64, 96, index=index, pts=40 * index, time_base=Fraction(1, 1000))
            sink.write(replace(frame, duration=ticks), EXPLANATION)
    assert read_video(tmp_path / f"out.{suffix}").indices == [0, 1]


def test_mkv_keeps_time_stamps_to_the_millisecond(tmp_path):
    base, stamps = Fraction(1, 90000), [126000, 126100, 129003, 200000, 900000]
    video = written(tmp_path / "out.mkv", stamps, base)
    for out, pts in zip(video.seconds, stamps, strict=True):
        assert abs(out - pts * base) <= Fraction(1, 1000)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("tags", "numbers"),
    [
        (ColourTags("bt709", False, 1, 1), (1, 1, 1, 1)),
        (ColourTags("bt601", True, 5, 6), (6, 2, 5, 6)),
        (ColourTags("bt2020", False, 9, 14), (9, 1, 9, 14)),
    ],
    ids=["709", "601 full", "2020"],
)
def test_carries_the_colour_tags(tmp_path, suffix, tags, numbers):
    path = tmp_path / f"out{suffix}"
    with FileSink(path) as sink:
        sink.write(make_frame(colour=tags), EXPLANATION)
    first = read_video(path).first
    found = (first.colorspace, first.color_range, first.color_primaries, first.color_trc)
    assert tuple(int(n) for n in found) == numbers


def test_pictures_come_back_as_they_were(tmp_path):
    frame = make_frame(64, 96)
    with FileSink(tmp_path / "out.mkv", crf=1) as sink:
        sink.write(frame, EXPLANATION)
    first = read_video(tmp_path / "out.mkv").first
    planes = first.to_ndarray().reshape(-1)
    expected = np.concatenate([p.reshape(-1) for p in (frame.y, frame.u, frame.v)])
    assert np.abs(planes.astype(int) - expected).max() <= 4


@pytest.mark.parametrize("size", [(63, 95), (64, 95), (63, 96), (1, 1)])
def test_odd_sides_are_evened_by_their_last_line(tmp_path, size):
    path = tmp_path / "out.mp4"
    rgb = np.full((*size, 3), 60, np.uint8)
    rgb[:, -3:] = 200
    frame = make_frame(rgb=rgb)
    with FileSink(path, crf=1) as sink:
        sink.write(frame, EXPLANATION)
    assert any("evened to" in note for note in sink.notes)
    luma = read_video(path).luma[0].astype(int)
    height, width = size
    assert luma.shape == (height + height % 2, width + width % 2)
    assert np.abs(luma[:height, :width] - frame.y).max() <= 6
    assert np.abs(luma[height:, :width] - frame.y[-1:]).max(initial=0) <= 6
    assert np.abs(luma[:height, width:] - frame.y[:, -1:]).max(initial=0) <= 6


def test_even_sizes_need_no_note(tmp_path):
    with FileSink(tmp_path / "out.mp4") as sink:
        sink.write(make_frame(), EXPLANATION)
    assert sink.notes == ()


def test_side_by_side_is_written_at_its_own_width(tmp_path):
    draw = Overlay("side")
    with FileSink(tmp_path / "out.mp4") as sink:
        for index in range(3):
            sink.write(draw(make_frame(64, 96, index=index), EXPLANATION), EXPLANATION)
    assert [luma.shape for luma in read_video(tmp_path / "out.mp4").luma] == [(64, 192)] * 3


def test_padded_rows_are_not_written(tmp_path):
    frame = make_frame(64, 90)
    wide = {n: np.pad(getattr(frame, n), ((0, 0), (0, 30))) for n in "yuv"}
    cut = type(frame)(
        wide["y"][:, :90], wide["u"][:, :45], wide["v"][:, :45], 0, 0, frame.time_base, 0.0
    )
    for name, given in (("a.mkv", frame), ("b.mkv", cut)):
        with FileSink(tmp_path / name) as sink:
            sink.write(given, EXPLANATION)
    first, second = (read_video(tmp_path / n).luma[0] for n in ("a.mkv", "b.mkv"))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("size", [(64, 96), (62, 50), (63, 95)])
@pytest.mark.parametrize("colour", [ColourTags(), ColourTags("bt601", True)], ids=str)
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_planes_in_one_buffer_are_written_as_any_others(tmp_path, size, colour, codec):
    draw = Overlay("heat")
    explanation = make_explanation(mask=np.random.default_rng(0).random((1, 8, 8), np.float32))
    frames = [
        draw(make_frame(*size, index=index, colour=colour), explanation) for index in range(4)
    ]
    assert all(frame.buffer is not None for frame in frames)
    before = [frame.buffer.copy() for frame in frames]
    apart = [replace(f, y=f.y.copy(), u=f.u.copy(), v=f.v.copy()) for f in frames]
    for name, some in (("a.mp4", frames), ("b.mp4", apart)):
        with FileSink(tmp_path / name, codec=codec) as sink:
            for frame in some:
                sink.write(frame, explanation)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert all(np.array_equal(f.buffer, b) for f, b in zip(frames, before, strict=True))


def test_another_size_is_refused_and_the_rest_kept(tmp_path):
    path = tmp_path / "out.mp4"
    sink = FileSink(path)
    for index in range(3):
        sink.write(make_frame(64, 96, index=index), EXPLANATION)
    other = make_frame(64, 100, index=3)
    with pytest.raises(SinkError, match=r"frame 3 is 100x64 after 96x64"):
        sink.write(other, EXPLANATION)
    with pytest.raises(SinkError, match=r"^b.png is 100x64 after 96x64"):
        sink.write(replace(other, file="b.png"), EXPLANATION)
    sink.close(whole=False)
    assert names(tmp_path) == ["out.mp4.partial"]
    assert read_video(sink.path.with_name("out.mp4.partial")).indices == [0, 1, 2]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_short_plays_under_its_partial_name(tmp_path, suffix):
    sink = FileSink(tmp_path / f"out{suffix}")
    for index in range(12):
        sink.write(make_frame(64, 96, index=index), EXPLANATION)
    sink.close(whole=False)
    assert names(tmp_path) == [f"out{suffix}.partial"]
    assert read_video(tmp_path / f"out{suffix}.partial").indices == list(range(12))


def test_what_is_written_plays_without_an_end(tmp_path):
    """As after a power failure: all but the last fragment of a second is there."""
    sink = FileSink(tmp_path / "out.mp4")
    for index in range(100):
        sink.write(make_frame(64, 96, index=index), EXPLANATION)
    sink._output.file.flush()
    copy = tmp_path / "copy.mp4"
    copy.write_bytes((tmp_path / "out.mp4.partial").read_bytes())
    sink.close(whole=False)
    assert len(read_video(copy).indices) >= 50


def test_the_file_is_made_of_fragments(tmp_path):
    written(tmp_path / "out.mp4", range(100))
    assert (tmp_path / "out.mp4").read_bytes().count(b"moof") >= 3


def test_a_failure_of_the_first_frame_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_args):
        raise av.error.InvalidDataError(1, "broken")

    monkeypatch.setattr("stream.sinks.encoded.VideoEncoder.encode", fail)
    with (
        pytest.raises(SinkError, match="encoder libx264 or container failed"),
        FileSink(tmp_path / "out.mp4") as sink,
    ):
        sink.write(make_frame(), EXPLANATION)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "options", "error", "said"),
    [
        ("out.avi", {}, UsageError, r"can't write \.avi; choose one of \.mp4, \.m4v, \.mov, \.mkv"),
        ("out", {}, UsageError, "file without suffix"),
        ("", {}, UsageError, "is a directory; give the output a file name in it"),
        ("out.mp4", {"codec": "libnothing"}, UsageError, "libnothing: not in this FFmpeg"),
        ("out.mp4", {"codec": "aac"}, UsageError, "does not encode 8-bit 4:2:0"),
        ("out.mp4", {"codec": "png"}, UsageError, "does not encode 8-bit 4:2:0"),
        ("out.mov", {"codec": "libvpx-vp9"}, UsageError, "can't be stored in mov"),
        ("out.mp4", {"preset": "warp"}, UsageError, "preset warp; choose from ultrafast, super"),
        ("out.mp4", {"codec": "libx265", "preset": "10"}, UsageError, "preset 10; choose from"),
        ("a.mkv", {"codec": "libsvtav1", "preset": "warp"}, SinkError, "warp: does not open here"),
        (
            "a.mkv",
            {"codec": "libsvtav1", "preset": "warp", "size": (64, 48)},
            SinkError,
            "warp: does not open here",
        ),
        ("out.mp4", {"size": (20000, 4)}, SinkError, "libx264: takes no pictures of 20000x4.*ffv1"),
        ("out.mp4", {"codec": "libx265", "size": (8, 8)}, SinkError, "takes no pictures of 8x8"),
        ("out.mp4", {"crf": 52}, UsageError, r"crf 52; choose 0 .* 51"),
        ("out.mp4", {"codec": "mpeg4", "crf": 20}, UsageError, "has no option crf"),
        ("nowhere/out.mp4", {}, SinkError, "no directory"),
    ],
)
def test_refuses_before_the_first_frame(tmp_path, name, options, error, said):
    with pytest.raises(error, match=said):
        FileSink(tmp_path / name, **options)
    assert names(tmp_path) == []
