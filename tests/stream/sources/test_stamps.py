"""Repair of time stamps."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.sources.file import FileSource
from stream.sources.stamps import CONTINUED, FILLED, NUDGED, Stamps
from tests.builders import make_clip, read_index

MS = Fraction(1, 1000)


def repair(stamps, fps=Fraction(25), base=MS):
    counts: Counter[str] = Counter()
    repairer = Stamps(base, fps, counts)
    return [repairer.next(stamp) for stamp in stamps], counts


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
        ([9000, 0, 3000, 0, 40], [9000, 9040, 12040, 12080, 12120], {CONTINUED: 2}),
        ([2000, 1000, 2040], [2000, 2001, 2040], {NUDGED: 1}),
        ([2000, 999, 1039], [2000, 2040, 2080], {CONTINUED: 1}),
        ([0, 9000, 9040], [0, 9000, 9040], {}),
    ],
)
def test_the_least_change(stamps, repaired, counts):
    assert repair(stamps) == (repaired, Counter(counts))


def test_a_missing_stamp_uses_the_frames_own_length():
    repairer = Stamps(MS, Fraction(25), Counter())
    assert [repairer.next(100, 20), repairer.next(None, 20), repairer.next(None, 0)] == [
        100, 120, 160,
    ]  # fmt: skip


@given(
    st.lists(st.none() | st.integers(-(2**33), 2**33), max_size=40), st.sampled_from([25, 1, 90])
)
def test_always_strictly_increasing_and_good_ones_untouched(stamps, fps):
    repaired, counts = repair(stamps, Fraction(fps), Fraction(1, 90000))
    assert all(b > a for a, b in pairwise(repaired))
    if not counts:
        assert repaired == stamps


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
