"""Calls with a time limit."""

import threading

import pytest

from stream.sources import side_thread
from stream.sources.side_thread import SideThread, TimedOut


@pytest.fixture
def side():
    side = SideThread("test side")
    yield side
    side.finish(lambda: None)
    assert side.join(10)


def test_results_and_errors_come_back(side):
    assert side.call(lambda: 41 + 1, 10) == 42
    assert side.call(lambda: None, 10) is None
    with pytest.raises(ZeroDivisionError):
        side.call(lambda: 1 // 0, 10)
    assert side.call(lambda: threading.current_thread().name, 10) == "test side"


def test_a_late_answer_is_not_taken_for_the_next_one(side):
    go = threading.Event()
    with pytest.raises(TimedOut):
        side.call(lambda: go.wait(10), 0.02)
    go.set()
    assert side.call(lambda: "next", 10) == "next"


def test_an_answer_just_after_the_limit_counts(side, monkeypatch):
    # A process that was stopped for longer than the limit goes on with its clock far ahead.
    monkeypatch.setattr(side_thread, "GRACE_SECONDS", 10)
    threading.Timer(0.1, (go := threading.Event()).set).start()
    assert side.call(lambda: go.wait(10), 0.01) is True


def test_giving_up_wakes_the_waiting_and_all_later_calls(side):
    inside, go, errors = threading.Event(), threading.Event(), []

    def wait():
        try:
            side.call(lambda: (inside.set(), go.wait(10)), 60)
        except TimedOut as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert inside.wait(10)
    side.give_up()
    waiting.join(10)
    assert len(errors) == 1
    with pytest.raises(TimedOut):
        side.call(lambda: 1, 60)
    go.set()


def test_the_last_job_runs_in_the_thread_and_ends_it():
    side, ran = SideThread("test last"), []
    side.finish(lambda: ran.append(threading.current_thread().name))
    assert side.join(10)
    assert ran == ["test last"]
