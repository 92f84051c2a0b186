"""So many at the same time, or one alone."""

from __future__ import annotations

import threading

from engines.slots import Slots

DEADLINE = 20.0


def test_so_many_are_in_and_no_more() -> None:
    slots, both = Slots(2), threading.Barrier(3)
    go_on, third = threading.Event(), threading.Event()

    def stay() -> None:
        with slots:
            both.wait(DEADLINE)
            assert go_on.wait(DEADLINE)

    def come_late() -> None:
        with slots:
            third.set()

    threads = [threading.Thread(target=stay) for _ in range(2)]
    for thread in threads:
        thread.start()
    both.wait(DEADLINE)
    late = threading.Thread(target=come_late)
    late.start()
    assert not third.wait(0.1)
    go_on.set()
    for thread in (*threads, late):
        thread.join(DEADLINE)
    assert third.is_set()


def test_who_needs_all_waits_for_each_and_two_of_them_do_not_block_each_other() -> None:
    slots, inside = Slots(3), []
    slots.__enter__()

    def alone(name: str) -> None:
        with slots.all():
            inside.append(name)
            inside.append(name)

    threads = [threading.Thread(target=alone, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    threads[0].join(0.1)
    assert inside == []
    slots.__exit__()
    for thread in threads:
        thread.join(DEADLINE)
    assert inside in (list("aabb"), list("bbaa"))
    with slots, slots, slots:
        pass  # all are free again
