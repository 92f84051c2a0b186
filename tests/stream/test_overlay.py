"""The overlay against a plain float reference in RGB, and what each style promises."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from stream.colour import ColourTags, rgb_to_yuv_matrix, yuv_to_rgb_matrix
from stream.errors import UsageError
from stream.frame import Frame
from stream.overlay import STYLES, Overlay
from tests.builders import make_explanation, make_frame

TAGS = [
    ColourTags(matrix, full_range)
    for matrix in ("bt601", "bt709", "bt2020")
    for full_range in (False, True)
]


def soft_mask(side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    return np.exp(-8 * ((x - 0.4) ** 2 + (y - 0.6) ** 2)).astype(np.float32)[None]


def planes_equal(first: Frame, second: Frame) -> bool:
    return all(np.array_equal(getattr(first, n), getattr(second, n)) for n in "yuv")


def reference(frame: Frame, mask: np.ndarray, style: str, strength: float, colormap: str):
    """Blend in RGB with floats at full size; float (H, W, 3) of Y, U, V."""
    height, width = frame.y.shape
    chroma = [c.repeat(2, 0).repeat(2, 1)[:height, :width] for c in (frame.u, frame.v)]
    yuv = np.dstack([frame.y, *chroma, np.ones_like(frame.y)]).astype(float)
    rgb = yuv @ yuv_to_rgb_matrix(frame.colour).T
    if style == "dim":
        colour, alpha = np.zeros((*mask.shape, 3)), strength * (1 - mask)
    else:
        code = getattr(cv2, f"COLORMAP_{colormap.upper()}")
        levels = np.rint(mask * 255).astype(np.uint8)
        colour = cv2.applyColorMap(levels, code)[..., ::-1].astype(float)
        alpha = strength * mask.astype(float)
    alpha = alpha[..., None]
    tint, alpha = enlarged(colour * alpha, height, width), enlarged(alpha, height, width)
    out = rgb * (1 - alpha) + tint
    return np.dstack([out, np.ones((height, width))]) @ rgb_to_yuv_matrix(frame.colour).T


def enlarged(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """To a picture's size; where its sides are even, 2x2 pixels have one value."""
    if height % 2 or width % 2:
        return cv2.resize(values, (width, height)).reshape(height, width, -1)
    half = cv2.resize(values, (width // 2, height // 2)).reshape(height // 2, width // 2, -1)
    return half.repeat(2, 0).repeat(2, 1)


@pytest.mark.parametrize("tags", TAGS, ids=str)
@pytest.mark.parametrize(
    ("style", "colormap"), [("heat", "inferno"), ("heat", "turbo"), ("dim", "inferno")]
)
@pytest.mark.parametrize("size", [(96, 128), (95, 127)])
def test_tints_like_a_float_blend_in_rgb(tags, style, colormap, size):
    frame = make_frame(*size, index=5, colour=tags)
    mask = soft_mask(32)
    drawn = Overlay(style, colormap=colormap, strength=0.7, label=0)(
        frame, make_explanation(mask=mask)
    )
    expected = reference(frame, mask[0], style, 0.7, colormap)
    assert np.abs(drawn.y - expected[..., 0]).max() <= 3
    assert np.abs(drawn.y - expected[..., 0]).mean() <= 0.7
    for plane, channel in ((drawn.u, 1), (drawn.v, 2)):
        # A chroma sample stands for 2 x 2 pixels; the mean of the reference over them.
        even = np.pad(expected[..., channel], [(0, s % 2) for s in size], mode="edge")
        mean = even.reshape(even.shape[0] // 2, 2, -1, 2).mean((1, 3))
        assert np.abs(plane - mean).max() <= 7
        assert np.abs(plane - mean).mean() <= 1


@pytest.mark.parametrize(("style", "level"), [("heat", 0.0), ("dim", 1.0), ("contour", 0.0)])
def test_leaves_what_is_not_meant_bit_equal(style, level):
    frame = make_frame(240, 320)
    explanation = make_explanation(mask=np.full((1, 16, 16), level))
    explanation = replace(explanation, method="nemt", target=np.array([1]))  # not named either
    assert planes_equal(Overlay(style, label=0)(frame, explanation), frame)
    assert not planes_equal(Overlay(style, label=1)(frame, explanation), frame)


def test_heat_grows_with_the_mask():
    frame = make_frame(rgb=np.full((64, 64, 3), 90, np.uint8))
    mask = np.linspace(0, 1, 64, dtype=np.float32)[None, None].repeat(64, 1)
    drawn = Overlay("heat", label=0)(frame, make_explanation(mask=mask)).rgb().astype(int)
    change = np.abs(drawn - frame.rgb()).sum(2).mean(0)
    assert (np.diff(change) >= -3).all()
    assert change[-1] > 150
    assert change[:3].max() < 15


def test_dim_darkens_and_greys_the_background():
    frame = make_frame(rgb=np.full((32, 32, 3), (200, 40, 40), np.uint8))
    mask = np.zeros((1, 8, 8), np.float32)
    rgb = Overlay("dim", strength=0.5, label=0)(frame, make_explanation(mask=mask)).rgb()
    assert np.abs(rgb.astype(int) - (100, 20, 20)).max() <= 3


def test_contour_lies_on_the_threshold_and_nowhere_else():
    frame = make_frame(240, 240, rgb=np.full((240, 240, 3), 90, np.uint8))
    mask = np.linspace(0, 1, 120, dtype=np.float32)[None, None].repeat(120, 1)
    for threshold in (0.3, 0.7):
        overlay = Overlay("contour", threshold=threshold, strength=1.0, label=0)
        drawn = overlay(frame, make_explanation(mask=mask))
        middle = drawn.y[100:140].astype(int)
        changed = np.flatnonzero((middle != frame.y[100:140]).any(0))
        # The region reaches to the right edge, where its border runs too.
        left = changed[changed < 230]
        assert abs(left.mean() - threshold * 240) <= 2
        assert np.ptp(left) <= 8
        assert middle[:, left].max() > 160
        assert middle[:, left].min() < 40


def test_side_shows_the_untouched_frame_beside_the_heat():
    frame, explanation = make_frame(48, 64), make_explanation()
    drawn = Overlay("side", label=0)(frame, explanation)
    heat = Overlay("heat", label=0)(frame, explanation)
    assert (drawn.height, drawn.width) == (48, 128)
    for name, middle in (("y", 64), ("u", 32), ("v", 32)):
        both = getattr(drawn, name)
        assert np.array_equal(both[:, :middle], getattr(frame, name))
        assert np.array_equal(both[:, middle:], getattr(heat, name))


def test_side_evens_an_odd_width():
    frame = make_frame(31, 33)
    drawn = Overlay("side", label=0)(frame, make_explanation())
    assert (drawn.height, drawn.width) == (31, 68)
    assert np.array_equal(drawn.y[:, 33], frame.y[:, -1])
    assert np.array_equal(drawn.u[:, :17], frame.u)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 1), (5, 3), (17, 400)])
def test_any_size_can_be_drawn(style, size):
    frame = make_frame(*size)
    drawn = Overlay(style)(frame, make_explanation())
    assert drawn.height == size[0]
    assert drawn.width == (2 * (size[1] + size[1] % 2) if style == "side" else size[1])


@pytest.mark.parametrize("style", STYLES)
def test_changes_nothing_it_was_given(style):
    frame, explanation = make_frame(120, 160), make_explanation()
    before = [p.copy() for p in (frame.y, frame.u, frame.v, explanation.mask)]
    for array in (frame.y, frame.u, frame.v, explanation.mask):
        array.setflags(write=False)
    drawn = Overlay(style)(frame, explanation)
    for now, then in zip((frame.y, frame.u, frame.v, explanation.mask), before, strict=True):
        assert np.array_equal(now, then)
    for name in "yuv":
        assert not np.shares_memory(getattr(drawn, name), getattr(frame, name))


def test_keeps_index_times_and_tags():
    tags = ColourTags("bt601", True, 5, 6)
    frame = make_frame(index=7, pts=77, time_base=Fraction(1, 90), captured_at=3.5, colour=tags)
    drawn = Overlay()(frame, make_explanation())
    assert (drawn.index, drawn.pts, drawn.time_base, drawn.captured_at, drawn.colour) == (
        7,
        77,
        Fraction(1, 90),
        3.5,
        tags,
    )


@pytest.mark.parametrize("style", STYLES)
def test_rows_may_be_padded(style):
    frame, explanation = make_frame(50, 70), make_explanation()
    padded = {name: np.pad(getattr(frame, name), ((0, 0), (0, 9)))[:, :-9] for name in "yuv"}
    assert planes_equal(
        Overlay(style)(replace(frame, **padded), explanation), Overlay(style)(frame, explanation)
    )


def test_the_same_call_draws_the_same():
    overlay, frame, explanation = Overlay(), make_frame(120, 160), make_explanation()
    first = overlay(frame, explanation)
    overlay(make_frame(64, 64, colour=ColourTags("bt601", True)), make_explanation(seed=3))
    assert planes_equal(overlay(frame, explanation), first)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"style": "glow"}, "heat, contour, dim, side"),
        ({"colormap": "jet"}, "inferno"),
        ({"strength": 0.0}, "0 < strength <= 1"),
        ({"strength": 1.5}, "1.5"),
        ({"threshold": 1.0}, "0 < threshold < 1"),
        ({"label": -1}, "-1"),
    ],
)
def test_refuses_options_out_of_range(options, said):
    with pytest.raises(UsageError, match=said):
        Overlay(**options)


def test_refuses_explanations_of_several_frames():
    with pytest.raises(ValueError, match=r"\(2, 32, 32\)"):
        Overlay()(make_frame(), make_explanation(batch=2))
