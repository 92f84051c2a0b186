"""`nem-stream explain`, on a tiny bundle with all heads."""

import importlib.util
import re
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra train")

from nem.explanation import AIMS, Explanation
from nem.model import NEM
from stream.cli.explain import _nearest
from tests.builders import make_clip
from tests.nem.toys import tiny_backbone, tiny_nem, write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("b") / "tiny", tiny_nem(aims=AIMS)).path


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), pixels)
    return path


def explain(cli, *arguments):
    return cli("explain", *arguments)


def test_a_panel_has_a_tile_per_method_and_one_for_the_picture(cli, picture, bundle):
    code, out, err = explain(cli, picture, "--methods", "nem-u", "-m", bundle)
    assert (code, out) == (0, "")
    panel = picture.with_suffix(".panel.png")
    one = cv2.imread(str(panel))
    code, _, err = explain(
        cli, picture, "--methods", "nem-u,ra-nem,relax", "--masks", 20, "-m", bundle,
        "--overwrite",
    )  # fmt: skip
    assert code == 0, err
    three = cv2.imread(str(panel))
    assert three.shape[1] == 2 * one.shape[1]
    assert "relax: " in err
    assert "21 forward" in err
    assert str(panel) in err


def test_a_class_goes_to_the_methods_that_take_one(cli, picture, bundle):
    methods = "nem-u,nemt-target,cam,rise"
    code, _, err = explain(
        cli, picture, "--methods", methods, "--target", 3, "--masks", 9, "-m", bundle
    )
    assert code == 0, err
    lines = {line.split(":")[0]: line for line in err.splitlines()}
    for method in ("nemt-target", "cam", "rise"):
        assert re.search(r", d \d+%, alone \d+%$", lines[method]), err
    assert re.search(r"1 forward, area 0\.\d\d, kept \d\.\d\d, random \d\.\d\d$", lines["nem-u"])


@pytest.mark.parametrize(
    ("classes", "aims", "told"),
    [
        (5, ("ranking", "target"), {"ra-nem", "nemt-target", "relax", "grad-cam"}),
        (0, ("embedding",), {"nem-u", "relax"}),
    ],
)
def test_without_names_the_heads_there_are_are_compared(
    cli, tmp_path, picture, classes, aims, told
):
    if "grad-cam" in told:
        pytest.importorskip("pytorch_grad_cam", reason="needs the extra eval")
    model = NEM(tiny_backbone(num_classes=classes), "lite", width=16, aims=aims).eval()
    path = write_tiny_bundle(tmp_path / "one", model, classes=()).path
    code, _, err = explain(cli, picture, "--masks", 9, "-m", path)
    assert code == 0, err
    assert {line.split(":")[0] for line in err.splitlines()} == {*told, "written"}


def test_what_is_missing_for_those_is_told_before_any_is_run(cli, picture, bundle, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if "cam" in name else find(name, *a)
    )
    code, _, err = explain(cli, picture, "-m", bundle)
    assert code == 6
    assert err.startswith("nem-stream: error: method grad-cam needs pytorch_grad_cam, which is not")


def test_relax_says_how_far_it_may_be_off(cli, picture, bundle):
    code, _, err = explain(cli, picture, "--methods", "relax", "--masks", 100, "-m", bundle)
    assert code == 0, err
    assert "101 forward, +-0.33" in err  # 2 sqrt(ln(2 / 0.01) / 200)


def test_iba_takes_what_is_normal_from_a_folder(cli, tmp_path, picture, bundle):
    folder = tmp_path / "normal"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (50, 50, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
    code, _, err = explain(cli, picture, "--methods", "iba", "--statistics", folder, "-m", bundle)
    assert code == 0, err
    assert "iba: " in err


def test_a_gallery_adds_the_nearest_pictures(cli, tmp_path, picture, bundle):
    folder = tmp_path / "pictures" / "noise"
    folder.mkdir(parents=True)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
    kept = tmp_path / "kept.gallery"
    code, _, err = cli(
        "gallery", "build", folder.parent, "-m", bundle, "--engine", "eager", "-o", kept
    )
    assert code == 0, err
    out = tmp_path / "panel.png"
    arguments = (picture, "--methods", "nem-u", "-m", bundle)
    assert explain(cli, *arguments, "-o", out)[0] == 0
    alone = cv2.imread(str(out))
    code, _, err = explain(cli, *arguments, "--gallery", kept, "-o", out, "--overwrite")
    assert code == 0, err
    assert 2 * cv2.imread(str(out)).shape[1] == 5 * alone.shape[1]  # 2 tiles, then 3 more
    other = write_tiny_bundle(tmp_path / "other", tiny_nem("convnext", aims=AIMS)).path
    code, _, err = explain(cli, picture, "--methods", "nem-u", "-m", other, "--gallery", kept)
    assert code == 6, err
    assert not picture.with_suffix(".panel.png").exists()


def test_a_near_picture_in_no_folder_has_a_heading_without_label():
    gallery = MagicMock(embeddings=np.eye(2))
    gallery.__len__.return_value = 2
    gallery.manifest.labels, gallery.manifest.names = ("", "dog"), ("a.png", "dog/b.png")
    found = Explanation(np.zeros((1, 4, 4), np.float32), None, np.eye(2)[:1], (), 0.0)
    assert [tile.title for tile in _nearest(gallery, found)] == ["nearest 1", "nearest 2: dog"]


def test_an_existing_panel_is_kept(cli, picture, bundle):
    panel = picture.with_suffix(".panel.png")
    panel.write_bytes(b"mine")
    code, _, err = explain(cli, picture, "--methods", "nem-u", "-m", bundle)
    assert code == 5
    assert "--overwrite" in err
    assert panel.read_bytes() == b"mine"


def test_a_frame_of_a_video(cli, tmp_path, bundle):
    clip = make_clip(tmp_path / "clip.mp4")
    panel = tmp_path / "panel.jpg"
    code, _, err = explain(cli, clip, "--at", 0.1, "--methods", "nem-u", "-m", bundle, "-o", panel)
    assert code == 0, err
    assert panel.exists()
    code, _, err = explain(
        cli, clip, "--at", 99, "--methods", "nem-u", "-m", bundle, "-o", tmp_path / "late.png"
    )
    assert code == 3
    assert "--at asks for 99" in err
    assert not list(tmp_path.glob("late*"))


def test_methods_can_be_listed_without_a_picture(cli):
    code, out, _ = explain(cli, "--methods", "list")
    assert code == 0
    told = dict(line.split(maxsplit=1) for line in out.splitlines())  # each with what it is
    assert {"nem-u", "nemt", "ra-nem", "relax", "grad-cam"} <= told.keys()


def test_no_picture_is_a_line(cli):
    code, _, err = explain(cli)
    assert code == 2
    assert "no picture; give one" in err


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("--methods", "nem-v"), 2, "did you mean nem-u"),
        (("--methods", ","), 2, "name at least one"),
        (("--methods", "cam", "--target", "q"), 2, "no class is called so"),
        (("--methods", "nem-u,relax", "--target", "1"), 2, "none explains a class that is named"),
        (("--methods", "nem-u,iba"), 2, "--statistics DIR"),
        (("--methods", "iba", "--statistics", "no"), 2, "0 pictures found"),
        (("--methods", "nem-u", "--gallery", "no.gallery"), 3, "no such file"),
        (("--out", "panel.gif"), 2, "name a picture"),
        (("--methods", "nem-u", "--at", "5"), 2, "is a picture"),
        (("--methods", "nem-u", "--at", "-1"), 2, "seconds from the beginning"),
        (("--methods", "nem-u", "--at", "nan"), 2, "seconds from the beginning"),
        (("--methods", "nem-u", "--statistics", "."), 2, "only iba"),
    ],
)
def test_what_can_not_be_met_leaves_nothing(cli, picture, bundle, arguments, code, reason):
    found, _, err = explain(cli, picture, "-m", bundle, *arguments)
    assert found == code, err
    assert reason in err
    assert [p.name for p in picture.parent.iterdir()] == ["p.png"]


def test_the_picture_is_never_written_over(cli, picture, bundle):
    before = picture.read_bytes()
    given = ("--methods", "nem-u", "-m", bundle, "-o", picture, "--overwrite")
    code, _, err = explain(cli, picture, *given)
    assert code == 2
    assert "also the input" in err
    assert picture.read_bytes() == before


def test_a_gallery_is_never_written_over(cli, picture, bundle, tmp_path):
    gallery = tmp_path / "gallery.png"
    gallery.write_bytes(b"a gallery by an odd name")
    given = ("--methods", "nem-u", "-m", bundle, "--gallery", gallery, "-o", gallery)
    code, _, err = explain(cli, picture, *given, "--overwrite")
    assert code == 2
    assert "also the input" in err
    assert gallery.read_bytes() == b"a gallery by an odd name"


def test_of_a_folder_no_picture_is_picked(cli, picture, bundle, tmp_path):
    panel = tmp_path / "panel.png"
    code, _, err = explain(cli, tmp_path, "--methods", "nem-u", "-m", bundle, "-o", panel)
    assert code == 3
    assert "is a folder; give one picture" in err
    assert not panel.exists()


def test_no_picture_is_said_in_one_line(cli, tmp_path, bundle):
    (tmp_path / "no.png").write_bytes(b"nothing")
    code, _, err = explain(cli, tmp_path / "no.png", "--methods", "nem-u", "-m", bundle)
    assert code == 3
    assert "can't be read" in err
