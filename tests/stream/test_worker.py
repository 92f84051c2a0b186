import threading

from stream.channel import ChannelClosed
from stream.worker import Crew
from tests.stream.fakes import DEADLINE


def raises(error):
    def job():
        raise error

    return job


def test_a_job_runs_in_a_named_thread_and_ends():
    threads = []
    crew = Crew(lambda error: None)
    crew.start("decode", lambda: threads.append(threading.current_thread()))
    assert crew.join(DEADLINE) == []
    assert [thread.name for thread in threads] == ["nem-decode"]
    assert threads[0].daemon  # a driver that hangs keeps no finished process alive
    assert crew.error is None


def test_the_first_error_stops_all_once():
    go, stops = threading.Event(), []

    def stop(error):
        stops.append(error)
        go.set()

    def waits_then_fails():
        assert go.wait(DEADLINE)
        raise KeyError("second")

    first = ValueError("first")
    crew = Crew(stop)
    crew.start("waits", waits_then_fails)
    crew.start("fails", raises(first))
    assert crew.join(DEADLINE) == []
    assert crew.error is first
    assert stops == [first]


def test_even_an_exit_in_a_thread_reaches_the_caller():
    crew = Crew(lambda error: None)
    crew.start("exits", raises(SystemExit(3)))
    assert crew.join(DEADLINE) == []
    assert isinstance(crew.error, SystemExit)


def test_a_closed_channel_is_no_error():
    crew = Crew(lambda error: None)
    crew.start("ends", raises(ChannelClosed(ValueError("of another thread"))))
    assert crew.join(DEADLINE) == []
    assert crew.error is None


def test_join_names_who_is_still_alive_at_the_deadline():
    go = threading.Event()
    crew = Crew(lambda error: go.set())
    crew.start("hangs", lambda: go.wait(DEADLINE))
    crew.start("ends", lambda: None)
    assert crew.join(0) in (["nem-hangs"], ["nem-hangs", "nem-ends"])
    crew.stop(RuntimeError("enough"))
    assert crew.join(DEADLINE) == []


def test_stopping_inside_its_own_lock_does_not_hang():
    # A signal handler runs on a thread that may be stopping just then.
    stops = []
    crew = Crew(stops.append)

    def stops_twice():
        with crew._lock:
            crew.stop(RuntimeError("enough"))

    thread = threading.Thread(target=stops_twice, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert stops == [crew.error]
