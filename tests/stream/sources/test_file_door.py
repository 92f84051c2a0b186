"""Pictures that need work at the door: turned, interlaced, deep, odd formats, changing sizes."""

from collections import Counter
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from nem.deinterlace import DEINTERLACED
from stream.colour import ColourTags
from stream.sources.base import RESIZED
from stream.sources.door import RECOLOURED, Door
from stream.sources.file import FileSource
from stream.sources.stamps import CONTINUED
from tests.builders import copy_packets, counted_picture, make_clip, read_index


def read(path):
    with FileSource(path) as source:
        return list(source), source


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
def test_all_eight_orientations(tmp_path, quarter_turns, hflip):
    plain, _ = read(make_clip(tmp_path / "p.mp4", frames=2))
    turned, source = read(
        make_clip(tmp_path / "t.mp4", frames=2, rotation=90 * quarter_turns, hflip=hflip)
    )
    for before, after in zip(plain, turned, strict=True):
        for name in ("y", "u", "v"):
            expected = np.rot90(getattr(before, name), quarter_turns)
            expected = np.fliplr(expected) if hflip else expected
            np.testing.assert_array_equal(getattr(after, name), expected)
    assert (source.info.height, source.info.width) == turned[0].y.shape
    upright = quarter_turns == 0 and not hflip
    assert ("turned upright as the file asks" in source.info.notes) != upright


@pytest.mark.parametrize("suffix", ["avi", "mov", "mkv"])
def test_motion_jpeg_with_exif_is_read_and_turned(tmp_path, suffix):
    # One entry, orientation 6: turn by a quarter clockwise to see it upright.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    clip = tmp_path / f"c.{suffix}"
    with av.open(str(clip), "w") as out:
        video = out.add_stream("mjpeg", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuvj420p"
        out.start_encoding()
        for index in range(3):
            _, jpeg = cv2.imencode(".jpg", counted_picture(index, 96, 64))
            data = bytes(jpeg)
            marked = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
            packet = av.Packet(marked)
            packet.stream, packet.time_base, packet.is_keyframe = video, Fraction(1, 25), True
            packet.pts = packet.dts = index
            out.mux(packet)
    frames, source = read(clip)
    assert [read_index(np.ascontiguousarray(np.rot90(f.y))) for f in frames] == [0, 1, 2]
    assert (source.info.width, source.info.height) == (64, 96)


def test_a_crooked_rotation_is_said_and_left(tmp_path):
    clip = make_clip(tmp_path / "r.mp4", frames=1, rotation=45)
    frames, source = read(clip)
    assert frames[0].y.shape == (64, 96)
    assert "rotation by other than quarter turns is not applied" in source.info.notes


@pytest.mark.parametrize(
    ("codec", "suffix"), [("libx264", "mp4"), ("mpeg2video", "mpg"), ("mpeg2video", "mkv")]
)
def test_interlaced_gives_one_frame_for_one(tmp_path, codec, suffix):
    clip = make_clip(tmp_path / f"i.{suffix}", frames=9, codec=codec, interlaced=True)
    with av.open(str(clip)) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    frames, source = read(clip)
    assert [f.pts for f in frames] == stamps
    assert [read_index(f.y) for f in frames] == list(range(9))
    assert source.counts == {DEINTERLACED: 9}
    assert "interlaced fields joined to whole frames" in source.info.notes


def test_the_comb_of_two_fields_is_gone(tmp_path):
    def combed(index: int) -> np.ndarray:
        rgb = np.full((64, 96, 3), 60 + 40 * index, np.uint8)
        rgb[1::2] += 20  # the lower field is taken later, when all has become brighter
        return rgb

    lossless = {"qp": "0"}
    clips = [
        make_clip(
            tmp_path / f"{name}.mp4", frames=5, picture=combed, interlaced=flag, options=lossless
        )
        for name, flag in (("flagged", True), ("plain", False))
    ]
    flagged, plain = (read(clip)[0][2].y.astype(int) for clip in clips)
    assert np.abs(np.diff(plain, axis=0)).min() > 15
    assert np.abs(np.diff(flagged[8:-8], axis=0)).max() <= 2


def test_interlaced_keeps_its_colours(tmp_path):
    colour = ColourTags("bt709", False, 1, 1)
    clips = [
        make_clip(tmp_path / f"{i}.mp4", frames=3, interlaced=i, colour=colour, options={"qp": "0"})
        for i in (False, True)
    ]
    (plain, _), (joined, source) = (read(clip) for clip in clips)
    assert joined[1].colour == source.info.colour == colour
    difference = joined[1].rgb().astype(int)[40:60] - plain[1].rgb().astype(int)[40:60]
    assert np.abs(difference).mean() < 2


def test_one_interlaced_frame_and_one_too_small_to_join(tmp_path):
    assert len(read(make_clip(tmp_path / "1.mp4", frames=1, interlaced=True))[0]) == 1
    small = make_clip(
        tmp_path / "s.mkv", width=16, height=2, frames=3, codec="mpeg2video", interlaced=True
    )
    assert len(read(small)[0]) == 3


DEEP = [
    ("ffv1", "yuv420p10le", "10-bit reduced to 8-bit"),
    ("ffv1", "yuv420p16le", "16-bit reduced to 8-bit"),
    ("ffv1", "yuv422p", "4:2:2 colour reduced to 4:2:0"),
    ("ffv1", "yuv444p", "4:4:4 colour reduced to 4:2:0"),
    ("ffv1", "yuv422p10le", "10-bit reduced to 8-bit"),
    ("ffv1", "yuva420p", "transparency ignored"),
    ("prores_ks", "yuva444p10le", "transparency ignored"),
    ("ffv1", "bgr0", "RGB converted to YUV 4:2:0"),
    ("png", "rgba", "RGB converted to YUV 4:2:0"),
    ("libx265", "yuv420p10le", "10-bit reduced to 8-bit"),
]


@pytest.mark.parametrize(("codec", "pixels", "note"), DEEP)
def test_other_pixel_formats_look_like_8_bit(tmp_path, codec, pixels, note):
    colour = ColourTags("bt601", False, 2, 2)
    suffix = "mov" if codec in {"prores_ks", "png"} else "mkv"
    options = {"x265-params": "log-level=none:crf=4"} if codec == "libx265" else {}
    clip = make_clip(
        tmp_path / f"deep.{suffix}",
        frames=3, codec=codec, pix_fmt=pixels, colour=colour, options=options,
    )  # fmt: skip
    plain = make_clip(tmp_path / "8.mkv", frames=3, codec="ffv1", colour=colour)
    frames, source = read(clip)
    assert note in source.info.notes
    lossy = codec in {"libx265", "prores_ks"}
    for frame, reference in zip(frames, read(plain)[0], strict=True):
        assert frame.colour.matrix == "bt601"
        difference = np.abs(frame.y.astype(int) - reference.y)
        assert difference.max() <= 2 or (lossy and difference.mean() < 1)
        for name in ("u", "v"):
            difference = np.abs(getattr(frame, name).astype(int) - getattr(reference, name))
            # Ways to halve chroma differ where colours change hard, not in flat parts.
            assert np.percentile(difference, 90) <= 2


@pytest.mark.parametrize(
    ("codec", "pixels"), [("libvpx-vp9", "yuva420p"), ("ffv1", "yuva420p"), ("ffv1", "yuv420p")]
)
def test_transparency_that_the_decoder_leaves_is_told_too(tmp_path, codec, pixels):
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        if pixels == "yuva420p":
            stream.metadata["alpha_mode"] = "1"
        picture = av.VideoFrame.from_ndarray(counted_picture(1, 64, 48), "rgb24")
        out.mux(stream.encode(picture.reformat(format=pixels)))
        out.mux(stream.encode(None))
    notes = read(tmp_path / "a.mkv")[1].info.notes
    assert notes.count("transparency ignored") == (pixels == "yuva420p")


@pytest.mark.parametrize(
    ("codec", "pixels", "full"), [("ffv1", "gray", True), ("ffv1", "gray10le", True),
                                  ("libx264", "gray", False), ("mjpeg", "yuvj420p", True)]
)  # fmt: skip
def test_grey_and_full_range(tmp_path, codec, pixels, full):
    def ramp(index: int) -> np.ndarray:
        return np.repeat(np.tile(np.arange(0, 192, 2, np.uint8), (64, 1))[..., None], 3, axis=2)

    def limited(index: int) -> av.VideoFrame:
        yuv = av.VideoFrame.from_ndarray(ramp(index), "rgb24").reformat(
            format="yuv420p", dst_color_range=1
        )
        return av.VideoFrame.from_ndarray(yuv.to_ndarray()[:64], "gray")

    clip = make_clip(
        tmp_path / "g.mkv", frames=1, codec=codec, pix_fmt=pixels,
        picture=ramp if full else limited,
        colour=ColourTags("bt601", True, 2, 2) if codec == "mjpeg" else None,
        options={"qp": "0"} if codec == "libx264" else {},
    )  # fmt: skip
    (frame,), _ = read(clip)
    assert frame.colour.full_range is full
    assert np.abs(frame.rgb().astype(int) - ramp(0)).max() <= 4


def test_palettes(tmp_path):
    clip = make_clip(tmp_path / "p.gif", frames=4, codec="gif", pix_fmt="rgb8")
    frames, source = read(clip)
    assert [read_index(f.y) for f in frames] == list(range(4))
    assert "RGB converted to YUV 4:2:0" in source.info.notes


def test_bottom_up_planes():
    """Some files store lines upside down; FFmpeg then gives a negative line size."""
    rgb = av.VideoFrame.from_ndarray(counted_picture(3, 96, 64), "rgb24")
    plain = rgb.reformat(format="yuv420p")
    plain.pts, plain.time_base = 0, Fraction(1, 25)
    graph = av.filter.Graph()
    source = graph.add_buffer(width=96, height=64, format=plain.format, time_base=plain.time_base)
    graph.link_nodes(source, graph.add("vflip"), graph.add("buffersink")).configure()
    graph.vpush(plain)
    flipped = graph.vpull()
    assert flipped.planes[0].line_size < 0
    y, u, v = Door("x", flipped, "rawvideo", None, Counter()).planes(flipped)
    reference = plain.to_ndarray()
    np.testing.assert_array_equal(y, reference[:64][::-1])
    np.testing.assert_array_equal(u, reference[64:80].reshape(32, 48)[::-1])
    np.testing.assert_array_equal(v, reference[80:].reshape(32, 48)[::-1])


@pytest.mark.parametrize("size", [(37, 60), (36, 61), (3, 3)])
@pytest.mark.parametrize("pixels", ["yuyv422", "uyvy422", "nv24", "nv42"])
def test_a_flat_picture_of_odd_size_is_flat_up_to_its_edges(pixels, size):
    frame = av.VideoFrame(size[1], size[0], pixels)
    for plane in frame.planes:
        np.frombuffer(memoryview(plane), np.uint8)[:] = 90
    door = Door("x", frame, "rawvideo", None, Counter())
    for _ in range(2):
        for plane in door.planes(frame):
            assert np.abs(plane.astype(int) - 90).max() <= 1


def test_a_new_size_midway_is_scaled_to_the_first(tmp_path):
    parts = [
        make_clip(tmp_path / f"{width}.ts", width=width, height=height, frames=30)
        for width, height in ((96, 64), (192, 112))
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, source = read(joined)
    assert {f.y.shape for f in frames} == {(64, 96)}
    assert [read_index(f.y) for f in frames] == [*range(30), *range(30)]
    assert source.counts == {RESIZED: 30, CONTINUED: 1}
    gaps = np.diff([f.pts for f in frames])
    assert set(gaps.tolist()) == {3600}


def test_new_colour_tags_midway_are_converted_to_the_first(tmp_path):
    parts = [
        make_clip(
            tmp_path / f"{tags.matrix}.ts", frames=30, colour=tags, options={"qp": "0"},
            picture=lambda index: np.full((64, 96, 3), (200, 60, 40), np.uint8),
        )
        for tags in (ColourTags("bt601", False, 2, 2), ColourTags("bt709", True, 2, 2))
    ]  # fmt: skip
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, source = read(joined)
    assert source.counts[RECOLOURED] == 30
    assert {f.colour for f in frames} == {ColourTags("bt601", False, 2, 2)}
    for frame in frames:
        assert np.abs(frame.rgb()[32, 48].astype(int) - (200, 60, 40)).max() <= 3


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        ("16/11", (140, 64)), ("32/27", (114, 64)), ("8/9", (96, 72)), ("64/63", (98, 64)),
        ("1/2", (96, 128)), ("48/49", (96, 66)), ("1", (96, 64)), ("1/100", (96, 64)),
    ],
)  # fmt: skip
def test_pixels_become_square(tmp_path, aspect, size):
    plain = make_clip(tmp_path / "p.mp4", frames=2)
    squeezed = tmp_path / "s.mp4"
    with av.open(str(plain)) as source, av.open(str(squeezed), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        copy_packets(source, {0: stream})
    frames, opened = read(squeezed)
    assert (opened.info.width, opened.info.height) == size
    assert frames[1].y.shape == size[::-1]
    assert read_index(frames[1].y) == 1
    assert any("aspect" in note for note in opened.info.notes) == (aspect != "1")
