from __future__ import annotations

import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest

from nem.explanation import Explanation
from stream import label, letters
from stream.colour import ColourTags
from stream.label import draw_label, drawable, fold, letters_ahead, make_label
from stream.overlay import Overlay
from tests.builders import make_explanation, make_frame

TAGS = ColourTags()


def grey_planes(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    half = ((height + 1) // 2, (width + 1) // 2)
    return (
        np.full((height, width), 120, np.uint8),
        np.full(half, 90, np.uint8),
        np.full(half, 160, np.uint8),
    )


def strip_size(y: np.ndarray) -> tuple[int, int]:
    """Rows and columns from the corner that are not the grey of `grey_planes`."""
    changed = np.argwhere(y != 120)
    return (0, 0) if not len(changed) else tuple(changed.max(0) + 1)


def draw(height, width, entries, tags=TAGS, lead=""):
    planes = grey_planes(height, width)
    draw_label(planes, entries, tags, lead)
    return planes


def test_writes_light_on_dark_and_leaves_the_rest():
    y, u, v = draw(240, 640, [("tabby cat", 0.87)])
    rows, columns = strip_size(y)
    assert 0 < rows < 40
    assert 0 < columns < 320
    strip = y[:rows, :columns]
    assert strip.max() > 160
    assert np.median(strip) < 40
    assert (u[: rows // 2, : columns // 2] == 128).all()
    assert (v[: rows // 2, : columns // 2] == 128).all()
    assert (u[rows // 2 :] == 90).all()
    assert (y[rows:] == 120).all()
    assert (y[:, columns:] == 120).all()


@pytest.mark.parametrize("full_range", [False, True])
def test_ink_is_as_bright_in_both_ranges(full_range):
    tags = ColourTags("bt709", full_range)
    y, u, v = draw(720, 1280, [("cat", 1.0)], tags)
    rows, columns = strip_size(y)
    frame = make_frame(720, 1280, colour=tags)
    y, u, v = frame.y.copy(), frame.u.copy(), frame.v.copy()
    draw_label((y, u, v), [("cat", 1.0)], tags)
    rgb = type(frame)(y, u, v, 0, 0, frame.time_base, 0.0, tags).rgb()[:rows, :columns]
    assert abs(int(rgb.max()) - 240) <= 3
    assert abs(int(rgb.min()) - 16) <= 3


def test_grows_with_the_picture():
    small, large = (strip_size(draw(h, 16 * h // 9, [("cat", 0.5)])[0]) for h in (360, 1080))
    assert large[0] == pytest.approx(3 * small[0], rel=0.2)
    assert large[1] == pytest.approx(3 * small[1], rel=0.2)


def test_an_upright_picture_has_the_letters_of_the_same_one_lying():
    lying, upright = (draw(*size, [("cat", 0.5)])[0] for size in [(720, 1280), (1280, 720)])
    assert strip_size(lying) == strip_size(upright)
    entries = [("cassette_player", 0.5), ("french_horn", 0.3), ("garbage_truck", 0.1)]
    assert not np.array_equal(draw(1920, 1080, entries)[0], draw(1920, 1080, entries[:2])[0])


def test_says_what_it_was_given():
    entries = [("cat", 0.874), ("dog", 0.1)]
    drawn = draw(240, 640, entries, lead="target: dog")[0]
    assert np.array_equal(drawn, draw(240, 640, [], lead="target: dog   cat 87 %   dog 10 %")[0])
    assert not np.array_equal(
        drawn, draw(240, 640, [], lead="target: dog   cat 86 %   dog 10 %")[0]
    )


def test_drops_the_last_classes_where_all_do_not_fit():
    entries = [("first class", 0.6), ("second class", 0.3), ("third class", 0.1)]
    assert np.array_equal(draw(240, 190, entries)[0], draw(240, 190, entries[:2])[0])
    assert not np.array_equal(draw(240, 640, entries)[0], draw(240, 640, entries[:2])[0])


def test_shortens_one_name_that_is_too_long():
    y = draw(120, 160, [("a very long name of a class that no picture is wide enough for", 0.5)])[0]
    assert 80 < strip_size(y)[1] <= 160


def test_says_first_what_is_explained():
    entries = [("cat", 0.6), ("dog", 0.3)]
    wide = draw(240, 640, entries, lead="target: dog")[0]
    assert strip_size(wide)[1] > strip_size(draw(240, 640, entries)[0])[1]
    assert not np.array_equal(wide, draw(240, 640, entries, lead="target: cat")[0])
    # Where not all fit it stays, and the classes give way.
    alone = draw(240, 130, [], lead="target: dog")[0]
    assert strip_size(alone)[1] > 40
    assert np.array_equal(
        draw(240, 130, [("a class of a long name", 0.6)], lead="target: dog")[0], alone
    )


@pytest.mark.parametrize("name", ["dog", "pneumonoultramicroscopic", "one of several long words"])
def test_what_is_explained_is_cut_or_left_out_where_there_is_no_room(name):
    for width in range(20, 200, 12):
        y = draw(96, width, [(name, 0.4)], lead=f"target: {name}")[0]
        columns = strip_size(y)[1]
        assert columns <= width
        if columns == 0:  # not even the class alone
            assert np.array_equal(y, draw(96, width, [(name, 0.4)])[0])
        if width > 150:
            assert columns > 60


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (16, 16), (300, 2), (23, 23)])
def test_tiny_pictures_get_no_label(size):
    y, u, _ = draw(*size, [("class", 0.5)])
    assert (y == 120).all()
    assert (u == 90).all()


def test_no_classes_no_label():
    frame = make_frame(240, 320)
    plain = Overlay(label=0)(frame, make_explanation())
    assert np.array_equal(Overlay(label=3)(frame, make_explanation(classes=0)).y, plain.y)
    assert not np.array_equal(Overlay(label=3)(frame, make_explanation()).y, plain.y)


def test_label_counts_classes():
    scores = np.array([[0.5, 0.3, 0.2]], np.float32)
    explanation = Explanation(
        np.zeros((1, 8, 8), np.float32), scores, np.zeros((1, 4), np.float32), ("a", "b", "c"), 0.0
    )
    frame = make_frame(240, 640)
    one, two = (Overlay(label=n)(frame, explanation).y for n in (1, 2))
    expected = frame.y.copy()
    draw_label((expected, frame.u.copy(), frame.v.copy()), [("a", 0.5)], frame.colour)
    assert np.array_equal(one, expected)
    assert not np.array_equal(one, two)


def test_overlay_says_which_class_is_explained_unless_none_is():
    scores = np.array([[0.5, 0.3, 0.2]], np.float32)
    plain = Explanation(
        np.zeros((1, 8, 8), np.float32), scores, np.zeros((1, 4), np.float32), ("a", "b", "c"), 0.0
    )
    frame = make_frame(240, 640)
    for method, target, lead in (
        ("nem-u", None, ""),
        ("nemt", 0, "class: a"),
        ("ra-nem", 0, "ranking: a"),
        ("nemt-target", 2, "target: c"),
        ("relax", None, ""),
    ):
        number = None if target is None else np.array([target])
        drawn = Overlay(label=1)(frame, replace(plain, method=method, target=number)).y
        expected = frame.y.copy()
        planes = (expected, frame.u.copy(), frame.v.copy())
        draw_label(planes, [("a", 0.5)], frame.colour, lead)
        assert np.array_equal(drawn, expected), method


def test_the_same_text_is_rendered_once(monkeypatch):
    draw(241, 640, [("rendered once", 0.5)])
    monkeypatch.setattr(label.cv2, "putText", None)
    draw(241, 640, [("rendered once", 0.5)])


@pytest.mark.parametrize(
    ("char", "expected"),
    [
        ("é", "e"),
        ("\u0301", ""),
        ("ß", "ss"),
        ("ø", "o"),
        ("Å", "A"),
        ("ﬁ", "fi"),
        ("猫", "U+732B"),
        ("🐈", "U+1F408"),
    ],
)
def test_folds_to_ascii(char, expected):
    assert fold(char) == expected


def test_what_can_be_drawn_is_left_alone():
    assert drawable("tabby cat, 87 %~") == "tabby cat, 87 %~"


@pytest.mark.parametrize("char", ["é", "猫", "ß", "ي", "🐈", "\t", "\u0301", "K"])
def test_no_name_becomes_question_marks(char):
    """What is left in the text is drawn as something else than OpenCV's sign for unknown."""
    drawable_form = drawable(char)
    for shown in drawable_form:
        image, unknown = np.zeros((2, 64, 64), np.uint8)
        cv2.putText(image, shown, (8, 40), letters.FONT, 1, 255, 1)
        cv2.putText(unknown, "?", (8, 40), letters.FONT, 1, 255, 1)
        assert not np.array_equal(image, unknown)
    assert "?" not in drawable_form


def test_folds_where_opencv_draws_ascii_only(monkeypatch):
    real = cv2.putText

    def ascii_only(image, text, *rest):
        return real(image, text.encode("ascii", "replace").decode(), *rest)

    monkeypatch.setattr(label.cv2, "putText", ascii_only)
    label._drawable.cache_clear()
    assert drawable("café 猫") == "cafe U+732B"
    label._drawable.cache_clear()


def test_half_characters_of_a_file_name_become_question_marks():
    assert drawable("caf\udce9.mp4") == "caf?.mp4"


def test_letters_drawn_ahead_are_those_of_the_label(monkeypatch):
    """So no font is loaded while frames wait."""
    height, width = 1111, 1999  # of no other test
    with letters_ahead(height, width):
        pass
    for name in ("getTextSize", "putText"):
        monkeypatch.setattr(letters.cv2, name, None)
    strip = make_label((height, width), [("cat", 0.93)], TAGS, "target: cat")
    assert strip is not None
    assert np.ptp(strip[0]) > 150


def test_no_thread_is_left_of_drawing_ahead():
    with pytest.raises(RuntimeError, match="engine"), letters_ahead(1113, 1113):
        raise RuntimeError("engine")
    assert not [t for t in threading.enumerate() if t.name == "nem-letters"]
