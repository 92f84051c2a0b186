"""Repair of time stamps."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stream.sources.file import FileSource
from stream.sources.stamps import CONTINUED, FILLED, NUDGED, Stamps
from tests.builders import make_clip, read_index

MS = Fraction(1, 1000)


def repair(stamps, fps=Fraction(25), base=MS, **options):
    counts: Counter[str] = Counter()
    repairer: Stamps[int] = Stamps(base, fps, counts, **options)
    ready = [out for n, stamp in enumerate(stamps) for out in repairer.take(n, stamp)]
    ready += repairer.flush()
    assert [item for item, _ in ready] == list(range(len(stamps)))
    return [stamp for _, stamp in ready], counts


@pytest.mark.parametrize(
    ("stamps", "repaired", "counts"),
    [
        ([0, 40, 80], [0, 40, 80], {}),
        ([-80, -40, 0], [-80, -40, 0], {}),
        ([0, 40, 40, 120], [0, 40, 41, 120], {NUDGED: 1}),
        ([0, 40, 120, 80, 160], [0, 40, 120, 121, 160], {NUDGED: 1}),
        ([None, None, None], [0, 40, 80], {FILLED: 3}),
        ([500, None, 580], [500, 540, 580], {FILLED: 1}),
        ([9000, 9040, 0, 40], [9000, 9040, 9080, 9120], {CONTINUED: 1}),
        # Two new starts. A stamp is damage only if its neighbours are in order without it. Without
        # the 3000 a 0 follows a 0, without the first 0 there still is a jump back. The 9000 may be
        # damage or the end of a part; where there are no other tracks, nothing tells.
        ([9000, 0, 3000, 0, 40], [9000, 9040, 12040, 12080, 12120], {CONTINUED: 2}),
        # With one more frame of the middle part the 3000 is damage, and what follows is not moved.
        ([9000, 0, 3000, 80, 120], [9000, 9040, 9080, 9120, 9160], {CONTINUED: 1, NUDGED: 1}),
        ([2000, 1000, 2040], [2000, 2001, 2040], {NUDGED: 1}),
        ([2000, 999, 1039], [2000, 2040, 2080], {CONTINUED: 1}),
        ([0, 9000, 9040], [0, 9000, 9040], {}),
        ([0, 9000], [0, 9000], {}),
        ([0, 9000, None, 80], [0, 9000, 9040, 9080], {FILLED: 1, CONTINUED: 1}),
    ],
)
def test_the_least_change(stamps, repaired, counts):
    assert repair(stamps) == (repaired, Counter(counts))


@pytest.mark.parametrize(
    ("stamps", "repaired"),
    [
        ([0, 40, 9000, 120, 160], [0, 40, 80, 120, 160]),
        ([0, 40, 400, 120, 160], [0, 40, 80, 120, 160]),
        ([2000, 2040, 0, 2120, 2160], [2000, 2040, 2080, 2120, 2160]),
        ([0, 40, 9000, 60, 100], [0, 40, 59, 60, 100]),  # its place is short
        ([0, 40, 9000, 5000, 5040], [0, 40, 80, 5000, 5040]),  # at a gap
    ],
)
def test_a_stamp_that_the_next_one_takes_back_is_damage(stamps, repaired):
    assert repair(stamps) == (repaired, Counter({NUDGED: 1}))


def test_where_there_is_no_place_the_next_moves_a_tick():
    assert repair([0, 40, 9000, 41, 80]) == ([0, 40, 41, 42, 80], Counter({NUDGED: 2}))


def test_the_first_is_judged_by_the_start_of_the_file():
    wild = [9000, 1040, 1080]
    assert repair(wild) == ([9000, 9040, 9080], Counter({CONTINUED: 1}))
    assert repair(wild, start=500_000) == ([1000, 1040, 1080], Counter({NUDGED: 1}))
    assert repair([9000, 9040], start=0) == ([9000, 9040], Counter())  # a track that begins late
    assert repair([9000, 0, 40], start=9_000_000) == ([9000, 9040, 9080], Counter({CONTINUED: 1}))


def test_a_track_with_long_gaps_does_not_wait():
    repairer: Stamps[str] = Stamps(MS, None, Counter(), waits=False)
    assert [repairer.take(*told) for told in (("a", 0), ("b", 60_000))] == [
        [("a", 0)],
        [("b", 60_000)],
    ]


def test_one_frame_waits_at_most():
    repairer: Stamps[int] = Stamps(MS, Fraction(25), Counter())
    given = 0
    for number in range(100):
        given += len(repairer.take(number, number * number * 100))
        assert given >= number
    assert given + len(repairer.flush()) == 100


def test_a_missing_stamp_uses_the_frames_own_length():
    repairer: Stamps[str] = Stamps(MS, Fraction(25), Counter())
    told = [("a", 100, 20), ("b", None, 20), ("c", None, 0)]
    ready = [out for frame in told for out in repairer.take(*frame)]
    assert ready == [("a", 100), ("b", 120), ("c", 160)]


@given(
    st.lists(st.none() | st.integers(-(2**33), 2**33), max_size=40), st.sampled_from([25, 1, 90])
)
def test_always_strictly_increasing_and_good_ones_untouched(stamps, fps):
    repaired, counts = repair(stamps, Fraction(fps), Fraction(1, 90000))
    assert all(b > a for a, b in pairwise(repaired))
    if not counts:
        assert repaired == stamps


@given(
    st.lists(st.integers(20, 80), min_size=3, max_size=30), st.data(), st.integers(-(10**6), 10**6)
)
def test_of_all_stamps_only_the_wild_one_is_moved(steps, data, wild):
    stamps = [5000 + sum(steps[:n]) for n in range(len(steps))]
    place = data.draw(st.integers(1, len(steps) - 2))
    assume(wild < stamps[place] or wild > stamps[place - 1] + 2 * 40)
    repaired, counts = repair([*stamps[:place], wild, *stamps[place + 1 :]])
    assert repaired[:place] + repaired[place + 1 :] == stamps[:place] + stamps[place + 1 :]
    assert counts.total() <= 1


def test_a_file_with_a_doubled_stamp(tmp_path):
    clip = make_clip(tmp_path / "c.mkv", frames=6, codec="mjpeg", pix_fmt="yuvj420p")
    data = clip.read_bytes()
    third = b"\x81" + (80).to_bytes(2, "big") + b"\x80"  # track 1, 80 ms, key frame
    assert data.count(third) == 1
    clip.write_bytes(data.replace(third, b"\x81" + (40).to_bytes(2, "big") + b"\x80"))
    with FileSource(clip) as source:
        frames = list(source)
    assert [f.pts for f in frames] == [0, 40, 41, 120, 160, 200]
    assert [read_index(f.y) for f in frames] == list(range(6))
    assert source.counts == {NUDGED: 1}


def test_a_file_without_stamps(tmp_path):
    clip = make_clip(tmp_path / "raw.h264", frames=8, options={"bf": "2", "preset": "veryfast"})
    with FileSource(clip) as source:
        frames = list(source)
    assert [f.pts_seconds for f in frames] == [i / 25 for i in range(8)]
    assert [read_index(f.y) for f in frames] == list(range(8))
    assert source.counts == {FILLED: 8}
