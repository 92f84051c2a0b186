"""Frames: shapes, the way to RGB and back, padded and tiny planes."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from nem.pictures import resize
from stream.colour import ColourTags
from stream.errors import UsageError
from stream.frame import Frame, frame_from_rgb, new_planes
from tests.builders import make_frame

TAGS = [ColourTags(m, f) for m in ("bt601", "bt709", "bt2020") for f in (False, True)]


def of(rgb: np.ndarray, colour: ColourTags | None = None) -> Frame:
    return frame_from_rgb(
        rgb, index=0, pts=0, time_base=Fraction(1, 25), captured_at=0.0, colour=colour
    )


@pytest.mark.parametrize("colour", TAGS)
@pytest.mark.parametrize("rgb", [(0, 0, 0), (255, 255, 255), (200, 30, 60), (10, 120, 250)])
@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_a_flat_colour_comes_back(colour, rgb, size):
    picture = np.full((*size, 3), rgb, np.uint8)
    back = of(picture, colour).rgb()
    assert np.abs(back.astype(int) - picture).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (5, 1), (3, 7), (4, 6)])
def test_chroma_of_odd_sizes_is_rounded_up(height, width):
    frame = make_frame(height, width)
    assert frame.y.shape == (height, width)
    assert frame.u.shape == frame.v.shape == ((height + 1) // 2, (width + 1) // 2)
    assert frame.rgb().shape == (height, width, 3)
    assert frame.rgb((2, 3)).shape == (2, 3, 3)


def test_one_more_row_and_column_moves_no_colour():
    rgb = np.random.default_rng(0).integers(0, 256, (35, 41, 3), dtype=np.uint8)
    odd, even = of(rgb), of(rgb[:34, :40])
    for name in ("y", "u", "v"):
        before = getattr(even, name)
        np.testing.assert_array_equal(
            getattr(odd, name)[: before.shape[0], : before.shape[1]], before
        )
    np.testing.assert_array_equal(odd.rgb()[:33, :39], even.rgb()[:33, :39])


def test_wrong_chroma_is_refused_with_both_sizes():
    y, c = np.zeros((5, 7), np.uint8), np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"7x5: chroma planes must be \(3, 4\), got \(2, 3\)"):
        Frame(y, c, c, 0, 0, Fraction(1, 25), 0.0)


def test_padded_rows_read_the_same():
    frame = make_frame(34, 50)
    padded = []
    for plane in (frame.y, frame.u, frame.v):
        room = np.full((plane.shape[0], plane.shape[1] + 14), 77, np.uint8)
        room[:, : plane.shape[1]] = plane
        view = room[:, : plane.shape[1]]
        view.flags.writeable = False
        padded.append(view)
    twin = Frame(*padded, 0, 0, Fraction(1, 25), 0.0, frame.colour)
    np.testing.assert_array_equal(twin.rgb(), frame.rgb())
    np.testing.assert_array_equal(twin.rgb((20, 20)), frame.rgb((20, 20)))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (34, 50)])
def test_new_planes_lie_one_after_the_other(size):
    y, u, v = planes = new_planes(*size)
    frame = Frame(*planes, 0, 0, Fraction(1, 25), 0.0)
    y[:], u[:], v[:] = 1, 2, 3
    assert frame.buffer is not None
    assert frame.buffer.tolist() == [1] * y.size + [2] * u.size + [3] * v.size


def test_planes_that_lie_otherwise_have_no_buffer():
    y, u, v = new_planes(6, 8)
    room = np.zeros((12, 8), np.uint8)
    short = np.zeros(6 * 8 + 4 * 12, np.uint8)
    for planes in (
        (y, v, u),
        (y, u, u),
        (y[::-1], u, v),
        (y.copy(), u, v),
        (y.copy(), u.copy(), v.copy()),
        (room[:6], room[6:9, :4], room[9:, :4]),
        (short[:48].reshape(6, 8), short[48:72:2].reshape(3, 4), short[72::2].reshape(3, 4)),
    ):
        assert Frame(*planes, 0, 0, Fraction(1, 25), 0.0).buffer is None


def test_a_small_picture_is_the_average_of_the_large_one():
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[:, 32:] = (250, 120, 40)
    small = of(rgb).rgb((2, 2)).astype(int)
    assert np.abs(small[:, 0]).max() <= 2
    assert np.abs(small[:, 1] - [250, 120, 40]).max() <= 2


def test_time_is_stamp_times_base():
    frame = make_frame(index=3, pts=9000, time_base=Fraction(1, 90000))
    assert frame.pts_seconds == 0.1
    assert repr(frame) == "Frame(64x48, index=3, t=0.100 s)"


def test_a_small_picture_of_a_large_frame_is_its_area_mean():
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 200, (36, 64, 3), dtype=np.uint8)
    large = cv2.resize(coarse, (1280, 720), interpolation=cv2.INTER_CUBIC)
    frame = of(large)
    whole = resize(frame.rgb(), (160, 160)).astype(int)
    difference = np.abs(frame.rgb((160, 160)).astype(int) - whole)
    assert difference.max() <= 6
    assert difference.mean() < 1


@pytest.mark.parametrize("size", [(0, 3), (3, -1)])
def test_a_picture_without_pixels_is_refused(size):
    with pytest.raises(UsageError, match=r"frame of size \(.*\): give \(height, width\)"):
        of(np.zeros((6, 8, 3), np.uint8)).rgb(size)
