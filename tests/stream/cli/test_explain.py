"""`nem-stream explain`, on a tiny bundle with all heads."""

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra train")

from nem.explanation import AIMS
from tests.builders import make_clip
from tests.nem.toys import tiny_nem, write_tiny_bundle


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


def test_methods_can_be_listed(cli, picture):
    code, out, _ = explain(cli, picture, "--methods", "list")
    assert code == 0
    assert {"nem-u", "nemt", "ra-nem", "relax", "grad-cam"} <= set(out.split())


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("--methods", "nem-v"), 2, "did you mean nem-u"),
        (("--methods", ","), 2, "name at least one"),
        (("--methods", "cam", "--target", "q"), 2, "no class is called so"),
        (("--out", "panel.gif"), 2, "name a picture"),
    ],
)
def test_what_can_not_be_met_leaves_nothing(cli, picture, bundle, arguments, code, reason):
    found, _, err = explain(cli, picture, "-m", bundle, *arguments)
    assert found == code, err
    assert reason in err
    assert [p.name for p in picture.parent.iterdir()] == ["p.png"]


def test_no_picture_is_said_in_one_line(cli, tmp_path, bundle):
    (tmp_path / "no.png").write_bytes(b"nothing")
    code, _, err = explain(cli, tmp_path / "no.png", "--methods", "nem-u", "-m", bundle)
    assert code == 3
    assert "can't be read" in err
