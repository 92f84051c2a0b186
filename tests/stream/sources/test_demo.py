"""The synthetic camera."""

import socket
import threading
from fractions import Fraction
from importlib.machinery import ModuleSpec
from itertools import pairwise

import numpy as np
import pytest

from stream.errors import SourceError
from stream.sources import demo
from stream.sources.demo import PHOTOS, SECONDS_PER_PHOTO, DemoSource, bundled_photos

pytest.importorskip("skimage", reason="the demo needs scikit-image (extra demo)")


def small(**options):
    return DemoSource(**{"width": 160, "height": 90, "fps": 10, "live": False, **options})


def test_the_same_frames_every_time():
    with small(frames=12) as one, small(frames=12) as two:
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a.y, b.y)
            np.testing.assert_array_equal(a.u, b.u)
            assert (a.index, a.pts, a.time_base) == (b.index, b.index, Fraction(1, 10))


def test_smooth_within_a_photo_and_a_cut_between():
    per_photo = 10 * SECONDS_PER_PHOTO
    with small(frames=2 * per_photo) as source:
        planes = [f.y.astype(int) for f in source]
    change = np.array([np.abs(b - a).mean() for a, b in pairwise(planes)])
    cut = change[per_photo - 1]
    inside = np.delete(change, per_photo - 1)
    assert inside.min() > 0
    assert cut > 2 * inside.max()


def test_all_photos_have_their_turn_and_come_again():
    seconds = SECONDS_PER_PHOTO * (len(PHOTOS) + 1)
    with small(fps=1, frames=seconds) as source:
        firsts = [f.y for f in source if f.index % SECONDS_PER_PHOTO == 0]
    names = len(bundled_photos())
    assert names == len(PHOTOS)
    for i in range(names):
        for j in range(i):
            assert np.abs(firsts[i].astype(int) - firsts[j]).mean() > 5
    np.testing.assert_array_equal(firsts[0], firsts[-1])


def test_luma_and_chroma_move_together():
    """Where a photo is grey, no colour may slip in from its neighbourhood."""
    with small(fps=1, frames=30) as source:
        camera = [f for f in source if f.index // SECONDS_PER_PHOTO == 4]
    assert bundled_photos()[4].name == "camera.png"
    for frame in camera:
        assert {*np.unique(frame.u), *np.unique(frame.v)} == {128}
    # The colour of a frame taken directly equals that of its enlarged twin, brought to its size.
    with small(frames=1) as low, small(frames=1, width=640, height=360) as high:
        a, b = next(iter(low)).rgb().astype(int), next(iter(high)).rgb((90, 160)).astype(int)
    assert np.abs(a - b).mean() < 6


@pytest.mark.parametrize(("width", "height"), [(1, 1), (33, 17), (90, 160)])
def test_any_size(width, height):
    with small(width=width, height=height, frames=3) as source:
        assert [f.y.shape for f in source] == [(height, width)] * 3


def test_live_waits_until_each_frame_is_due():
    now, waits = [50.0], []

    def wait(seconds: float) -> None:
        waits.append(round(seconds, 6))
        now[0] += seconds

    with small(live=True, frames=5, clock=lambda: now[0], wait=wait) as source:
        assert source.info.live
        times = []
        for frame in source:
            times.append(round(frame.captured_at - 50, 6))
            now[0] += 0.25 if frame.index == 2 else 0.03  # frame 2 is handled slowly
    assert times == [0.0, 0.1, 0.2, 0.45, 0.48]
    assert waits == [0.1 - 0.03, 0.1 - 0.03]


def test_close_ends_the_wait():
    with small(live=True, fps=0.01) as source:
        frames = iter(source)
        next(frames)
        threading.Timer(0.05, source.close).start()
        assert list(frames) == []


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with small(frames=2) as source:
        assert len(list(source)) == 2


def test_without_the_extra_the_cure_is_named(monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"pip install 'nem-stream\[demo\]'"):
        DemoSource()


def test_without_photos_the_folder_is_named(monkeypatch, tmp_path):
    spec = ModuleSpec("skimage", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(demo, "find_spec", lambda name: spec)
    with pytest.raises(SourceError, match=f"no photos in {tmp_path}/data"):
        DemoSource()
