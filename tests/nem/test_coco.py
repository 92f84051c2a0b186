"""COCO's format: written by hand for what is in it, read from COCO's own where that is at hand."""

import json
import sys

import cv2
import numpy as np
import pytest

from nem.coco import draw_mask, open_coco
from nem.errors import DataError, MissingError

HEIGHT, WIDTH = 6, 8
SQUARE = [[2, 1, 5, 1, 5, 4, 2, 4]]  # columns 2 to 4, rows 1 to 3


def square():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[1:4, 2:5] = True
    return mask


def runs_of(mask):
    """Uncompressed run lengths: down the columns, zeros first."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"counts": [0, *counts] if flat[0] else counts, "size": list(mask.shape)}


def write(folder, annotations, *, name="val2017", images=2, files=2, changes=None):
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / name).mkdir(exist_ok=True)
    for i in range(files):
        picture = np.full((HEIGHT, WIDTH, 3), (0, 0, 200), np.uint8)  # BGR: red
        assert cv2.imwrite(str(folder / name / f"{i}.png"), picture)
    whole = {
        "images": [
            {"id": 10 + i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH}
            for i in range(images)
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 7, "name": "car"}],
        "annotations": annotations,
    } | (changes or {})
    (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(whole))
    return folder


def of(image, category, segmentation, crowd=0):
    return {
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": crowd,
    }


@pytest.fixture
def tool():
    return pytest.importorskip("pycocotools.mask")


def test_polygons_and_runs_draw_the_same(tool):
    size = (HEIGHT, WIDTH)
    compressed = tool.encode(np.asfortranarray(square().astype(np.uint8)))
    text = {"counts": compressed["counts"].decode(), "size": list(size)}
    for segmentation in (SQUARE, runs_of(square()), compressed, text):
        np.testing.assert_array_equal(draw_mask(segmentation, size), square())
    whole = np.ones(size, bool)
    np.testing.assert_array_equal(draw_mask(runs_of(whole), size), whole)


def test_the_parts_of_an_object_are_joined(tool):
    both = [*SQUARE, [6, 4, 8, 4, 8, 6, 6, 6]]
    mask = draw_mask(both, (HEIGHT, WIDTH))
    expected = square()
    expected[4:6, 6:8] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_folder_is_read(tmp_path, tool):
    corner = np.zeros((HEIGHT, WIDTH), bool)
    corner[0, 0] = True
    rows = [of(11, 7, SQUARE), of(10, 1, SQUARE), of(11, 1, runs_of(corner), crowd=1)]
    first, second = open_coco(write(tmp_path, rows))
    assert (first.path.name, second.path.name) == ("0.png", "1.png")
    assert first.pixels().shape == (HEIGHT, WIDTH, 3)
    assert first.pixels()[0, 0].tolist() == [200, 0, 0]
    np.testing.assert_array_equal(second.object_mask(), square() | corner)
    np.testing.assert_array_equal(first.object_mask(), square())


def test_pictures_without_object_or_file_are_left_out(tmp_path):
    rows = [of(10, 1, SQUARE), of(12, 1, SQUARE)]
    (only,) = open_coco(str(write(tmp_path, rows, images=3, files=2)))
    assert only.path.name == "0.png"


def test_of_two_sets_none_is_chosen(tmp_path):
    write(tmp_path, [of(10, 1, SQUARE)], name="val2017")
    write(tmp_path, [of(11, 7, SQUARE)], name="train2017")
    with pytest.raises(
        DataError, match=r"found instances_train2017\.json, instances_val2017\.json"
    ):
        open_coco(tmp_path)


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        [[1, 2, 3]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [["a"] * 6],
        None,
        "text",
        {"size": [HEIGHT, WIDTH]},
        {"counts": [5, 6], "size": [HEIGHT, WIDTH]},
        {"counts": [-2, 50], "size": [HEIGHT, WIDTH]},
        {"counts": [48], "size": [WIDTH, HEIGHT]},
    ],
)
def test_masks_that_cannot_be_drawn_are_refused(tool, segmentation):
    with pytest.raises(DataError, match="can't be drawn"):
        draw_mask(segmentation, (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    "changes",
    [
        {"images": []},
        {"annotations": None},
        {"images": [{"id": 10}]},
        {"annotations": [{"image_id": 10}]},
    ],
)
def test_other_formats_are_refused(tmp_path, changes):
    with pytest.raises(DataError, match="COCO's format"):
        open_coco(write(tmp_path, [of(10, 1, SQUARE)], changes=changes))


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match="found none"):
        open_coco(tmp_path)
    write(tmp_path, [of(10, 1, SQUARE)], files=0)
    with pytest.raises(DataError, match="none of the 2 pictures"):
        open_coco(tmp_path)
    (tmp_path / "annotations" / "instances_val2017.json").write_text("{")
    with pytest.raises(DataError, match="JSONDecodeError"):
        open_coco(tmp_path)


def test_a_picture_of_another_size_is_refused(tmp_path):
    (picture, *_) = open_coco(write(tmp_path, [of(10, 1, SQUARE)]))
    assert cv2.imwrite(str(picture.path), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    with pytest.raises(DataError, match="found 6x8"):
        picture.pixels()
    picture.path.write_bytes(b"")
    with pytest.raises(DataError, match="found no picture"):
        picture.pixels()


def test_the_extra_is_named_where_pycocotools_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(MissingError, match=r"nem-stream\[eval\]"):
        draw_mask(SQUARE, (HEIGHT, WIDTH))


def test_coco_itself(tool, real_data):
    """Masks have the areas that COCO's annotations state."""
    pictures = {int(p.path.stem): p for p in open_coco(real_data / "coco")}
    assert len(pictures) > 10
    file = next((real_data / "coco" / "annotations").glob("instances_*.json"))
    stated, runs = {}, {}
    for row in json.loads(file.read_text())["annotations"]:
        # What is stated of crowds was counted before single objects were cut out of them.
        area = sum(row["segmentation"]["counts"][1::2]) if row["iscrowd"] else row["area"]
        stated.setdefault(row["image_id"], []).append(area)
        runs[row["image_id"]] = runs.get(row["image_id"], False) or row["iscrowd"]
    both = [next(i for i in pictures if runs[i]), *[i for i in pictures if not runs[i]][:4]]
    for number in both:
        picture = pictures[number]
        areas = [draw_mask(one, picture.size).sum() for one in picture.segmentations]
        assert picture.pixels().shape == (*picture.size, 3)
        # The area of a polygon and its number of pixels differ along its outline.
        assert areas == pytest.approx(stated[number], rel=0.1, abs=40)
        assert 0 < picture.object_mask().mean() < 1
