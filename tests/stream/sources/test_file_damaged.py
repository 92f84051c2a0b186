"""Truncated and damaged files: what is there is delivered, what is lost is counted."""

import contextlib
import os
import struct

import av
import numpy as np
import pytest

from stream.errors import SourceError
from stream.sources import reading
from stream.sources.extent import Extent, examine
from stream.sources.file import CHANGED, TRUNCATED, FileSource
from stream.sources.reading import DAMAGED, SKIPPED
from tests.builders import make_clip, read_index

KEYED = {"g": "10"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
FASTSTART = {"movflags": "faststart"}


def read(path):
    with FileSource(path) as source:
        return list(source), source


def indices(frames):
    return [read_index(frame.y) for frame in frames]


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])
    return path


@pytest.mark.parametrize(
    ("suffix", "muxing"), [("mp4", FASTSTART), ("mp4", FRAGMENTS), ("mkv", {}), ("avi", {})]
)
@pytest.mark.parametrize("share", [0.5, 0.75, 0.9])
def test_a_truncated_file_gives_its_whole_beginning(tmp_path, suffix, muxing, share):
    codec = "mpeg4" if suffix == "avi" else "libx264"
    clip = make_clip(
        tmp_path / f"t.{suffix}", width=320, height=240, frames=40, codec=codec, options=KEYED,
        container_options=muxing,
    )  # fmt: skip
    cut(clip, int(clip.stat().st_size * share))
    frames, source = read(clip)
    # The last packet may be cut too; what it showed is then damaged, so it is not looked at.
    assert indices(frames)[:-1] == list(range(len(frames) - 1))
    assert 10 <= len(frames) < 40
    assert source.counts[TRUNCATED] == 1


def test_every_cut_of_a_fragmented_file_is_read_or_refused(tmp_path):
    whole = make_clip(
        tmp_path / "f.mp4", frames=30, options=KEYED, container_options=FRAGMENTS
    ).read_bytes()
    moof = [i for i in range(len(whole)) if whole[i : i + 4] == b"moof"]
    clip = tmp_path / "cut.mp4"
    found = []
    for size in [moof[1] - 4, moof[1] + 2, moof[1] + 60, moof[2] + 100, len(whole) - 9]:
        clip.write_bytes(whole[:size])
        frames, source = read(clip)
        assert indices(frames) == list(range(len(frames)))
        found.append((len(frames), source.counts[TRUNCATED]))
    assert [n for n, _ in found] == [10, 10, 10, 20, 30]
    assert found[2][1] == found[3][1] == 1


def test_a_file_that_is_cut_while_it_is_read_is_told(tmp_path):
    clip = make_clip(tmp_path / "c.mkv", width=640, height=480, frames=90, options=KEYED)
    with FileSource(clip) as source:
        frames = [next(source)]
        os.truncate(clip, clip.stat().st_size // 2)
        frames += source
    assert len(frames) < 90
    assert dict(source.counts) == {CHANGED: 1}


def test_a_file_that_is_deleted_while_it_is_read_is_read_whole(tmp_path):
    clip = make_clip(tmp_path / "c.mkv", frames=40)
    with FileSource(clip) as source:
        clip.unlink()
        assert indices(source) == list(range(40))
    assert not source.counts


def test_an_index_that_is_missing_is_refused(tmp_path):
    clip = make_clip(tmp_path / "c.mp4", frames=30)
    size = clip.stat().st_size
    cut(clip, size // 2)
    with pytest.raises(SourceError, match=r"c\.mp4: file is truncated \(\d+ of \d+ bytes missing"):
        FileSource(clip)


def test_a_matroska_file_cut_before_its_first_picture(tmp_path):
    clip = make_clip(tmp_path / "c.mkv", frames=3)
    cut(clip, clip.read_bytes().index(b"\x1f\x43\xb6\x75"))
    with pytest.raises(SourceError, match="truncated"):
        FileSource(clip)


def test_a_file_cut_in_its_first_picture(tmp_path):
    clip = make_clip(tmp_path / "c.mp4", frames=3, container_options=FASTSTART)
    cut(clip, clip.read_bytes().index(b"mdat") + 20)
    with pytest.raises(SourceError, match="truncated before its first frame"):
        FileSource(clip)


def test_bit_errors_cost_little_and_are_counted(tmp_path):
    clip = make_clip(tmp_path / "b.mkv", frames=60, options=KEYED)
    data = bytearray(clip.read_bytes())
    for place in range(len(data) // 4, len(data) // 2, 61):
        data[place] ^= 0xFF
    clip.write_bytes(data)
    frames, source = read(clip)
    lost = source.counts[SKIPPED]
    assert source.counts[DAMAGED] + lost > 0
    assert 30 <= len(frames) <= 60
    stamps = [f.pts for f in frames]
    assert stamps == sorted(set(stamps))
    assert indices(frames)[-10:] == list(range(50, 60))


def clip_with_bad_packets(folder, *places):
    clip = make_clip(folder / "p.mp4", frames=12, codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(clip)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    data = bytearray(clip.read_bytes())
    for bad in (packets[place] for place in places):
        data[bad.pos : bad.pos + bad.size] = bytes(bad.size)
    clip.write_bytes(data)
    return clip


def test_a_bad_packet_in_the_middle_is_skipped(tmp_path):
    clip = clip_with_bad_packets(tmp_path, 5)
    frames, source = read(clip)
    assert indices(frames) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert [f.index for f in frames] == list(range(11))
    assert source.counts[SKIPPED] == 1
    assert frames[5].pts_seconds == 0.24


def test_a_run_of_bad_packets_ends_with_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "BAD_RUN", 5)
    clip = clip_with_bad_packets(tmp_path, *range(4, 12))
    with FileSource(clip) as source:
        seen = []
        with pytest.raises(SourceError, match=r"5 bad packets in a row after 0\.12 s"):
            seen.extend(frame.index for frame in source)
    assert source.counts[SKIPPED] == 5
    assert list(source) == []


def test_bad_packets_here_and_there_do_not_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "BAD_RUN", 3)
    clip = clip_with_bad_packets(tmp_path, 2, 3, 6, 7)
    frames, source = read(clip)
    assert indices(frames) == [0, 1, 4, 5, 8, 9, 10, 11]
    assert source.counts[SKIPPED] == 4


def test_a_start_without_a_key_frame_shows_no_grey(tmp_path):
    clip = make_clip(tmp_path / "k.h264", frames=30, options=KEYED)
    data = clip.read_bytes()
    # Take the parameter sets and go on with the second picture, which depends on the first.
    starts = [i for i in range(len(data) - 4) if data[i : i + 3] == b"\0\0\1"]
    kinds = [data[i + 3] & 31 for i in starts]
    first_picture = starts[kinds.index(5)]
    second_picture = starts[kinds.index(1)]
    clip.write_bytes(data[:first_picture] + data[second_picture:])
    frames, _ = read(clip)
    assert indices(frames) == list(range(10, 30))


@pytest.mark.parametrize("seed", range(6))
def test_garbage_never_crashes(tmp_path, seed):
    rng = np.random.default_rng(seed)
    clip = make_clip(tmp_path / f"g.{['mp4', 'mkv', 'ts'][seed % 3]}", frames=20, audio=True)
    data = bytearray(clip.read_bytes())
    for place in rng.integers(0, len(data), 60):
        data[place] = rng.integers(256)
    clip.write_bytes(data[: rng.integers(len(data) // 2, len(data))])
    stamps = []
    with contextlib.suppress(SourceError), FileSource(clip) as source:
        stamps.extend(frame.pts for frame in source)
    assert stamps == sorted(set(stamps))


def test_the_outer_structure(tmp_path):
    whole = make_clip(tmp_path / "a.mp4", frames=2)
    size = whole.stat().st_size
    assert examine(whole) == Extent(size, 0, size)
    stub = tmp_path / "b.mp4"
    stub.write_bytes(struct.pack(">I4s8x", 16, b"ftyp") + struct.pack(">I4sQ", 1, b"mdat", 1000))
    assert examine(stub) == Extent(32, 16 + 1000 - 32, 16)
    stub.write_bytes(struct.pack(">I4s8x", 16, b"ftyp") + struct.pack(">I4s", 0, b"mdat"))
    assert examine(stub).missing == 0
    other = tmp_path / "x.ts"
    other.write_bytes(b"\x47" * 400)
    assert examine(other) == Extent(400, 0, 400)


def test_damage_in_the_sound_ends_no_picture(tmp_path):
    clip = make_clip(tmp_path / "c.mp4", frames=250, options={"g": "25"}, audio=True)
    data = bytearray(clip.read_bytes())
    tables = [i for i in range(len(data)) if data[i : i + 4] == b"stco"]
    count = int.from_bytes(data[tables[1] + 8 : tables[1] + 12], "big")
    data[tables[1] + 12 + 4 * (count // 4)] ^= 0x40  # one piece of sound lies a gigabyte away
    clip.write_bytes(data)
    frames, source = read(clip)
    assert indices(frames) == list(range(250))
    assert source.counts == {}
