"""Memory is used again when nothing shows it any more, and not before."""

from __future__ import annotations

import threading

import numpy as np

from stream import memory
from stream.frame import new_planes
from stream.memory import KEPT_FRAMES, frame_memory, lent_room

SIZE = 123_457  # of no other test


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_frames_share_no_memory_while_any_plane_is_there():
    y, u, v = new_planes(200, 301)
    place = address(y)
    y[:], u[:], v[:] = 1, 2, 3
    del y, u
    others = [new_planes(200, 301) for _ in range(8)]
    for planes in others:
        for plane in planes:
            plane[:] = 9
    assert (v == 3).all()
    assert len({place, *(address(planes[0]) for planes in others)}) == 9


def test_memory_is_used_again_once_the_last_view_is_gone():
    first = frame_memory(SIZE)
    place, view = address(first), first[5:]
    del first
    assert address(other := frame_memory(SIZE)) != place
    del view
    assert address(frame_memory(SIZE)) == place
    assert other.size == SIZE


def test_another_size_gets_other_memory():
    frame_memory(SIZE)
    larger = frame_memory(SIZE + 1)
    assert larger.shape == (SIZE + 1,)
    assert larger.flags.writeable


def test_no_more_is_kept_than_is_used_at_once():
    held = [frame_memory(SIZE) for _ in range(3 * KEPT_FRAMES)]
    places = {address(one) for one in held}
    held.clear()
    assert len(memory._frames) == KEPT_FRAMES
    assert {address(one) for one in memory._frames} <= places


def test_rooms_lent_at_the_same_time_are_apart():
    tints = np.random.default_rng(0).integers(0, 256, (4, 6, 4)).astype(np.uint8)
    with lent_room(800) as first:
        kept = first.enlarged(tints, (20, 40))
        before = [plane.copy() for plane in kept]

        def disturb() -> None:
            with lent_room(800) as second:
                second.enlarged(255 - tints, (20, 40))
                second.squares(kept[0], kept[1])

        thread = threading.Thread(target=disturb)
        thread.start()
        thread.join()
        assert all(np.array_equal(a, b) for a, b in zip(kept, before, strict=True))
        for squares, plane in zip(first.squares(kept[1], kept[2]), before[1:3], strict=True):
            assert np.array_equal(squares, plane.repeat(2, 0).repeat(2, 1))


def test_a_room_serves_the_next_and_other_sizes():
    with lent_room(600) as first:
        pass
    with lent_room(600) as second:
        assert second is first
    with lent_room(601) as third:
        assert third.samples == 601
