"""One clock for all tracks: of packets as such, and of broadcast recordings read twice."""

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import av
import pytest

from stream.sinks import FileSink
from stream.sources.file import FileSource
from stream.sources.stamps import CONTINUED, NUDGED
from stream.sources.timeline import WRAP, Timeline
from tests.builders import copy_packets, make_clip, make_explanation, read_index

FRAME, CHUNK = 3600, 1920  # ticks of a picture and of a piece of sound


@dataclass
class FakePacket:
    """The part of a packet that is looked at."""

    stream: SimpleNamespace
    pts: int | None
    dts: int | None
    duration: int = FRAME
    time_base: Fraction = Fraction(1, 90000)


def packet(track, seconds):
    stamp = None if seconds is None else round(seconds * 90000)
    return FakePacket(SimpleNamespace(index=track), stamp, stamp, CHUNK if track else FRAME)


MPEG = SimpleNamespace(format=SimpleNamespace(name="mpegts"), start_time=0)


def joined(*told):
    """(track, seconds) of each packet, repaired and rounded, and what was counted."""
    counts: Counter[str] = Counter()
    timeline = Timeline(MPEG, counts)
    out = timeline.join([packet(track, seconds) for track, seconds in told])
    return [(p.stream.index, p.dts and round(p.dts / 90000, 2)) for p in out], counts


def test_good_time_is_untouched_gaps_included():
    told = [(0, 5.0), (1, 5.0), (0, 5.04), (1, 5.02), (0, 95.0), (1, 95.0), (0, 95.04), (0, None)]
    assert joined(*told) == (told, {})


def test_a_new_start_moves_all_tracks_by_the_same():
    # The sound of the first part ends a second before its picture.
    told = [(1, 8.0), (0, 8.96), (0, 0.0), (1, 0.0), (0, 0.04), (1, 0.02)]
    assert joined(*told) == (
        [(1, 8.0), (0, 8.96), (0, 9.0), (1, 9.0), (0, 9.04), (1, 9.02)],
        {CONTINUED: 1},
    )


def test_the_last_packets_of_a_part_may_come_after_the_first_of_the_next():
    told = [(1, 59.98), (0, 59.92), (1, 0.0), (0, 59.96), (0, 0.04), (1, 0.02)]
    assert joined(*told) == (
        [(1, 59.98), (0, 59.92), (1, 60.0), (0, 59.96), (0, 60.04), (1, 60.02)],
        {CONTINUED: 1},
    )


def test_a_stamp_that_the_next_one_takes_back_is_damage():
    told = [(0, 1.0), (1, 1.0), (0, 9001.0), (1, 1.02), (0, 1.08), (1, 1.04)]
    assert joined(*told) == (
        [(0, 1.0), (1, 1.0), (0, 1.04), (1, 1.02), (0, 1.08), (1, 1.04)],
        {NUDGED: 1},
    )


def test_nor_need_it_be_far_where_its_track_goes_on_without_it():
    told = [(0, 1.0), (1, 1.0), (0, 3.0), (1, 1.02), (0, 1.08), (1, 1.04)]
    assert joined(*told) == (
        [(0, 1.0), (1, 1.0), (0, 1.04), (1, 1.02), (0, 1.08), (1, 1.04)],
        {NUDGED: 1},
    )


def test_a_short_gap_before_a_new_start_or_the_end_is_none():
    told = [(0, 1.0), (0, 4.0), (0, 0.0), (0, 0.04)]
    assert joined(*told) == ([(0, 1.0), (0, 4.0), (0, 4.04), (0, 4.08)], {CONTINUED: 1})
    assert joined(*told[:2]) == (told[:2], {})


def test_a_subtitle_that_comes_early_stays_where_it_is(monkeypatch):
    monkeypatch.setattr("stream.sources.timeline.HELD", 3)
    told = [(2, 0.5), (0, 1.0), (2, 4.0), (0, 1.04), (0, 1.08), (0, 1.12), (0, 1.16)]
    assert joined(*told) == (told, {})


def test_a_gap_stays_where_it_is_beside_a_track_without_stamps():
    told = [(0, 1.0), (2, None), (0, 1.04), (0, 16.0), (2, None), (0, 16.04), (2, None), (0, 16.08)]
    out, counts = joined(*told)
    assert [item for item in out if item[0] == 0] == [item for item in told if item[0] == 0]
    assert len(out) == len(told)
    assert counts == {}


def test_programs_with_clocks_of_their_own_restart_alone():
    told = [(0, 3600.0), (1, 3600.0), (2, 18000.0), (3, 18000.0), (0, 3590.0), (1, 3590.0)]
    told += [(2, 18000.04), (3, 18000.02), (0, 3590.04)]
    out, counts = joined(*told)
    assert out[:4] == told[:4]
    assert out[4:] == [
        (0, 3600.04), (1, 3600.04), (2, 18000.04), (3, 18000.02), (0, 3600.08),
    ]  # fmt: skip
    assert counts == {CONTINUED: 1}


def test_a_track_that_ended_early_goes_on_in_the_new_part():
    told = [(1, 0.5), (0, 3.96), (0, 0.0), (1, 0.0), (0, 0.04), (1, 0.02)]
    assert joined(*told)[0] == [
        (1, 0.5), (0, 3.96), (0, 4.0), (1, 4.0), (0, 4.04), (1, 4.02),
    ]  # fmt: skip


def test_a_wild_decoding_stamp_leaves_the_picture_where_it_is():
    first, second = packet(0, 1.0), packet(0, 1.04)
    second.dts += 2**31
    counts: Counter[str] = Counter()
    out = list(Timeline(MPEG, counts).join([first, second]))
    assert (out[1].pts, counts) == (round(1.04 * 90000), {NUDGED: 1})


def test_at_the_end_a_stamp_far_ahead_is_damage():
    assert joined((0, 1.0), (0, 9001.0)) == ([(0, 1.0), (0, 1.04)], {NUDGED: 1})
    assert joined((0, 1.0), (0, 9001.0), (0, None)) == (
        [(0, 1.0), (0, 1.04), (0, None)],
        {NUDGED: 1},
    )


def test_a_picture_is_not_shown_long_after_it_is_decoded():
    late = packet(0, 1.0)
    late.pts += 2**31
    counts: Counter[str] = Counter()
    [mended] = Timeline(MPEG, counts).join([late])
    assert (mended.pts, counts) == (mended.dts, {NUDGED: 1})


def test_clocks_that_run_over_go_on():
    """Each track when it comes to it, and back for the packets that are late."""
    over = (1 << 33) / 90000
    told = [(0, over - 0.08), (1, over - 0.02), (0, over - 0.04), (1, 0.0), (0, 0.0), (1, 0.02)]
    out, counts = joined(*told)
    end = [(t, round(s + over if s < 1 else s, 2)) for t, s in told]
    start = [(t, round(s if s < 1 else s - over, 2)) for t, s in told]
    assert out in (start, end)
    assert counts == {}


def test_a_run_in_before_zero_is_no_day_ahead():
    over = (1 << 33) / 90000
    told = [(0, 0.0), (0, 0.04), (1, over - 0.02), (1, 0.0), (1, 0.02)]
    assert joined(*told) == ([(0, 0.0), (0, 0.04), (1, -0.02), (1, 0.0), (1, 0.02)], {})


def recording(path, frames, sound, start=0):
    """A broadcast recording of so many frames, its sound cut off at `sound` seconds."""
    whole = make_clip(path.with_suffix(".mp4"), frames=frames, audio=True)
    late = {"output_ts_offset": str(start)}
    with av.open(str(whole)) as old, av.open(str(path), "w", options=late) as new:
        copy_packets(
            old,
            {s.index: new.add_stream_from_template(s) for s in old.streams},
            lambda p: p.stream.type == "video" or p.pts * p.time_base < sound,
        )
    return path


def explained(clip):
    """Times of the pictures and of the sound in what is made of `clip`, and its source's counts."""
    out = clip.with_suffix(".mkv")
    with FileSource(clip) as source, FileSink(out, copy_from=clip) as sink:
        for frame in source:
            sink.write(frame, make_explanation())
        sink.close()
        counts = source.counts
    with av.open(str(out)) as container:
        video = [
            (f.time, read_index(f.to_ndarray(format="gray"))) for f in container.decode(video=0)
        ]
    with av.open(str(out)) as container:
        sound = [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.size]
    return video, sound, counts


def test_recordings_put_end_to_end_stay_in_step(tmp_path):
    first = recording(tmp_path / "a.ts", 100, sound=3.0)
    second = recording(tmp_path / "b.ts", 50, sound=2.0)
    clip = tmp_path / "both.ts"
    clip.write_bytes(first.read_bytes() + second.read_bytes())
    video, sound, counts = explained(clip)
    assert [index for _, index in video] == [*range(100), *range(50)]
    assert counts == {CONTINUED: 1}
    began = next(time for time in sound if time > 3.5)
    assert abs(began - video[100][0]) < 0.05
    assert max(time for time in sound if time < 3.5) < 3.05


def test_sound_just_before_the_clock_runs_over_is_heard(tmp_path):
    start = WRAP / 90_000 - 20
    clip = recording(tmp_path / "late.ts", 50, sound=2.0, start=start)
    with av.open(str(clip)) as container:
        assert container.start_time < 0  # as FFmpeg has it
    with FileSource(clip) as source, FileSink(tmp_path / "out.mp4", copy_from=clip) as sink:
        for frame in source:
            sink.write(frame, make_explanation())
    with av.open(str(tmp_path / "out.mp4")) as out:
        heard = [frame.time for frame in out.decode(audio=0)]
    assert len(heard) > 80
    assert abs(heard[0] - start) < 3


def test_sound_before_zero_stays_beside_a_picture_that_begins_there(tmp_path):
    clip = recording(tmp_path / "c.ts", 50, sound=2.0, start=WRAP / 90_000 - 0.5)
    with FileSource(clip) as source:
        assert -1 < next(source).pts_seconds < -0.4
    video, sound, counts = explained(clip)
    assert counts == {}
    assert abs(sound[0] - video[0][0]) < 0.05
    assert max(b - a for a, b in pairwise(sound)) < 0.03


@pytest.mark.parametrize(("byte", "bit"), [(9, 0x04), (11, 0x08), (11, 0x10), (11, 0x20)])
def test_one_wild_stamp_moves_one_picture_only(tmp_path, byte, bit):
    """By 6.6 hours, and by 1.5, 2.9 and 5.8 seconds."""
    clip = recording(tmp_path / "c.ts", 50, sound=2.0)
    data = bytearray(clip.read_bytes())
    starts = [i for i in range(len(data) - 4) if data[i : i + 4] == b"\0\0\1\xe0"]
    pes = starts[20]
    assert data[pes + 7] >> 6 == 2  # a pts, and no dts
    data[pes + byte] ^= bit
    clip.write_bytes(data)
    video, sound, counts = explained(clip)
    assert [index for _, index in video] == list(range(50))
    steps = [b - a for (a, _), (b, _) in pairwise(video)]
    assert max(abs(step - 0.04) for step in steps) < 0.002
    assert abs(video[-1][0] - sound[-1]) < 0.1
    assert counts == {NUDGED: 1}
