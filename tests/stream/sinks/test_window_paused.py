"""The window while paused: it follows the keys, and refines the frame it shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engines import FakeEngine
from stream.aim import AimDial
from stream.dial import OverlayDial
from stream.overlay import Overlay
from stream.refine import Refiner
from stream.sinks import WindowSink
from tests.builders import make_explanation, make_frame
from tests.stream.sinks.fake_screen import FakeScreen, open_window

EXPLANATION = make_explanation()
SIZE = (120, 320)
ABOVE = np.s_[: SIZE[0] // 2]  # of the words


@pytest.fixture
def engine():
    with FakeEngine(input_size=(8, 8)) as opened:
        yield opened


class Paused:
    """A window told `keys`, over frames that it can explain anew and refine."""

    def __init__(self, engine, keys, *, frames=1, masks=40):
        self.engine = engine
        dial = OverlayDial(Overlay("heat", label=0), keep=True)
        sink, screen, _, self.said = open_window(keys, dial=dial)
        sink.aim = AimDial(engine)
        sink.explain = lambda frame: self.explained(frame, *sink.aim.asked)
        sink.refine = lambda frame: Refiner(engine, (0.5, 0.5, 0.5), frame, masks=masks)
        self.frames = [make_frame(*SIZE, index=index) for index in range(frames)]
        for frame in self.frames:
            explanation = self.explained(frame)
            sink.write(dial(frame, explanation), explanation)
        self.shown = [picture[..., ::-1] for picture in screen.shown]

    def explained(self, frame, *asked):
        return self.engine.run(frame.rgb((8, 8))[None], *asked)

    def drawn(self, *asked, index=0, **look):
        """What the window shows of a frame above its words."""
        frame, overlay = self.frames[index], Overlay(**{"label": 0, **look})
        return overlay(frame, self.explained(frame, *asked)).rgb()[ABOVE]


def test_it_ends_with_the_run():
    def stop_in_the_third_wait(_milliseconds):
        if len(screen.polls) == 3:
            sink.interrupt()
        assert len(screen.polls) < 10

    screen = FakeScreen(" ", stop_in_the_third_wait)
    sink = WindowSink(screen=screen)
    sink.write(make_frame(*SIZE), EXPLANATION)
    assert not sink.stop_requested()


def test_a_frame_is_refined_step_by_step(engine):
    window = Paused(engine, " c....... ")
    assert window.said[0] == "paused"
    assert "RELAX after 40 masks, +-0.51" in window.said  # 2 sqrt(ln(2 / 0.01) / 80)
    refined = window.shown[2:]
    assert len(refined) >= 3
    assert not np.array_equal(refined[0], refined[2])


def test_cosines_of_embeddings_with_signs_may_be_off_twice_as_far(engine, monkeypatch):
    run = engine.run

    def signed(*asked):
        found = run(*asked)
        return replace(found, embedding=-found.embedding)

    monkeypatch.setattr(engine, "run", signed)
    assert "RELAX after 40 masks, +-1.03" in Paused(engine, " c....... ").said


def test_the_next_pause_does_not_go_on_refining_the_last(engine):
    window = Paused(engine, " c. " + " ... ", frames=2, masks=4000)
    assert "paused" in window.said[2:]
    assert np.array_equal(window.shown[-1][ABOVE], window.drawn(index=1))


def test_what_is_explained_anew_is_not_refined_over(engine):
    window = Paused(engine, " c.e... ", masks=4000)
    assert np.array_equal(window.shown[-1][ABOVE], window.drawn("class"))


def test_relax_waits_for_the_pause(engine):
    assert Paused(engine, "c").said == ["pause first (space), then c"]


def test_a_frame_that_is_not_kept_is_said():
    sink, _, _, said = open_window(" c ", dial=OverlayDial(Overlay("heat"), keep=True))
    sink.refine = pytest.fail
    sink.write(make_frame(*SIZE), EXPLANATION)
    assert said[1] == "this frame is not kept any more; go on and pause again"


def test_it_follows_the_keys(engine):
    window = Paused(engine, " e+ott ")
    best = np.argsort(-window.explained(window.frames[0]).scores[0], kind="stable")
    looks = [
        window.drawn("class"),
        window.drawn("class", strength=0.75),
        window.drawn("class", strength=0.75, style="contour"),
        window.drawn("target", int(best[0]), strength=0.75, style="contour"),
        window.drawn("target", int(best[1]), strength=0.75, style="contour"),
    ]
    assert not np.array_equal(looks[-1], looks[-2])
    for shown, expected in zip(window.shown[2:7], looks, strict=True):
        assert np.array_equal(shown[ABOVE], expected)
