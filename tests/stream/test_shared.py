"""The threads that share the stages of a file: order, who does what, how much at once."""

import threading
import time
import weakref

import pytest

from stream.pipeline import FILE_FRAMES, Pipeline
from stream.shared import FIRST_FRAMES
from tests.builders import make_frame
from tests.stream.fakes import DEADLINE, FakeEngine, FakeOverlay, FakeSource, Gate, MemorySink


class Window(MemorySink):
    def pump(self):
        pass


@pytest.mark.parametrize("why", ["camera", "window", "gpu"])
def test_sinks_run_on_the_callers_thread_where_it_matters(why):
    sinks = [MemorySink(), Window()] if why == "window" else [MemorySink()]
    engine = FakeEngine()
    engine.device = "cuda:0" if why == "gpu" else "cpu"
    source = FakeSource(3, live=why == "camera")
    Pipeline(source, engine, sinks, overlay=FakeOverlay()).run()
    assert sinks[0].threads == {threading.current_thread().name}


def test_other_sinks_of_a_file_run_on_the_threads_that_do_all_else():
    sink, written = MemorySink(), []
    Pipeline(FakeSource(20), FakeEngine(), [sink]).run(
        on_frame=lambda frame: written.append((frame.index, threading.current_thread().name))
    )
    assert [index for index, _ in written] == list(range(20))
    assert {name for _, name in written} == sink.threads
    assert all(name.startswith("nem-file-") for name in sink.threads)


def test_runs_side_by_side_are_put_in_order_again():
    """The first run ends after the second, for which it waits."""
    second = threading.Event()
    reached = []

    def hook(run):
        reached.append(run)
        if len(reached) == 1:
            assert second.wait(DEADLINE)
        else:
            second.set()

    sink = MemorySink()
    engine = FakeEngine(hook, batch=2, calls=2)
    report = Pipeline(FakeSource(11), engine, [sink], overlay=FakeOverlay()).run()
    assert sink.indices == list(range(11))
    assert report.frames_out == 11


def test_most_frames_are_held_at_first_and_none_at_last():
    """Later the engine is held up once, so that as many are under way as can be."""
    alive, counts = [], []
    held_up = FIRST_FRAMES + 20

    class Source(FakeSource):
        def __iter__(self):
            for frame in super().__iter__():
                alive.append(frame.index)
                weakref.finalize(frame.y, alive.remove, frame.index)
                counts.append(len(alive))
                yield frame

    def hold_up(run):
        if run == held_up:
            deadline = time.monotonic() + DEADLINE
            while len(counts) < held_up + FILE_FRAMES and time.monotonic() < deadline:
                time.sleep(0.001)

    source, engine = Source(2 * held_up), FakeEngine(hold_up)
    pipeline = Pipeline(
        source, engine, [MemorySink()], overlay=lambda frame, _: make_frame(index=frame.index)
    )
    pipeline.run()
    first, later = counts[:FIRST_FRAMES], counts[FIRST_FRAMES:]
    assert max(first) >= max(later) == FILE_FRAMES
    assert not alive


def test_one_call_at_a_time_where_the_engine_takes_no_more():
    inside, most = [], []

    def hook(run):
        inside.append(run)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()

    Pipeline(FakeSource(30), FakeEngine(hook), [MemorySink()]).run()
    assert max(most) == 1


def test_no_sink_is_closed_while_it_writes(monkeypatch):
    monkeypatch.setattr("stream.pipeline.JOIN_SECONDS", 0.02)
    monkeypatch.setattr("stream.pipeline.HUNG_SECONDS", 0.02)
    gate = Gate(2)
    sink = MemorySink(gate)
    pipeline = Pipeline(FakeSource(None), FakeEngine(), [sink])
    before = []

    def release():
        assert gate.reached.wait(DEADLINE)
        pipeline.abort()
        time.sleep(0.3)  # in which it would be closed
        before.append(list(sink.closed))
        gate.opened.set()

    helper = threading.Thread(target=release)
    helper.start()
    assert pipeline.run().ended == "aborted"
    helper.join()
    assert before == [[]]
    assert sink.closed == [False]
    assert sink.indices == [0, 1, 2]
