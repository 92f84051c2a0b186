"""Frames on a GPU are frames: what is asked of them comes down, and no more."""

import copy
import pickle
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from stream.colour import ColourTags
from stream.errors import UsageError
from stream.frame import Frame
from stream.gpu_frame import GpuFrame
from stream.overlay import STYLES, Overlay
from stream.temporal import Smoother
from tests.builders import make_explanation, make_frame
from tests.engines.test_surface import taken


@pytest.fixture
def pair() -> tuple[Frame, GpuFrame]:
    """A frame, and the same on a GPU."""
    tags = ColourTags("bt601", True, 5, 6)
    frame = make_frame(120, 160, index=3, time_base=Fraction(1, 90), captured_at=3.5, colour=tags)
    frame = replace(frame, duration=7)
    return frame, GpuFrame(taken(frame), *frame.facts)


def is_down(frame: GpuFrame) -> bool:
    try:
        object.__getattribute__(frame, "y")
    except AttributeError:
        return False
    return True


def test_facts_need_no_planes(pair):
    frame, on_gpu = pair
    assert on_gpu.facts == frame.facts
    assert (on_gpu.width, on_gpu.height, on_gpu.pts_seconds) == (160, 120, frame.pts_seconds)
    assert repr(on_gpu) == repr(frame)
    assert not is_down(on_gpu)


def test_planes_come_down_once(pair):
    frame, on_gpu = pair
    v = on_gpu.v
    for name in "yuv":
        plane = getattr(on_gpu, name)
        np.testing.assert_array_equal(plane, getattr(frame, name))
        assert not plane.flags.writeable
    assert on_gpu.v is v
    with pytest.raises(AttributeError, match="GpuFrame has no colours"):
        _ = on_gpu.colours


def test_a_small_picture_is_made_there(pair):
    frame, on_gpu = pair
    found = on_gpu.rgb((32, 32))
    assert np.abs(found.astype(int) - frame.rgb((32, 32))).max() <= 5
    assert not is_down(on_gpu)
    np.testing.assert_array_equal(on_gpu.rgb(), frame.rgb())


def test_a_size_of_nothing_is_refused_alike(pair):
    for frame in pair:
        with pytest.raises(UsageError, match=r"frame of size \(0, 5\): give"):
            frame.rgb((0, 5))


def test_scene_cuts_are_found_by_a_sample(pair):
    frame, on_gpu = pair
    for one, other in zip(frame.sample(36), on_gpu.sample(36), strict=True):
        np.testing.assert_array_equal(one, other)
    Smoother()(on_gpu, make_explanation())
    assert not is_down(on_gpu)


@pytest.mark.parametrize("label", [0, 3])
@pytest.mark.parametrize("style", STYLES)
def test_drawn_alike_in_every_style(pair, style, label):
    frame, on_gpu = pair
    overlay, explanation = Overlay(style, label=label), make_explanation()
    expected, drawn = overlay(frame, explanation), overlay(on_gpu, explanation)
    stays = style in ("heat", "dim")
    assert isinstance(drawn, GpuFrame) == stays
    assert is_down(on_gpu) != stays
    assert drawn.facts == frame.facts
    for name in "yuv":
        difference = np.abs(getattr(drawn, name).astype(int) - getattr(expected, name))
        assert difference.max() <= (3 if stays else 0)
    if label:  # the strip is bit by bit the same
        strip = overlay(make_frame(120, 160, colour=frame.colour), explanation).y[:10, :40]
        np.testing.assert_array_equal(drawn.y[:10, :40], strip)


def test_other_planes_make_a_plain_frame(pair):
    frame, on_gpu = pair
    plain = replace(on_gpu, y=frame.y, u=frame.u, v=frame.v)
    assert not is_down(on_gpu)
    assert type(plain) is Frame
    assert plain.facts == frame.facts


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))]
)
def test_copies_are_plain_frames(pair, copied):
    """As where frames are sent to another process."""
    frame, on_gpu = pair
    plain = copied(on_gpu)
    assert type(plain) is Frame
    assert plain.facts == frame.facts
    for name in "yuv":
        np.testing.assert_array_equal(getattr(plain, name), getattr(frame, name))


def test_fields_are_replaced_as_of_any_frame(pair):
    """As by who draws with a function of their own."""
    frame, on_gpu = pair
    plain = replace(on_gpu, y=255 - frame.y, pts=77)
    assert type(plain) is Frame
    assert plain.facts == replace(frame, pts=77).facts
    np.testing.assert_array_equal(plain.y, 255 - frame.y)
    np.testing.assert_array_equal(plain.v, frame.v)
