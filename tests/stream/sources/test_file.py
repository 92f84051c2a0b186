"""Video files: every frame once, true stamps, facts, no copies."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stream.colour import ColourTags
from stream.sources.file import FileSource
from stream.sources.reading import RESHAPED
from tests.builders import DATA, copy_packets, make_clip, read_index


def read(path):
    with FileSource(path) as source:
        return list(source), source


def test_frames_in_presentation_order_with_b_frames(tmp_path):
    clip = make_clip(tmp_path / "b.mp4", frames=30, options={"bf": "3", "preset": "veryfast"})
    frames, source = read(clip)
    assert [read_index(f.y) for f in frames] == list(range(30))
    assert [f.pts * f.time_base for f in frames] == [Fraction(i, 25) for i in range(30)]
    assert not source.counts


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi", "ts", "nut"])
def test_containers(tmp_path, suffix):
    codec = "mpeg4" if suffix == "avi" else "libx264"
    clip = make_clip(
        tmp_path / f"c.{suffix}", frames=12, codec=codec, audio=suffix in {"mp4", "mkv"}
    )
    frames, source = read(clip)
    assert [read_index(f.y) for f in frames] == list(range(12))
    start = frames[0].pts_seconds
    assert [round(f.pts_seconds - start, 3) for f in frames] == [i / 25 for i in range(12)]
    assert not source.counts


@pytest.mark.parametrize(("b_frames", "late"), [("0", 0), ("3", 2)])
def test_h264_in_avi_which_stores_no_times_of_showing(tmp_path, b_frames, late):
    clip = make_clip(tmp_path / "c.avi", frames=30, options={"bf": b_frames, "preset": "veryfast"})
    frames, _ = read(clip)
    assert [read_index(f.y) for f in frames] == list(range(30))
    assert [f.pts * f.time_base for f in frames] == [Fraction(i + late, 25) for i in range(30)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rate_keeps_every_stamp(tmp_path, suffix):
    stamps = [0, 33, 34, 100, 101, 900, 2500]
    clip = make_clip(tmp_path / f"v.{suffix}", pts=stamps, time_base=Fraction(1, 1000))
    frames, source = read(clip)
    assert [f.pts * f.time_base * 1000 for f in frames] == stamps
    assert [read_index(f.y) for f in frames] == list(range(7))
    assert not source.counts


def test_a_new_pixel_aspect_midway_is_told_of(tmp_path):
    parts = [
        make_clip(tmp_path / f"{aspect}.ts", frames=30, options={"x264-params": f"sar={aspect}/1"})
        for aspect in (1, 2)
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, source = read(joined)
    assert {f.y.shape for f in frames} == {(64, 96)}
    assert source.counts[RESHAPED] == 1


def test_stamps_need_not_start_at_zero(tmp_path):
    clip = make_clip(tmp_path / "v.mkv", pts=[7000, 7040, 7080], time_base=Fraction(1, 1000))
    assert [f.pts for f in read(clip)[0]] == [7000, 7040, 7080]


def test_the_info_tells_what_the_file_claims(tmp_path):
    clip = make_clip(
        tmp_path / "clip.mp4",
        frames=6,
        fps=Fraction(30000, 1001),
        colour=ColourTags("bt709", False, 1, 1),
        audio=True,
        subtitle="hello",
    )
    with FileSource(clip) as source:
        info = source.info
    assert (info.name, info.path, info.live) == (str(clip), clip, False)
    assert (info.width, info.height, info.codec) == (96, 64, "h264")
    assert info.fps_declared == Fraction(30000, 1001)
    assert info.frames_declared == 6
    assert info.seconds_declared == pytest.approx(6 * 1001 / 30000)
    assert info.colour == ColourTags("bt709", False, 1, 1)
    assert info.notes == ()


@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_the_length_is_known_where_the_number_of_frames_is_not(tmp_path, suffix):
    with FileSource(make_clip(tmp_path / f"clip.{suffix}", frames=50)) as source:
        assert source.info.frames_declared is None
        assert source.info.seconds_declared == pytest.approx(2, abs=0.1)


def test_plain_planes_are_the_decoders_own_buffers(tmp_path):
    frames, _ = read(make_clip(tmp_path / "c.mp4", width=90, frames=3))
    for plane in (frames[1].y, frames[1].u, frames[1].v):
        assert not plane.flags.owndata
        assert plane.strides[0] > plane.shape[1]
        with pytest.raises(ValueError, match="read-only"):
            plane[0, 0] = 1


def test_no_copy_means_the_same_bytes(tmp_path):
    clip = make_clip(tmp_path / "c.mp4", width=90, height=50, frames=4)
    frames, _ = read(clip)
    with av.open(str(clip)) as container:
        for frame, reference in zip(frames, container.decode(video=0), strict=True):
            packed = np.concatenate([p.reshape(-1) for p in (frame.y, frame.u, frame.v)])
            np.testing.assert_array_equal(packed, reference.to_ndarray().reshape(-1))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 7), (7, 1), (3, 3), (97, 65)])
def test_tiny_and_odd_sizes(tmp_path, width, height):
    clip = make_clip(
        tmp_path / "o.mkv", width=width, height=height, frames=5, codec="mjpeg", pix_fmt="yuvj420p"
    )
    frames, source = read(clip)
    assert (source.info.width, source.info.height) == (width, height)
    assert len(frames) == 5
    assert {f.rgb().shape for f in frames} == {(height, width, 3)}
    assert len({int(f.y[0, 0]) for f in frames}) == 5 or width > 48


def test_8k(tmp_path):
    def plain(index: int) -> av.VideoFrame:
        frame = av.VideoFrame(7680, 4320, "yuv420p")
        for plane, value in zip(frame.planes, (90 + 20 * index, 110, 140), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        return frame

    clip = make_clip(tmp_path / "8k.mp4", width=7680, height=4320, frames=2, picture=plain)
    with FileSource(clip) as source:
        assert (source.info.width, source.info.height) == (7680, 4320)
        levels = [(int(f.y[-1, -1]), int(f.u[-1, -1]), int(f.v[0, 0])) for f in source]
    assert np.abs(np.subtract(levels, [(90, 110, 140), (110, 110, 140)])).max() <= 1


def test_a_name_that_looks_like_a_url_or_pattern_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = make_clip(tmp_path / "c.mp4", frames=3)
    for name in ("rtsp:cam.mp4", "concat:a|b.mp4", "%03d.mp4", "a b'c.mp4"):
        clip = clip.rename(tmp_path / name)
        assert len(read(Path(name))[0]) == 3


def test_a_picture_named_like_a_pattern_is_read_alone(tmp_path):
    clip = make_clip(  # of a format that only the suffix tells
        tmp_path / "p0.tga",
        frames=1,
        codec="targa",
        pix_fmt="bgr24",
        container_options={"update": "1"},
    )
    for name in ("p1.tga", "p%d.tga"):
        (tmp_path / name).write_bytes(clip.read_bytes())
        assert len(read(tmp_path / name)[0]) == 1


def test_a_cover_picture_is_not_the_video(tmp_path):
    def cover(index: int) -> np.ndarray:
        return np.full((200, 300, 3), 128, np.uint8)

    clip = make_clip(tmp_path / "c.mp4", frames=5)
    still = make_clip(
        tmp_path / "s.mov", width=300, height=200, frames=1, picture=cover, codec="png",
        pix_fmt="rgb24",
    )  # fmt: skip
    both = tmp_path / "both.mp4"
    with av.open(str(still)) as first, av.open(str(clip)) as second, av.open(str(both), "w") as out:
        streams = [out.add_stream_from_template(c.streams.video[0]) for c in (first, second)]
        streams[0].disposition = av.stream.Disposition.attached_pic
        for container, stream in zip((first, second), streams, strict=True):
            copy_packets(container, {0: stream})
    frames, source = read(both)
    assert (source.info.width, len(frames)) == (96, 5)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}; see NEM_DATA")
def test_a_real_recording_frame_by_frame():
    path = DATA / "videos" / "car-detection.mp4"
    with av.open(str(path)) as container:
        expected = [frame.pts for frame in container.decode(video=0)]
        claimed = container.streams.video[0].frames
    with FileSource(path) as source:
        stamps = [frame.pts for frame in source]
    assert stamps == expected
    assert len(stamps) == claimed == source.info.frames_declared
    assert not source.counts
