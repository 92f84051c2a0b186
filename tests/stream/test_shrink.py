"""Small pictures of planes: the one definition of resizing, whatever computes it."""

from threading import Thread

import cv2
import numpy as np
import pytest

from nem.pictures import resize
from stream.shrink import KEPT, MAX_RATIO, shrink, shrink_rgb

RNG = np.random.default_rng(0)
SHAPES = [(720, 1280), (361, 643), (161, 160), (100, 900), (90, 40), (5, 3)]


def smooth(height: int, width: int) -> np.ndarray:
    """A plane with edges and gradients over the whole range."""
    coarse = RNG.integers(0, 256, (max(2, height // 6), max(2, width // 6)), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("size", [(160, 160), (224, 224), (97, 61), (1, 1), (2, 3)])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_resize_of_the_engines(shape, size):
    plane = smooth(*shape)
    difference = np.abs(shrink(plane, size).astype(int) - resize(plane, size))
    assert difference.max() <= 1


def test_one_row_of_a_far_too_wide_plane():
    plane = smooth(8, 8 * (MAX_RATIO + 100))
    np.testing.assert_array_equal(shrink(plane, (8, 8)), resize(plane, (8, 8)))


def test_padded_reversed_and_repeated_rows():
    room = smooth(90, 160)
    padded = room[:, :130]
    want = shrink(np.ascontiguousarray(padded), (40, 40))
    np.testing.assert_array_equal(shrink(padded, (40, 40)), want)
    np.testing.assert_array_equal(shrink(padded[::-1], (45, 40)), shrink(padded, (45, 40))[::-1])
    flat = np.broadcast_to(padded[:1], padded.shape)
    np.testing.assert_array_equal(shrink(flat, (40, 40)), shrink(flat.copy(), (40, 40)))


def test_the_plane_is_only_read():
    plane = smooth(90, 160)
    before = plane.copy()
    plane.flags.writeable = False
    shrink(plane, (40, 40))
    np.testing.assert_array_equal(plane, before)


def test_earlier_results_outlive_later_calls():
    planes = [smooth(90 + i, 160) for i in range(2 * KEPT)]
    found = [shrink(plane, (40, 40)) for plane in planes]
    for plane, small in zip(planes, found, strict=True):
        np.testing.assert_array_equal(small, shrink(plane, (40, 40)))


def test_threads_do_not_disturb_one_another():
    planes = [smooth(360, 640) for _ in range(4)]
    wanted = [shrink(plane, (60, 60)) for plane in planes]
    wrong = []

    def work(number: int) -> None:
        for _ in range(200):
            if not np.array_equal(shrink(planes[number], (60, 60)), wanted[number]):
                wrong.append(number)

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("order", [1, -1], ids=["rgb", "a view of bgr"])
@pytest.mark.parametrize("shape", [(360, 640), (50, 40), (61, 300)])
def test_a_picture_keeps_its_channels(shape, order):
    picture = np.dstack([smooth(*shape) for _ in range(3)])[..., ::order]
    found = shrink_rgb(picture, (60, 60))
    wanted = resize(np.ascontiguousarray(picture), (60, 60))
    assert found.shape == (60, 60, 3)
    assert np.abs(found.astype(int) - wanted).max() <= 1
