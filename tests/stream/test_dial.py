from __future__ import annotations

import numpy as np
import pytest

from stream.dial import RECENT, OverlayDial
from stream.overlay import STYLES, Overlay
from stream.pipeline import FILE_FRAMES
from tests.builders import make_explanation, make_frame


def test_goes_round_all_styles():
    dial = OverlayDial(Overlay("dim"))
    assert {dial.next_style() for _ in STYLES} == set(STYLES)
    assert dial.overlay.style == "dim"


@pytest.mark.parametrize("start", STYLES)
def test_a_fixed_size_is_kept(start):
    dial, frame = OverlayDial(Overlay(start), fixed_size=True), make_frame()
    widths = set()
    for _ in range(5):
        widths.add(dial(frame, make_explanation()).width)
        dial.next_style()
    assert len(widths) == 1


def test_strength_stays_within_its_limits_and_shows():
    dial, frame = OverlayDial(Overlay(strength=0.5, label=0)), make_frame()
    weak = dial(frame, make_explanation())
    assert dial.change_strength(2) == 0.7
    strong = dial(frame, make_explanation())
    assert np.abs(strong.y.astype(int) - frame.y).sum() > np.abs(weak.y.astype(int) - frame.y).sum()
    assert dial.change_strength(50) == 1.0
    assert dial.change_strength(-50) == 0.1


def test_frames_are_kept_as_they_came_only_if_wanted():
    keeping, plain = (OverlayDial(Overlay(), keep=keep) for keep in (True, False))
    frames = [make_frame(index=index) for index in range(2 * RECENT)]
    for frame in frames:
        keeping(frame, make_explanation())
        plain(frame, make_explanation())
    found = [keeping.as_it_came(frame.index) for frame in frames]
    assert found == [None] * RECENT + frames[RECENT:]
    assert plain.as_it_came(frames[-1].index) is None
    assert RECENT > FILE_FRAMES  # which may be between the drawing and a window
