"""Frames that came from a GPU are, bit by bit, those the CPU decodes: planes, stamps, facts."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from nem.deinterlace import DEINTERLACED
from stream.colour import ColourTags
from stream.gpu_frame import GpuFrame
from stream.sources import cuda, planar
from stream.sources.file import TRUNCATED, FileSource
from stream.sources.planar import as_the_cpu
from stream.sources.reading import SKIPPED
from tests.builders import copy_packets, make_clip
from tests.stream.sources.fake_nvdec import FakeGpu, brought_down, stay_up

X265 = {"x265-params": "log-level=none"}
CLIPS = {
    "b-frames": {"options": {"bf": "3", "preset": "veryfast"}},
    "padded rows": {"width": 90, "height": 50},
    "variable rate": {"pts": [7, 33, 34, 100, 101, 900], "time_base": Fraction(1, 1000)},
    "late start": {"pts": [126000 + 3003 * i for i in range(6)], "time_base": Fraction(1, 90000)},
    "bt.709": {"colour": ColourTags("bt709", False, 1, 1)},
    "full range": {"colour": ColourTags("bt601", True, 5, 6), "codec": "mjpeg",
                   "pix_fmt": "yuvj420p"},
    "10 bit": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": X265},
    "10 bit full": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": X265,
                    "colour": ColourTags("bt2020", True, 9, 14)},
    "12 bit": {"codec": "libx265", "pix_fmt": "yuv420p12le", "options": X265},
    "interlaced": {"interlaced": True},
    "interlaced mpeg2": {"codec": "mpeg2video", "interlaced": True},
    "quarter turn": {"rotation": 90},
    "mirrored": {"rotation": 180, "hflip": True},
    "vp9": {"codec": "libvpx-vp9", "options": {"crf": "20", "b": "0"}},
}  # fmt: skip


STAY = {"b-frames", "padded rows", "variable rate", "late start", "bt.709", "full range", "vp9"}
"""Clips of which the CPU has nothing to change."""


@pytest.fixture(params=["down", "up"])
def fake_gpu(request, monkeypatch):
    """A GPU that brings its frames down, and one that keeps them; tells whether it does."""
    if request.param == "up":
        with stay_up():
            yield True
    else:
        monkeypatch.setattr(cuda, "open_for_cuda", FakeGpu())
        monkeypatch.setattr(cuda, "context_trouble", lambda: "no torch")
        yield False


def both(path: Path) -> tuple[FileSource, FileSource]:
    return FileSource(path), FileSource(path, decode="cuda")


def assert_same(path: Path, up: int = 0) -> FileSource:
    """Everything but the note is the same; gives the source read by the GPU.

    Args:
        path: the clip.
        up: how many frames stay on the GPU, from the first.
    """
    on_cpu, on_gpu = both(path)
    with on_cpu, on_gpu:
        told = {"notes": (), "decoder": ""}
        assert replace(on_gpu.info, **told) == replace(on_cpu.info, **told)
        assert on_gpu.info.notes[:-1] == on_cpu.info.notes
        assert ("they stay on the GPU" in on_gpu.info.notes[-1]) == bool(up)
        for one, other in zip(on_cpu, on_gpu, strict=True):
            assert isinstance(other, GpuFrame) == (other.index < up)
            for fact in ("index", "pts", "time_base", "colour", "duration"):
                assert getattr(one, fact) == getattr(other, fact)
            for name in ("y", "u", "v"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert on_gpu.counts == on_cpu.counts
    return on_gpu


@pytest.mark.parametrize("kind", CLIPS)
def test_the_same_as_by_the_cpu(tmp_path, fake_gpu, kind):
    suffix = "mp4" if "rotation" in CLIPS[kind] else "mkv"
    clip = make_clip(tmp_path / f"c.{suffix}", **{"frames": 6, **CLIPS[kind]})
    read = assert_same(clip, up=6 if fake_gpu and kind in STAY else 0)
    assert read.counts[DEINTERLACED] == (6 if kind.startswith("interlaced") else 0)


def test_square_pixels(tmp_path, fake_gpu):
    plain, squeezed = make_clip(tmp_path / "p.mp4", frames=3), tmp_path / "s.mp4"
    with av.open(str(plain)) as source, av.open(str(squeezed), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        copy_packets(source, {0: stream})
    assert assert_same(squeezed).info.width == 140


def test_bad_packets_and_a_missing_end_are_counted_alike(tmp_path, fake_gpu):
    clip = make_clip(
        tmp_path / "d.mp4", frames=30, width=320, height=240,
        options={"g": "10", "bf": "0"}, container_options={"movflags": "faststart"},
    )  # fmt: skip
    with av.open(str(clip)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(clip.read_bytes())
    start, size = places[15]
    data[start : start + size] = bytes(size)
    clip.write_bytes(data[: int(len(data) * 0.9)])
    counts = assert_same(clip, up=30 if fake_gpu else 0).counts
    assert counts[SKIPPED] >= 1
    assert counts[TRUNCATED] == 1


@pytest.mark.parametrize(
    "parts",
    [
        ({}, {"width": 192, "height": 112}),
        ({}, {"interlaced": True}, {}),
        ({"colour": ColourTags("bt601", False, 1, 1)}, {"colour": ColourTags("bt709", True, 1, 1)}),
        (
            {"codec": "libx265", "options": X265},
            {"codec": "libx265", "options": X265, "pix_fmt": "yuv420p10le"},
        ),
    ],
    ids=["size", "fields", "tags", "bits"],
)
def test_other_frames_midway(tmp_path, fake_gpu, parts):
    joined = tmp_path / "joined.ts"
    for number, part in enumerate(parts):
        clip = make_clip(tmp_path / f"{number}.ts", frames=20, **part)
        with joined.open("ab") as file:
            file.write(clip.read_bytes())
    assert assert_same(joined, up=20 if fake_gpu else 0).counts


@pytest.mark.parametrize(
    ("width", "height", "full_range"),
    [(96, 64, 0), (98, 66, 1), (2, 2, 2), (97, 65, 1), (1280, 720, 2)],
)
@pytest.mark.parametrize(
    ("layout", "bits", "planar"),
    [("nv12", 8, "yuv420p"), ("p010le", 10, "yuv420p10le"), ("p016le", 12, "yuv420p12le")],
)
def test_every_bit_finds_its_place(layout, bits, planar, width, height, full_range):
    """U and V side by side, and the bits at the upper end, as NVDEC writes them."""
    rng = np.random.default_rng(0)
    half = ((height + 1) // 2, (width + 1) // 2)
    y, u, v = (rng.integers(0, 2**bits, size) for size in ((height, width), half, half))
    kind, shift = (np.uint8, 0) if bits == 8 else (np.uint16, 16 - bits)
    frame = av.VideoFrame(width, height, layout)
    luma, chroma = (samples(plane, kind) for plane in frame.planes)
    luma[:, :width] = y << shift
    chroma[:, 0 : 2 * half[1] : 2] = u << shift
    chroma[:, 1 : 2 * half[1] : 2] = v << shift
    frame.pts, frame.time_base, frame.duration = 7, Fraction(1, 90000), 3
    frame.color_range, frame.colorspace = full_range, 1
    frame.color_primaries, frame.color_trc = 9, 2
    (out,) = as_the_cpu([frame], "x")
    assert out.format.name == planar
    for plane, expected in zip(out.planes, (y, u, v), strict=True):
        found = samples(plane, kind)[: expected.shape[0], : expected.shape[1]]
        np.testing.assert_array_equal(found, expected)
    for name in ("pts", "time_base", "duration", "color_range", "colorspace", "color_primaries"):
        assert getattr(out, name) == getattr(frame, name), name


def samples(plane, kind):
    rows = np.frombuffer(memoryview(plane), kind)
    return rows.reshape(-1, plane.line_size // np.dtype(kind).itemsize)


@pytest.mark.parametrize("up", [False, True])
def test_flags_come_along(tmp_path, monkeypatch, up):
    """Also of interlaced frames on a GPU, which are joined on the CPU."""
    monkeypatch.setattr(planar, "is_up", lambda _: up)
    clip = make_clip(tmp_path / "i.mp4", frames=2, interlaced=True, rotation=90)
    with av.open(str(clip)) as container:
        frames = [brought_down(frame) for frame in container.decode(video=0)]
    for frame in as_the_cpu(frames, "x"):
        assert frame.interlaced_frame
        assert frame.format.name == "yuv420p"
        assert "DISPLAYMATRIX" in {data.type.name for data in frame.side_data}
