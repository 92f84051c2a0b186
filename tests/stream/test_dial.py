from __future__ import annotations

import numpy as np
import pytest

from stream.dial import OverlayDial
from stream.overlay import STYLES, Overlay
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
