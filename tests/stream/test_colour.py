"""Colour matrices against published values, and the guess for untagged video."""

import itertools

import numpy as np
import pytest

from stream.colour import (
    MATRIX_NUMBERS,
    ColourTags,
    matrix_by_size,
    rgb_to_yuv_matrix,
    yuv_to_rgb_matrix,
)

ALL = [ColourTags(m, f) for m in ("bt601", "bt709", "bt2020") for f in (False, True)]


def to_yuv(tags: ColourTags, *rgb: float) -> list[int]:
    return [round(x) for x in rgb_to_yuv_matrix(tags) @ [*rgb, 1.0]]


@pytest.mark.parametrize(
    ("tags", "rgb", "yuv"),
    [
        (ColourTags("bt601"), (255, 0, 0), [81, 90, 240]),
        (ColourTags("bt601"), (0, 255, 0), [145, 54, 34]),
        (ColourTags("bt601"), (0, 0, 255), [41, 240, 110]),
        (ColourTags("bt709"), (255, 0, 0), [63, 102, 240]),
        (ColourTags("bt709"), (0, 255, 0), [173, 42, 26]),
        (ColourTags("bt601", True), (255, 0, 0), [76, 85, 256]),
        (ColourTags("bt2020"), (0, 0, 255), [29, 240, 119]),
    ],
)
def test_primaries_have_their_published_values(tags, rgb, yuv):
    assert to_yuv(tags, *rgb) == yuv


@pytest.mark.parametrize("tags", ALL)
def test_black_and_white_have_no_colour(tags):
    low, high = (0, 255) if tags.full_range else (16, 235)
    assert to_yuv(tags, 0, 0, 0) == [low, 128, 128]
    assert to_yuv(tags, 255, 255, 255) == [high, 128, 128]


@pytest.mark.parametrize("tags", ALL)
def test_the_matrices_are_inverse(tags):
    for rgb in itertools.product((0.0, 100.0, 255.0), repeat=3):
        yuv = rgb_to_yuv_matrix(tags) @ [*rgb, 1.0]
        np.testing.assert_allclose(yuv_to_rgb_matrix(tags) @ [*yuv, 1.0], rgb, atol=1e-9)


def test_a_matrix_is_made_once_and_can_not_be_changed():
    for make in (rgb_to_yuv_matrix, yuv_to_rgb_matrix):
        assert make(ColourTags()) is make(ColourTags())
        with pytest.raises(ValueError, match="read-only"):
            make(ColourTags())[:] = 0


def test_untagged_video_goes_by_its_lines():
    assert matrix_by_size(719) == "bt601"
    assert matrix_by_size(720) == "bt709"


def test_unspecified_has_no_matrix():
    assert 2 not in MATRIX_NUMBERS
    assert MATRIX_NUMBERS[1] == "bt709"
    assert MATRIX_NUMBERS[5] == MATRIX_NUMBERS[6] == "bt601"
