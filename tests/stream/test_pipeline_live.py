"""Cameras and windows: the newest frame, and an end at any moment."""

import threading

import pytest

from stream.live import LIVE_FRAMES
from stream.pipeline import REPLACED, Pipeline
from tests.stream.fakes import DEADLINE, FakeEngine, FakeOverlay, FakeSource, Gate, MemorySink


def test_a_stopped_live_source_ends_whole():
    sink = MemorySink(stop_after=5)
    report = Pipeline(FakeSource(None, live=True), FakeEngine(), [sink]).run()
    assert report.ended == "stopped"
    assert sink.closed == [True]
    assert report.frames_in == report.frames_out + sum(report.drops.values())


def test_a_live_source_drops_old_frames_and_counts_them():
    # The engine holds frame 0 until the source has given 20 more: 19 of them were replaced.
    engine_gate, source_done = Gate(0), Gate(20)
    source = FakeSource(20, live=True)
    source.hook = lambda i: engine_gate.reached.wait(DEADLINE) if i == 1 else None
    taken = iter(source)

    class Then(FakeSource):
        def __iter__(self):
            yield from taken
            source_done.reached.set()
            source_done.opened.wait(DEADLINE)

    pipeline = Pipeline(Then(20, live=True), FakeEngine(engine_gate), [sink := MemorySink()])
    helper = threading.Thread(
        target=lambda: (
            source_done.reached.wait(DEADLINE),
            engine_gate.opened.set(),
            source_done.opened.set(),
        )
    )
    helper.start()
    report = pipeline.run()
    helper.join()
    assert sink.indices == [0, 19]
    assert report.drops == {REPLACED: 18}
    assert (report.frames_in, report.frames_out) == (20, 2)


def test_a_live_source_is_computed_frame_by_frame():
    engine, sink = FakeEngine(batch=4), MemorySink()
    Pipeline(FakeSource(9, live=True), engine, [sink], overlay=FakeOverlay()).run()
    assert set(engine.counts) == {1}
    assert sink.indices[-1] == 8


def test_a_slow_sink_gets_new_frames_of_a_live_source():
    # While the sink holds frame 0 the source gives all others; few of them may be under way.
    gate, source = Gate(0), FakeSource(50, live=True)
    source.hook = lambda i: gate.reached.wait(DEADLINE) if i == 1 else None
    taken = iter(source)

    class Then(FakeSource):
        def __iter__(self):
            yield from taken
            gate.opened.set()

    sink = MemorySink(gate)
    report = Pipeline(Then(50, live=True), FakeEngine(), [sink], overlay=FakeOverlay()).run()
    assert sink.indices[0] == 0
    assert sink.indices[-1] == 49
    assert len(sink.indices) <= 1 + LIVE_FRAMES
    assert report.drops == {REPLACED: 50 - len(sink.indices)}


def test_a_hung_source_is_closed_under_its_thread():
    gate = Gate(2)

    class Hung(FakeSource):
        def close(self):
            super().close()
            gate.opened.set()

    report = Pipeline(Hung(None, hook=gate), FakeEngine(), [MemorySink(stop_after=2)]).run()
    assert report.ended == "stopped"


class Window(MemorySink):
    """A sink that wants to be served while no frame comes."""

    def __init__(self, pumped, hook=lambda _: None):
        super().__init__(hook)
        self.pumped, self.quit, self.interrupted = pumped, False, 0

    def pump(self):
        self.pumped()

    def stop_requested(self):
        return self.quit

    def interrupt(self):
        self.interrupted += 1


def test_a_window_is_served_while_no_frame_comes_and_can_end_the_run():
    gate = Gate(2)  # the source hangs here until it is closed

    class Hung(FakeSource):
        def close(self):
            super().close()
            gate.opened.set()

    def pumped():
        window.quit = gate.reached.is_set()

    window = Window(pumped)
    report = Pipeline(Hung(None, live=True, hook=gate), FakeEngine(), [window]).run()
    assert report.ended == "stopped"
    assert report.frames_in <= 2
    assert window.closed == [True]


@pytest.mark.parametrize("end", ["stop", "abort"])
def test_ending_wakes_a_paused_window(end):
    paused = threading.Event()

    class Paused(Window):
        def interrupt(self):
            super().interrupt()
            paused.set()

    window = Paused(lambda: None)
    pipeline = Pipeline(FakeSource(None), FakeEngine(), [window])

    def pause(index):
        if index == 2:
            getattr(pipeline, end)()  # as a signal handler would, on this very thread
            assert paused.wait(DEADLINE)

    window.hook = pause
    assert pipeline.run().ended == ("stopped" if end == "stop" else "aborted")
    assert window.interrupted >= 1
