import threading

import pytest

from stream.channel import Channel, ChannelClosed
from tests.stream.fakes import DEADLINE


def in_thread(job):
    """Run `job` in a thread; returns the thread and the list its result or error goes to."""
    results = []

    def run():
        try:
            results.append(job())
        except ChannelClosed as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def ended(thread):
    thread.join(DEADLINE)
    return not thread.is_alive()


@pytest.mark.parametrize(
    ("newest", "given", "taken", "dropped"),
    [
        (False, [], [], 0),
        (False, [1, 2, 3], [1, 2, 3], 0),
        (True, [1, 2, 3], [1, 2, 3], 0),
        (True, [1, 2, 3, 4, 5], [3, 4, 5], 2),
    ],
)
def test_what_is_taken_and_dropped(newest, given, taken, dropped):
    channel = Channel(3, newest=newest)
    for item in given:
        channel.put(item)
    channel.close()
    assert list(channel) == taken
    assert channel.dropped == dropped


def test_wait_lets_the_giver_on_once_there_is_room():
    channel = Channel(1)
    channel.put("first")
    thread, _ = in_thread(lambda: channel.put("second"))
    assert channel.get() == "first"
    assert channel.get() == "second"
    assert ended(thread)


def test_wait_keeps_every_item_in_order():
    channel = Channel(2)
    thread, results = in_thread(lambda: list(channel))
    for i in range(500):
        channel.put(i)
    channel.close()
    assert ended(thread)
    assert results == [list(range(500))]


def test_get_waits_for_an_item():
    channel = Channel(1)
    thread, results = in_thread(channel.get)
    channel.put("late")
    assert ended(thread)
    assert results == ["late"]


def test_put_after_close_is_refused():
    channel = Channel(1)
    channel.close()
    with pytest.raises(ChannelClosed) as caught:
        channel.put(1)
    assert caught.value.error is None


def test_plain_close_wakes_a_waiting_taker():
    channel = Channel(1)
    thread, results = in_thread(channel.get)
    channel.close()
    assert ended(thread)
    assert isinstance(results[0], ChannelClosed)
    assert results[0].error is None


@pytest.mark.parametrize("error", [None, ValueError("why")])
def test_close_wakes_a_waiting_giver(error):
    channel = Channel(1)
    channel.put(1)
    thread, results = in_thread(lambda: channel.put(2))
    channel.close(error)
    assert ended(thread)
    assert results[0].error is error


def test_close_with_an_error_throws_the_content_away():
    channel = Channel(3)
    channel.put(1)
    why = ValueError("why")
    channel.close(why)
    with pytest.raises(ChannelClosed) as caught:
        channel.get()
    assert caught.value.error is why
    with pytest.raises(ChannelClosed):
        list(channel)


def test_the_first_error_is_kept():
    channel = Channel(1)
    first = ValueError("first")
    for error in (None, first, ValueError("second"), None):
        channel.close(error)
    with pytest.raises(ChannelClosed) as caught:
        channel.get()
    assert caught.value.error is first
    assert channel._closed


def test_an_error_after_a_plain_close_still_stops():
    channel = Channel(2)
    channel.put(1)
    channel.close()
    channel.close(ValueError("why"))
    with pytest.raises(ChannelClosed):
        channel.get()


def test_closing_inside_its_own_lock_does_not_hang():
    # A signal handler runs on a thread that may be inside the channel.
    channel = Channel(1)
    with channel._changed:
        channel.close()
    with pytest.raises(ChannelClosed):
        channel.get()


def test_who_waits_may_do_something_else():
    channel = Channel(1)
    calls = []

    def idle():
        calls.append(channel._closed)
        if len(calls) == 3:
            channel.put("at last")

    assert channel.get(idle) == "at last"
    assert calls == [False] * 3
    channel.close()
    assert list(channel.items(idle)) == []
    assert len(calls) == 3
