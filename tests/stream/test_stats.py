from types import SimpleNamespace

from stream.stats import Report, StageTimer


def test_a_stage_s_time_is_told_in_ms_per_frame(monkeypatch):
    clock, busy = iter([3.0, 3.1]), iter([5.0, 5.06])
    time = SimpleNamespace(perf_counter=lambda: next(clock), thread_time=lambda: next(busy))
    monkeypatch.setattr("stream.stats.time", time)
    timer = StageTimer("infer")
    assert timer.report().wall_ms == timer.report().busy_ms == 0
    with timer.on_thread(), timer:
        pass
    timer.add(4, 0.5, 0.24)
    report = timer.report()
    assert (report.frames, round(report.wall_ms, 6), round(report.busy_ms, 6)) == (5, 120, 60)


def test_the_speed_is_that_of_frames_that_came_out():
    report = Report(
        frames_in=100, frames_out=50, drops={"replaced": 50}, source_counts={}, seconds=2.0,
        first_frame_seconds=0.1, latency_p50_ms=1.0, latency_p95_ms=2.0, latency_p99_ms=3.0,
        stages=(), ended="end",
    )  # fmt: skip
    assert report.fps == 25
