"""The window's keys and timing, with stand-ins for window and clock."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from engines import FakeEngine
from stream.aim import AimDial
from stream.dial import OverlayDial
from stream.overlay import Overlay
from stream.sinks.window import HELP, fitted
from tests.builders import make_explanation, make_frame
from tests.stream.sinks.fake_screen import open_window

EXPLANATION = make_explanation()
SIZE = (120, 320)


def write(sink, count=1, start=0, time_base=Fraction(1, 25)):
    for index in range(start, start + count):
        sink.write(make_frame(*SIZE, index=index, time_base=time_base), EXPLANATION)


def test_shows_each_frame_in_its_own_colours():
    sink, screen, _, _ = open_window()
    frame = make_frame(*SIZE)
    sink.write(frame, EXPLANATION)
    [shown] = screen.shown
    assert np.array_equal(shown[..., ::-1], frame.rgb())


def test_large_frames_are_shown_smaller():
    sink, screen, _, _ = open_window()
    sink.write(make_frame(1080, 1920), EXPLANATION)
    assert screen.shown[0].shape == (720, 1280, 3)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((10, 10), (10, 10)),
        ((1440, 2560), (720, 1280)),
        ((4000, 10), (720, 2)),
        ((1, 9000), (1, 1280)),
    ],
)
def test_fits_in_proportion(size, expected):
    assert fitted(size, (720, 1280)) == expected


@pytest.mark.parametrize("key", ["q", "Q", "\x1b", "X"])
def test_quits(key):
    sink, screen, _, _ = open_window(key)
    write(sink)
    assert sink.stop_requested()
    shown = len(screen.shown)
    write(sink, 3, start=1)
    assert len(screen.shown) == shown
    sink.close()
    assert not screen.is_open


def test_keys_without_a_meaning_do_nothing():
    arrows = "".join(map(chr, range(0xFF50, 0xFF58)))  # as X11 counts them
    sink, _, _, said = open_window(arrows, dial=OverlayDial(Overlay()))
    write(sink, len(arrows))
    assert not sink.stop_requested()
    assert said == []


def test_pause_holds_the_frame_until_space():
    sink, screen, _, said = open_window(" ....... .")
    write(sink)
    assert said == ["paused", "going on"]
    assert len(screen.polls) >= 9
    write(sink)
    assert not sink.stop_requested()


def test_pause_ends_with_quit():
    sink, _, _, _ = open_window(" ...q")
    write(sink)
    assert sink.stop_requested()


def test_turns_the_overlay():
    dial = OverlayDial(Overlay("heat", strength=0.5))
    sink, _, _, said = open_window("o+=-", dial=dial)
    write(sink, 4)
    assert said == ["overlay contour", "strength 0.6", "strength 0.7", "strength 0.6"]
    assert (dial.overlay.style, dial.overlay.strength) == ("contour", 0.6)


def test_without_a_dial_its_keys_do_nothing():
    sink, _, _, said = open_window("o+-")
    write(sink, 3)
    assert said == []
    assert not sink.stop_requested()


def test_turns_what_is_explained():
    with FakeEngine(input_size=(8, 8)) as engine:
        shown = engine.run(np.full((1, 8, 8, 3), 200, np.uint8))
        sink, _, _, said = open_window("ett")
        sink.aim = AimDial(engine)
        for index in range(3):
            sink.write(make_frame(*SIZE, index=index), shown)
        assert said == ["explains class", "target white", f"target {shown.top(2)[1][0]}"]
        assert sink.aim.asked == ("target", engine.names.index(shown.top(2)[1][0]))


def test_without_an_aim_its_keys_do_nothing():
    sink, _, _, said = open_window("et")
    write(sink, 2)
    assert said == []


def test_help_appears_and_goes():
    sink, screen, _, _ = open_window("h.h.")
    for _ in range(4):
        write(sink)
    frame = make_frame(*SIZE).rgb()[..., ::-1]
    strip = len(HELP) * 10
    changed = [
        bool((shown[-strip:, :100] != frame[-strip:, :100]).mean() > 0.2) for shown in screen.shown
    ]
    # Written, then shown again in answer to the key; from then on with help until the second h.
    assert changed == [False, True, True, True, False, False]


def test_what_a_key_did_is_shown_for_a_while():
    sink, screen, clock, _ = open_window("s", snapshots=Path("/nowhere"))
    write(sink)
    assert not np.array_equal(screen.shown[-1], screen.shown[0])
    clock.now += 10
    screen.shown.clear()
    sink.write(make_frame(*SIZE), EXPLANATION)
    assert np.array_equal(screen.shown[0][..., ::-1], make_frame(*SIZE).rgb())


def test_paced_frames_come_at_their_own_time():
    sink, _, clock, _ = open_window(paced=True)
    times = []
    for index in range(5):
        write(sink, start=index, time_base=Fraction(1, 10))
        times.append(clock.now)
    assert np.diff(times) == pytest.approx([0.1] * 4, abs=0.02)


def test_unpaced_frames_do_not_wait():
    sink, _, clock, _ = open_window()
    write(sink, 5, time_base=Fraction(10))
    assert clock.now - 100 < 0.1


def test_a_late_frame_starts_the_clock_anew():
    sink, _, clock, _ = open_window(paced=True)
    write(sink, time_base=Fraction(1, 10))
    clock.now += 60
    before = clock.now
    write(sink, start=1, time_base=Fraction(1, 10))
    assert clock.now - before < 0.02
    write(sink, start=2, time_base=Fraction(1, 10))
    assert clock.now - before == pytest.approx(0.1, abs=0.02)


def test_the_end_of_the_run_ends_the_wait_for_the_time():
    sink, screen, clock, _ = open_window(paced=True)
    write(sink)
    screen.on_poll = lambda milliseconds: (clock.wait(milliseconds), sink.interrupt())
    sink.write(make_frame(*SIZE, index=1, time_base=Fraction(1000)), EXPLANATION)
    assert clock.now < 110


def test_once_closed_it_is_left_alone():
    sink, screen, _, _ = open_window()
    write(sink)
    sink.close()
    asked = len(screen.polls)
    sink.pump()
    assert len(screen.polls) == asked


def test_quits_while_waiting_for_the_time():
    sink, _, clock, _ = open_window("..q", paced=True)
    write(sink)
    sink.write(make_frame(*SIZE, index=1, time_base=Fraction(1000)), EXPLANATION)
    assert sink.stop_requested()
    assert clock.now < 110
