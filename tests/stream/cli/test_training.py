"""From pictures to an explained clip, by the command line alone."""

import json

import cv2
import numpy as np
import pytest

from tests.builders import make_clip

pytest.importorskip("torch")


@pytest.mark.slow
@pytest.mark.timeout(600)  # imports torch and lightning, and exports a graph
def test_train_then_use(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("NEM_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(4):
        blob = cv2.GaussianBlur(rng.integers(0, 256, (48, 48, 3), np.uint8), (0, 0), 3)
        assert cv2.imwrite(str(pictures / f"{i}.png"), blob)
    clip = make_clip(tmp_path / "clip.mp4", frames=12)
    out = tmp_path / "run"
    flags = "--model test_resnet --weights none --input-size 64 --batch-size 2 --accumulate 1"
    flags += " --max-steps 2 --every 6 --accelerator cpu --no-progress --name tried"
    command = ["train", *flags.split(), "--out", out, "--data", pictures, clip]
    code, stdout, err = cli(*command)
    assert (code, stdout) == (0, ""), err
    bundle = out / "bundle"
    assert str(bundle) in err
    training = json.loads((bundle / "nem.json").read_text())["training"]
    assert training["data"] == [str(pictures), str(clip)]
    assert training["recipe"]["max_steps"] == 2

    code, _, err = cli(*command)  # not over it
    assert code == 2
    assert "exists already" in err

    assert cli("bundles", "check", bundle)[0] == 0
    code, _, err = cli(clip, "-m", bundle, "--precision", "f32")
    assert code == 0, err
    assert "on openvino cpu f32" in err
    assert "12 frames in, 12 out" in err
