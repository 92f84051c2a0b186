import io
import json
import tarfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from engines import FakeEngine
from scripts import eval_masks
from scripts.eval_masks import (
    COLUMNS,
    centre_gaussian,
    evaluate,
    mean_of,
    object_masks,
    on_object,
)
from tests.builders import make_clip

BUNDLE = SimpleNamespace(manifest=SimpleNamespace(mean=(0.5, 0.5, 0.5)))


def write_masks(path, masks):
    with tarfile.open(path, "w") as archive:
        for number in reversed(range(len(masks))):  # out of order
            raw = cv2.imencode(".png", masks[number].astype(np.uint8))[1].tobytes()
            info = tarfile.TarInfo(f"clip/{number:05d}.png")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))


def test_figures_on_an_object():
    mask = np.zeros((4, 4), np.float32)
    mask[0] = [4, 3, 2, 1]
    truth = np.zeros((4, 4), np.float32)
    truth[0, 0] = truth[0, 1] = truth[1, 0] = 1
    found = on_object(mask, truth)
    assert found == pytest.approx({"mass": 0.7, "rank": 2 / 3, "pointing": 1})
    truth[0, 1] = 0.4  # counts for the mass in part, for the others it is outside
    assert on_object(mask, truth) == pytest.approx({"mass": 0.52, "rank": 0.5, "pointing": 1})
    assert all(np.isnan(value) for value in on_object(mask, 0 * truth).values())


def test_means_leave_out_what_is_not_a_number():
    assert mean_of([1, float("nan"), 2]) == 1.5
    assert np.isnan(mean_of([float("nan")]))


def test_centre_gaussian_is_symmetric_and_highest_in_the_middle():
    gauss = centre_gaussian(9)
    assert np.allclose(gauss, gauss[::-1])
    assert np.allclose(gauss, gauss.T)
    assert gauss.argmax() == 40


def test_object_masks_come_in_frame_order(tmp_path):
    path = tmp_path / "clip.masks.tar"
    write_masks(path, [np.eye(4, 6) * 0 + (np.arange(6) <= n) for n in range(2)])
    masks = object_masks(path)
    assert [int((m == 255).sum()) for m in masks] == [4, 8]


@pytest.fixture
def clip(tmp_path):
    """A bright square, which is the object, moves over black; in the last frame it is gone."""

    def square(index):
        inside = np.zeros((64, 64), bool)
        if index < 5:
            inside[16:32, 16 + 4 * index : 32 + 4 * index] = True
        return inside

    write_masks(tmp_path / "clip.masks.tar", [square(i) for i in range(6)])
    return make_clip(
        tmp_path / "clip.mp4",
        width=64,
        height=64,
        frames=6,
        options={"crf": "5"},
        picture=lambda i: np.where(square(i)[..., None], 220, 16).astype(np.uint8).repeat(3, 2),
    )


def test_a_sequence_is_judged(clip):
    with FakeEngine(input_size=(64, 64)) as engine:
        row, shown = evaluate(engine, BUNDLE, clip, every=2)
    assert tuple(row) == COLUMNS
    # The fake's first map is brightness. The empty frame counts for the area alone.
    assert row["area"] == pytest.approx(5 * 256 / 4096 / 6, abs=1e-3)
    assert row["mass"] > 0.9
    assert row["rank"] > 0.95
    assert row["pointing"] == 1
    assert row["centre"] < 0.2
    assert row["mask_area"] == pytest.approx(row["area"], abs=0.03)
    assert row["gini"] > 0.7
    # 16 x 4 pixels leave and as many are new; at the last step the whole square goes.
    assert row["change"] == pytest.approx((4 * 128 + 256) / 4096 / 5, abs=0.02)
    assert [frame.index for frame, _ in shown] == [1, 4]


def test_each_head_can_be_judged(clip):
    rows = {}
    with FakeEngine(input_size=(64, 64)) as engine:
        for aim in ("embedding", "class", "ranking", "target"):
            rows[aim], shown = evaluate(engine, BUNDLE, clip, 2, aim)
            assert {e.method for _, e in shown} == {
                {"embedding": "nem-u", "class": "nemt", "ranking": "ra-nem",
                 "target": "nemt-target"}[aim]
            }  # fmt: skip
    # The most probable class is the dark ground: its maps lie off the object.
    assert rows["class"]["mass"] < rows["class"]["area"] < rows["embedding"]["mass"]
    assert rows["ranking"]["mask_area"] == pytest.approx(0.5, abs=0.01)
    assert rows["target"]["mass"] == rows["class"]["mass"]


def test_figures_and_sheet_land_in_a_folder_that_is_new(clip, monkeypatch, capsys):
    monkeypatch.setattr(eval_masks, "open_engine", lambda _: FakeEngine(input_size=(64, 64)))
    new = clip.parent / "new"
    arguments = [str(clip.parent), "--sheet", str(new / "sheet"), "--json", str(new / "found.json")]
    monkeypatch.setattr("sys.argv", ["eval_masks", *arguments])
    eval_masks.main()
    assert list(json.loads((new / "found.json").read_text())) == ["clip", "mean"]
    assert cv2.imread(str(new / "sheet")).shape == (270, 4 * 480, 3)
    assert "mass / area" in capsys.readouterr().out
