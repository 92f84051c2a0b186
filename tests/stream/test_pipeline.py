import threading
import time
from contextlib import closing
from dataclasses import replace

import cv2
import numpy as np
import pytest

from stream.errors import SinkError, SourceError
from stream.pipeline import CUT_SHORT, FILE_FRAMES, Pipeline
from stream.stats import AGES_KEPT, Ages
from tests.stream.fakes import (
    DEADLINE,
    FakeEngine,
    FakeOverlay,
    FakeSource,
    Gate,
    MemorySink,
    fail_at,
)


def our_threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("nem-")]


def test_every_frame_of_a_file_comes_out_once_in_order():
    source, engine, sinks = FakeSource(50), FakeEngine(), [MemorySink(), MemorySink()]
    report = Pipeline(source, engine, sinks, overlay=FakeOverlay()).run()
    assert [sink.indices for sink in sinks] == [list(range(50))] * 2
    assert [sink.closed for sink in sinks] == [[True], [True]]
    assert engine.runs == report.frames_in == report.frames_out == 50
    assert report.drops == {}
    assert report.ended == "end"
    assert source.closed == 1
    assert our_threads() == []
    engine.run(np.zeros((1, 4, 4, 3), np.uint8))  # still open: it is the caller's


def test_a_source_without_frames_is_a_plain_end():
    report = Pipeline(FakeSource(0), FakeEngine(), [MemorySink()]).run()
    assert (report.frames_in, report.frames_out, report.first_frame_seconds) == (0, 0, None)
    assert report.fps == 0


STAGES = ["decode", "infer", "smooth", "overlay", "encode"]


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("at", [0, 7])
@pytest.mark.parametrize("stage", STAGES)
def test_an_error_of_any_stage_is_raised_once_and_stops_all(stage, at, live):
    error = SourceError("broken") if stage == "decode" else SinkError("broken")
    hooks = {stage: fail_at(at, error)}
    source = FakeSource(None if stage != "decode" else 10, live=live)
    seen = []

    def smoother(frame, explanation):
        seen.append(frame.index)
        hooks.get("smooth", lambda _: None)(len(seen) - 1)
        return explanation

    source.hook = hooks.get("decode", source.hook)
    engine = FakeEngine(hooks.get("infer", lambda _: None))
    sink = MemorySink()
    counted = iter(range(1000000))
    if stage == "encode":  # by count: a live source's indices have gaps
        sink.hook = lambda _: hooks["encode"](next(counted))
    overlay = FakeOverlay()
    if stage == "overlay":
        overlay.hook = lambda _: hooks["overlay"](next(counted))
    with pytest.raises(type(error)) as caught:
        Pipeline(source, engine, [sink], overlay=overlay, smoother=smoother).run()
    assert caught.value is error
    assert sink.closed == [False]
    assert source.closed == 1
    assert our_threads() == []


def test_stop_finishes_what_is_under_way():
    gate, source, sink = Gate(3), FakeSource(None), MemorySink()
    pipeline = Pipeline(source, FakeEngine(gate), [sink], overlay=FakeOverlay())
    helper = threading.Thread(target=stop_at, args=(gate, pipeline.stop))
    helper.start()
    report = pipeline.run()
    helper.join()
    assert report.ended == "stopped"
    assert report.drops == {}
    assert report.frames_out == report.frames_in >= 4
    assert sink.indices == list(range(report.frames_out))
    assert sink.closed == [False]  # a file cut short is not whole


def test_a_sinks_wish_ends_the_run():
    sink = MemorySink(stop_after=5)
    report = Pipeline(FakeSource(None), FakeEngine(), [sink], overlay=FakeOverlay()).run()
    assert report.ended == "stopped"
    assert 5 <= len(sink.indices) <= 5 + FILE_FRAMES  # what was under way


def test_abort_throws_away_what_is_under_way():
    gate, sink = Gate(3), MemorySink()
    pipeline = Pipeline(FakeSource(None), FakeEngine(gate), [sink], overlay=FakeOverlay())
    helper = threading.Thread(target=stop_at, args=(gate, pipeline.abort))
    helper.start()
    report = pipeline.run()
    helper.join()
    assert report.ended == "aborted"
    assert report.frames_out <= 3
    assert report.drops == {CUT_SHORT: report.frames_in - report.frames_out}
    assert sink.closed == [False]
    assert our_threads() == []


def test_a_second_wish_to_end_changes_nothing():
    pipeline = Pipeline(FakeSource(5), FakeEngine(), [MemorySink()])
    pipeline.abort()
    pipeline.stop()
    pipeline.abort()
    assert pipeline.run().ended == "aborted"


def stop_at(gate, stop):
    assert gate.reached.wait(DEADLINE)
    stop()
    gate.opened.set()


def test_a_slow_sink_holds_a_file_back_instead_of_dropping():
    gate, source, sink = Gate(0), FakeSource(200), MemorySink()
    given = []
    source.hook = given.append
    sink.hook = gate
    pipeline = Pipeline(source, FakeEngine(), [sink], overlay=FakeOverlay())
    early = []

    def release():
        assert gate.reached.wait(DEADLINE)
        end = time.monotonic() + DEADLINE
        while len(given) < FILE_FRAMES and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)  # in which more would come
        early.append(len(given))
        gate.opened.set()

    helper = threading.Thread(target=release)
    helper.start()
    report = pipeline.run()
    helper.join()
    assert early == [FILE_FRAMES]
    assert sink.indices == list(range(200))
    assert report.drops == {}


def test_a_file_is_computed_in_batches_and_comes_out_frame_by_frame():
    engine, sink = FakeEngine(batch=4), MemorySink()
    seen = []

    def smooth(frame, explanation):
        seen.append((frame.index, len(explanation.mask)))
        return explanation

    pipeline = Pipeline(FakeSource(10), engine, [sink], overlay=FakeOverlay(), smoother=smooth)
    report = pipeline.run()
    assert engine.counts == [4, 4, 2]
    assert sink.indices == list(range(10))
    assert seen == [(index, 1) for index in range(10)]
    assert {stage.name: stage.frames for stage in report.stages}["infer"] == 10


def test_each_frame_of_a_batch_has_its_own_explanation():
    with closing(Pipeline(FakeSource(9), FakeEngine(batch=4)).frames()) as batched:
        found = list(batched)
    with closing(Pipeline(FakeSource(9), FakeEngine()).frames()) as single:
        for (frame, one), (right, other) in zip(found, single, strict=True):
            assert frame.index == right.index
            np.testing.assert_array_equal(one.mask, other.mask)
            np.testing.assert_array_equal(one.embedding, other.embedding)
    assert len({float(one.mask.mean()) for _, one in found}) > 1


@pytest.mark.parametrize("batch", [8, 32])
def test_a_large_batch_neither_hangs_nor_loses_frames(batch):
    engine, sink = FakeEngine(batch=batch), MemorySink()
    Pipeline(FakeSource(100), engine, [sink], overlay=FakeOverlay()).run()
    assert sink.indices == list(range(100))
    assert max(engine.counts) == batch


def test_stop_finishes_a_batch_that_is_not_full():
    source, engine, sink = FakeSource(None), FakeEngine(batch=4), MemorySink()
    pipeline = Pipeline(source, engine, [sink], overlay=FakeOverlay())
    source.hook = lambda index: pipeline.stop() if index == 6 else None
    report = pipeline.run()
    assert report.ended == "stopped"
    assert report.drops == {}
    assert sink.indices == list(range(report.frames_in))
    assert sum(engine.counts) == report.frames_in >= 6


def test_leaving_the_frames_early_ends_the_threads():
    source = FakeSource(None)
    with closing(Pipeline(source, FakeEngine()).frames()) as frames:
        indices = [next(frames)[0].index for _ in range(3)]
    assert indices == [0, 1, 2]
    assert source.closed == 1
    assert our_threads() == []


def test_all_sinks_are_closed_even_if_one_fails_to():
    class Failing(MemorySink):
        def close(self, *, whole=True):
            super().close(whole=whole)
            raise SinkError("disk full")

    sinks = [Failing(), MemorySink()]
    with pytest.raises(SinkError, match="disk full"):
        Pipeline(FakeSource(2), FakeEngine(), sinks).run()
    assert [sink.closed for sink in sinks] == [[True], [True]]


def test_opencv_gets_its_threads_back():
    before = cv2.getNumThreads()
    inside = []
    Pipeline(FakeSource(2), FakeEngine(lambda i: inside.append(cv2.getNumThreads()))).run()
    assert inside == [1, 1]
    assert cv2.getNumThreads() == before


def test_opencv_gets_its_threads_back_from_the_last_of_several():
    before = cv2.getNumThreads()
    first, second = (Pipeline(FakeSource(3), FakeEngine()).frames() for _ in range(2))
    next(first), next(second)
    first.close()
    assert cv2.getNumThreads() == 1
    second.close()
    assert cv2.getNumThreads() == before


def test_a_pipeline_is_for_one_run():
    pipeline = Pipeline(FakeSource(1), FakeEngine())
    pipeline.run()
    with pytest.raises(RuntimeError, match="already run"):
        pipeline.run()


def test_the_report_tells_ages_and_stages():
    now = iter(range(1, 1000))
    sink = MemorySink()
    pipeline = Pipeline(
        FakeSource(9), FakeEngine(), [sink], overlay=FakeOverlay(), clock=lambda: next(now) / 1000
    )
    written = []
    report = pipeline.run(on_frame=lambda frame: written.append(frame.index))
    assert written == list(range(9))
    assert report.latency_p50_ms == pytest.approx(5)  # captured_at is 0: ages are 1..9 ms
    assert report.latency_p95_ms == report.latency_p99_ms == pytest.approx(9)
    assert [(s.name, s.frames) for s in report.stages] == [
        ("decode", 10),  # the last look finds the end
        ("infer", 9),
        ("overlay", 9),
        ("encode", 9),
    ]
    assert all(s.wall_ms > 0 and s.busy_ms > 0 for s in report.stages)
    assert 0 < report.first_frame_seconds <= report.seconds


def test_ages_count_from_the_capture():
    class Captured(FakeSource):
        def __iter__(self):
            for frame in super().__iter__():
                yield replace(frame, captured_at=float(frame.index))

    report = Pipeline(Captured(41), FakeEngine(), [MemorySink()], clock=lambda: 40.0).run()
    ages = report.latency_p50_ms, report.latency_p95_ms, report.latency_p99_ms
    assert ages == (20_000, 38_000, 40_000)


def test_the_report_tells_what_happened_inside_the_source():
    source = FakeSource(2)
    source.counts["bad packets skipped"] = 3
    assert Pipeline(source, FakeEngine()).run().source_counts == {"bad packets skipped": 3}


def test_ages_keep_the_newest_only():
    ages = Ages(lambda: 10.0)
    for i in range(AGES_KEPT + 500):
        ages.add(0.0 if i < 500 else 9.0)
    assert ages.percentile_ms(0) == ages.percentile_ms(100) == pytest.approx(1000)
