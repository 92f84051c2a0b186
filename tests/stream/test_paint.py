"""The contour's colour, opacity and place to the pixel, and tints of odd sizes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from stream.colour import ColourTags
from stream.frame import Frame
from stream.overlay import Overlay
from stream.paint import tint
from stream.palette import dim_tints, heat_tints
from tests.builders import make_explanation, make_frame

GREY = 90
HEAT = heat_tints("turbo", 0.9, ColourTags())


def contour(mask: np.ndarray, side: int = 960, tags: ColourTags | None = None, **look) -> Frame:
    """The contour of a mask of ones and zeros, (S, S), on a grey picture."""
    frame = make_frame(rgb=np.full((side, side, 3), GREY, np.uint8), colour=tags)
    explanation = make_explanation(mask=mask[None].astype(np.float32))
    return Overlay("contour", label=0, **look)(frame, explanation)


def right_half(side: int = 60) -> np.ndarray:
    return np.arange(side)[None].repeat(side, 0) >= side // 2


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("tags", [ColourTags("bt601", True), ColourTags("bt709"), None], ids=str)
def test_the_line_is_yellow_within_black_and_as_opaque_as_asked(tags, strength):
    drawn = contour(right_half(), tags=tags, strength=strength)
    across = drawn.rgb()[480, 440:520].astype(int)
    expected = [strength * np.array(c) + (1 - strength) * GREY for c in [(255, 225, 0), (0, 0, 0)]]
    middle = np.abs(across - expected[0]).sum(1).argmin()
    assert np.abs(across[middle] - expected[0]).max() <= 4
    for beside in (across[middle - 6 : middle], across[middle + 1 : middle + 7]):
        # Luma is exact there; some of the line's colour lies in the same samples of chroma.
        assert np.abs(beside.mean(1) - expected[1].mean()).min() < 12
    assert (np.abs(across[[0, -1]] - GREY) <= 2).all()


def test_the_line_lies_alike_on_both_sides_of_a_mask():
    places = []
    for mask in (right_half(), right_half()[:, ::-1]):
        drawn = contour(mask)
        change = np.abs(drawn.y[480, 400:560].astype(float) - drawn.y[480, 200])
        places.append(400 + (np.arange(160) * change).sum() / change.sum())
        # Chroma lies under luma: sample i is over the pixels 2i and 2i + 1.
        colour = np.abs(drawn.u[240, 200:280].astype(float) - 128)
        place = 2 * (200 + (np.arange(80) * colour).sum() / colour.sum()) + 0.5
        assert place == pytest.approx(places[-1], abs=0.25)
    assert sum(places) == pytest.approx(959, abs=0.1)


def test_the_border_of_a_hole_is_drawn_too():
    mask = np.zeros((60, 60), bool)
    mask[10:50, 10:50] = True
    mask[25:35, 25:35] = False
    row = contour(mask, strength=1.0).y[480].astype(int)
    lines = np.flatnonzero(np.diff((row > 150).astype(int)) == 1)
    assert len(lines) == 4


def test_where_the_mask_is_nothing_even_the_lowest_threshold_draws_nothing():
    drawn = contour(np.zeros((60, 60)), threshold=0.001)
    assert np.ptp(drawn.y) == np.ptp(drawn.u) == np.ptp(drawn.v) == 0


def test_of_an_odd_size_colour_is_tinted_where_brightness_is():
    frame = make_frame(rgb=np.full((5, 5, 3), (200, 40, 40), np.uint8))
    mask = np.ones((1, 5, 5), np.float32)
    mask[..., :2] = 0
    drawn = Overlay("dim", strength=1.0, label=0)(frame, make_explanation(mask=mask))
    for name, black in (("y", 16), ("u", 128), ("v", 128)):
        hidden = 2 if name == "y" else 1  # pixels, and the sample that lies over them
        plane, before = getattr(drawn, name), getattr(frame, name)
        assert (plane[:, :hidden] == black).all()
        assert np.array_equal(plane[:, hidden:], before[:, hidden:])


def spots(side: int, *places: tuple[int, int, int]) -> np.ndarray:
    """Mask levels of nothing but some squares: row, column and width of each."""
    draw = np.random.default_rng(side)
    levels = np.zeros((side, side), np.uint8)
    for row, column, width in places:
        levels[row : row + width, column : column + width] = draw.integers(1, 256)
    return levels


@pytest.mark.parametrize("size", [(720, 1280), (480, 854), (90, 60), (95, 127), (96, 127), (31, 9)])
@pytest.mark.parametrize(
    "places", [((30, 70, 4), (60, 90, 9)), ((0, 0, 1),), ((159, 159, 1),), ((5, 0, 155),)], ids=str
)
@pytest.mark.parametrize("style", ["heat", "dim"])
def test_a_part_is_drawn_as_with_the_whole(size, places, style):
    """Only what the mask covers is computed; the rest is copied."""
    frame = make_frame(*size)
    planes, levels = (frame.y, frame.u, frame.v), spots(160, *places)
    tints = HEAT if style == "heat" else dim_tints(0.9, frame.colour)
    drawn = tint(planes, levels, tints)
    whole = replace(tints, changes=np.ones(256, np.uint8))
    for found, expected in zip(drawn, tint(planes, levels, whole), strict=True):
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_beside_a_spot_nothing_changes():
    frame = make_frame(720, 1280)
    tints = heat_tints("inferno", 0.65, frame.colour)
    planes = frame.y, frame.u, frame.v
    drawn = tint(planes, spots(160, (80, 40, 8)), tints)
    # A value covers 4.5 rows and 8 columns, and is blended into its neighbours.
    for step, (before, after) in zip((1, 2, 2), zip(planes, drawn, strict=True), strict=True):
        rows, columns = np.nonzero(before != after)
        assert 355 // step <= rows.min() <= rows.max() <= 401 // step
        assert 312 // step <= columns.min() <= columns.max() <= 392 // step


@pytest.mark.parametrize(("size", "shared"), [((64, 64), True), ((62, 64), False)])
def test_pixels_of_one_colour_share_a_level_where_the_mask_is_coarse(size, shared):
    draw = np.random.default_rng(1)
    levels = cv2.resize(draw.integers(0, 256, (8, 8)).astype(np.uint8), (32, 32))
    frame = make_frame(rgb=np.full((*size, 3), GREY, np.uint8))
    y, u, _ = tint((frame.y, frame.u, frame.v), levels, heat_tints("hot", 1.0, frame.colour))
    squares = y.reshape(size[0] // 2, 2, -1, 2)
    assert (np.ptp(squares, axis=(1, 3)) == 0).all() == shared
    assert u.shape == (size[0] // 2, size[1] // 2)
