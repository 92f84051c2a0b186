"""One wild stamp in a file moves one picture, or one piece of sound, and no more."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from stream.errors import SourceError
from stream.sinks import FileSink
from stream.sources import reading
from stream.sources.file import FileSource
from stream.sources.stamps import CONTINUED, NUDGED
from tests.builders import make_clip, make_explanation, read_index
from tests.stream.sinks.reading import read_packets

Change = Callable[[str, int, int], int]
"""(kind, number, ms) of a packet -> ms that are added to its stamp."""
PLAIN = {"bf": "0", "preset": "ultrafast"}
B_FRAMES = {"bf": "3", "preset": "veryfast"}


def change_mkv(path: Path, change: Change) -> None:
    data, numbers = bytearray(path.read_bytes()), Counter[str]()
    with av.open(str(path)) as container:
        blocks = [(p.pos, p.stream.type, p.pts) for p in container.demux() if p.size]
    for at, kind, pts in blocks:
        assert data[at] in (0x81, 0x82)  # the track, then the time within the cluster
        [time] = struct.unpack_from(">h", data, at + 1)
        struct.pack_into(">h", data, at + 1, time + change(kind, numbers[kind], pts))
        numbers[kind] += 1
    path.write_bytes(data)


def change_flv(path: Path, change: Change) -> None:
    data, numbers, at = bytearray(path.read_bytes()), Counter[str](), 13
    while at < len(data):
        kind = {8: "audio", 9: "video"}.get(data[at])
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        if kind and data[at + 12]:  # its codec's headers have a 0 there
            time = int.from_bytes(data[at + 4 : at + 7], "big")
            time += change(kind, numbers[kind], time)
            data[at + 4 : at + 7] = time.to_bytes(3, "big")
            numbers[kind] += 1
        at += 11 + size + 4
    path.write_bytes(data)


def change_mp4(path: Path, change: Change) -> None:
    """Of pictures, and with B-frames: only there MP4 says when they are shown."""
    data = bytearray(path.read_bytes())
    at, number = data.index(b"ctts") + 12, 0
    for entry in range(at, at + 8 * int.from_bytes(data[at - 4 : at], "big"), 8):
        count, late = struct.unpack_from(">Ii", data, entry)
        if count == 1:
            late += change("video", number, 0) * 12800 // 1000
            struct.pack_into(">Ii", data, entry, count, late)
        number += count
    path.write_bytes(data)


CHANGES = {"mkv": change_mkv, "flv": change_flv, "mp4": change_mp4}


def clips(folder: Path, suffix: str, options: dict[str, str], change: Change) -> tuple[Path, Path]:
    """The same recording whole and damaged."""
    made = [folder / f"{name}.{suffix}" for name in ("whole", "wild")]
    for path in made:
        # With an edit list MP4 shows nothing of a picture that lies beyond the end.
        muxing = {"use_editlist": "0"} if suffix == "mp4" else {}
        make_clip(path, frames=100, audio=True, options=options, container_options=muxing)
    CHANGES[suffix](made[1], change)
    return made[0], made[1]


def through(clip: Path) -> tuple[list[float], list[float], Counter[str], tuple[str, ...]]:
    """Times of the pictures and of the sound in what is made of `clip`, and what was told."""
    out = clip.with_name(f"{clip.stem}.out.mp4")
    with FileSource(clip) as source, FileSink(out, copy_from=clip) as sink:
        seen, stamps = [], []
        for frame in source:
            seen.append(read_index(frame.y))
            stamps.append(frame.pts_seconds)
            sink.write(frame, make_explanation())
        sink.close()
    assert seen == list(range(100))
    pictures, sound = (
        sorted(float(time) for time, _ in read_packets(out, kind)) for kind in ("video", "audio")
    )
    assert pictures == pytest.approx(stamps, abs=0.001)
    return stamps, sound, source.counts, sink.notes


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("mkv", PLAIN), ("mkv", B_FRAMES), ("flv", PLAIN), ("flv", B_FRAMES), ("mp4", B_FRAMES)],
)
@pytest.mark.parametrize("wild", [8000, 300, -1150])
def test_one_wild_stamp_moves_one_picture(tmp_path, suffix, options, wild):
    whole, damaged = clips(
        tmp_path, suffix, options, lambda kind, n, _: wild * ((kind, n) == ("video", 30))
    )
    pictures, sound, counts, _ = through(damaged)
    expected, heard, no_counts, _ = through(whole)
    assert no_counts == {}
    assert counts == {NUDGED: 1}
    assert pictures == pytest.approx(expected, abs=0.0011)
    assert sound == pytest.approx(heard, abs=0.0001)


@pytest.mark.parametrize("suffix", ["mkv", "flv"])
@pytest.mark.parametrize("kind", ["video", "audio"])
def test_the_first_may_be_the_wild_one(tmp_path, suffix, kind):
    """The other track tells where the file begins."""
    whole, damaged = clips(tmp_path, suffix, PLAIN, lambda k, n, _: 8000 * ((k, n) == (kind, 0)))
    pictures, sound, _, _ = through(damaged)
    expected, heard, _, _ = through(whole)
    assert pictures == pytest.approx(expected, abs=0.0011)
    assert sound == pytest.approx(heard, abs=0.0011)


@pytest.mark.parametrize("suffix", ["mkv", "flv"])
def test_one_wild_stamp_moves_one_piece_of_sound(tmp_path, suffix):
    whole, damaged = clips(
        tmp_path, suffix, PLAIN, lambda kind, n, _: 8000 * ((kind, n) == ("audio", 30))
    )
    pictures, sound, counts, notes = through(damaged)
    expected, heard, _, _ = through(whole)
    assert (pictures, counts) == (expected, {})
    assert sound == pytest.approx(heard, abs=0.0011)
    assert notes == ("copied tracks: 1 time stamp moved to stay in order",)


@pytest.mark.parametrize("suffix", ["mkv", "flv"])
def test_a_jump_that_lasts_is_a_cut_in_the_recording(tmp_path, suffix):
    whole, cut = clips(tmp_path, suffix, PLAIN, lambda _, __, ms: 8000 * (ms >= 2000))
    pictures, sound, counts, notes = through(cut)
    expected, heard, _, _ = through(whole)
    assert (counts, notes) == ({}, ())
    for now, then in ((pictures, expected), (sound, heard)):
        assert {round(a - b) for a, b in zip(now, then, strict=True)} == {0, 8}
        assert now == pytest.approx([t + 8 * (t >= 1.999) for t in then], abs=0.0011)


@pytest.mark.parametrize("suffix", ["mkv", "flv"])
def test_a_new_start_of_all_tracks_goes_on(tmp_path, suffix):
    whole, again = clips(tmp_path, suffix, PLAIN, lambda _, __, ms: -1900 * (ms >= 2000))
    pictures, sound, counts, notes = through(again)
    expected, heard, _, _ = through(whole)
    assert counts == {CONTINUED: 1}
    assert notes == ("copied tracks: 1 jump back in time continued",)
    assert pictures == pytest.approx(expected, abs=0.0011)
    assert sound == pytest.approx(heard, abs=0.0011)


def test_a_long_last_frame_is_no_damage(tmp_path):
    clip = make_clip(tmp_path / "c.mkv", frames=10)
    change_mkv(clip, lambda _, n, __: 8000 * (n == 9))
    with FileSource(clip) as source:
        assert [f.pts for f in source][-2:] == [320, 8360]
    assert source.counts == {}


def test_a_frame_that_waits_comes_before_the_error(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "BAD_RUN", 5)
    clip = make_clip(tmp_path / "c.mkv", frames=12, codec="mjpeg", pix_fmt="yuvj420p")
    change_mkv(clip, lambda _, n, __: 8000 * (n == 4))
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        pictures = [bytes(p) for p in container.demux(video=0) if p.size]
    for picture in pictures[5:]:
        at = data.index(picture)
        data[at : at + len(picture)] = bytes(len(picture))
    clip.write_bytes(data)
    seen = []
    with FileSource(clip) as source, pytest.raises(SourceError, match="5 bad packets in a row"):
        seen.extend(frame.pts for frame in source)
    assert seen == [0, 40, 80, 120, 8160]
