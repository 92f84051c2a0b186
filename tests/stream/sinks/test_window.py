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
from stream.refine import Refiner
from stream.sinks import WindowSink
from stream.sinks.window import HELP, fitted
from tests.builders import make_explanation, make_frame
from tests.stream.sinks.fake_screen import FakeScreen

EXPLANATION = make_explanation()
SIZE = (120, 320)


class Clock:
    """Seconds that pass while the window waits, and by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds / 1000


def open_window(keys="", **options):
    clock = Clock()
    screen = FakeScreen(keys, clock.wait)
    said: list[str] = []
    sink = WindowSink(screen=screen, clock=clock, say=said.append, **options)
    return sink, screen, clock, said


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


def test_pause_ends_with_the_run():
    sink = None

    def stop_in_the_third_wait(_milliseconds):
        if len(screen.polls) == 3:
            sink.interrupt()
        assert len(screen.polls) < 10

    screen = FakeScreen(" ", stop_in_the_third_wait)
    sink = WindowSink(screen=screen)
    write(sink)
    assert not sink.stop_requested()


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


def paused_with_relax(keys, masks=40):
    """A window that is paused on a frame and told `keys`; what it did."""
    dial = OverlayDial(Overlay("heat", label=0), keep=True)
    sink, screen, _, said = open_window(keys, dial=dial)
    with FakeEngine(input_size=(8, 8)) as engine:
        sink.refine = lambda frame: Refiner(engine, (0.5, 0.5, 0.5), frame, masks=masks)
        raw = make_frame(*SIZE, index=3)
        explanation = engine.run(raw.rgb((8, 8))[None])
        sink.write(dial(raw, explanation), explanation)
    return screen, said


def test_a_paused_frame_is_refined_step_by_step():
    screen, said = paused_with_relax(" c....... ")
    assert said[0] == "paused"
    assert "RELAX after 40 masks, +-0.26" in said
    refined = screen.shown[2:]
    assert len(refined) >= 3
    assert not np.array_equal(refined[0], refined[2])


def test_relax_waits_for_the_pause():
    _, said = paused_with_relax("c")
    assert said == ["pause first (space), then c"]


def test_a_frame_that_is_not_kept_is_said():
    sink, _, _, said = open_window(" c ", dial=OverlayDial(Overlay("heat"), keep=True))
    sink.refine = pytest.fail
    write(sink)
    assert said[1] == "this frame is not kept any more; go on and pause again"


def test_a_paused_frame_follows_the_keys():
    dial = OverlayDial(Overlay("heat", label=0), keep=True)
    sink, screen, _, _ = open_window(" eo ", dial=dial)
    raw = make_frame(*SIZE, index=3)
    with FakeEngine(input_size=(8, 8)) as engine:
        sink.aim = AimDial(engine)
        sink.explain = lambda frame: engine.run(frame.rgb((8, 8))[None], *sink.aim.asked)
        explanation = engine.run(raw.rgb((8, 8))[None])
        sink.write(dial(raw, explanation), explanation)
        turned = engine.run(raw.rgb((8, 8))[None], "class")
    _, _, explained, restyled, *_ = (picture[..., ::-1] for picture in screen.shown)
    above = np.s_[: SIZE[0] // 2]  # of the words
    assert np.array_equal(explained[above], Overlay("heat", label=0)(raw, turned).rgb()[above])
    assert np.array_equal(restyled[above], Overlay("contour", label=0)(raw, turned).rgb()[above])


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


def test_quits_while_waiting_for_the_time():
    sink, _, clock, _ = open_window("..q", paced=True)
    write(sink)
    sink.write(make_frame(*SIZE, index=1, time_base=Fraction(1000)), EXPLANATION)
    assert sink.stop_requested()
    assert clock.now < 110
