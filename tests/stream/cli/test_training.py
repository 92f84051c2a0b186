"""From pictures to an explained clip, by the command line alone."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from nem.bundle import open_bundle
from tests.builders import make_clip
from tests.stream.cli.support import environment

pytest.importorskip("torch")

from nem.checkpoint import load_tree

TINY = "--model test_resnet --weights none --input-size 64 --batch-size 2 --accumulate 1"
TINY += " --accelerator cpu --no-progress"


def make_pictures(folder):
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(4):
        blob = cv2.GaussianBlur(rng.integers(0, 256, (48, 48, 3), np.uint8), (0, 0), 3)
        assert cv2.imwrite(str(folder / f"{i}.png"), blob)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)  # imports torch and lightning, and exports a graph
def test_train_then_use(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("NEM_CACHE", str(tmp_path / "cache"))
    pictures = make_pictures(tmp_path / "pictures")
    clip = make_clip(tmp_path / "clip.mp4", frames=12)
    out = tmp_path / "run"
    flags = f"{TINY} --max-steps 2 --every 6 --name tried"
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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_train_together(tmp_path):
    pictures, out = make_pictures(tmp_path / "pictures"), tmp_path / "run"
    script = tmp_path / "train.py"  # by a file: Lightning starts it again for the second process
    script.write_text("import sys; from stream.cli import main; sys.exit(main())")
    command = [sys.executable, script, "train", *TINY.split(), "--max-steps", "2", "--epochs", "2"]
    with subprocess.Popen(
        [*map(str, command), "--devices", "2", "--out", str(out), "--data", str(pictures)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            _, err = process.communicate(timeout=200)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # one that waits for the other, too
    assert process.returncode == 0, err
    assert err.count("training lite for test_resnet") == 1
    assert err.count("loss") == 2
    checkpoint = load_tree(out / "last.safetensors")
    assert checkpoint["recipe"]["processes"] == 2
    assert open_bundle(out / "bundle").manifest.training["recipe"]["max_steps"] == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_epoch_is_told(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("engines.export.save_bundle", lambda *_, **__: open_bundle("nem-tiny"))
    pictures = make_pictures(tmp_path / "pictures")
    command = ["train", *TINY.split(), "--epochs", 2, "--data", pictures, "--out"]
    methods = ["--method", "nem-u,nemt,ra-nem,nemt-target"]
    code, stdout, err = cli(*command, tmp_path / "several", *methods)
    assert (code, stdout) == (0, ""), err
    assert "training on 4 pictures\n" in err
    told = [line for line in err.splitlines() if line.startswith("epoch ")]
    number = r"-?\d\.\d\d"
    for epoch, line in enumerate(told, 1):
        assert re.fullmatch(
            rf"epoch {epoch}/2: loss {number}\d \| embedding kept N random N area N \| "
            r"class drop N area N \| ranking kept N \| target drop N area N( absent N)?".replace(
                "N", number
            ),
            line,
        ), line
    assert len(told) == 2
    logged = json.loads((tmp_path / "several" / "log.jsonl").read_text().splitlines()[-1])
    assert f"random {logged['embedding_gauge_control']:.2f} " in told[-1]

    assert cli(*command, tmp_path / "quiet", "-q") == (0, "", "")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_who_stops_the_export_hears_how_to_go_on(cli, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("engines.export.save_bundle", stop)
    pictures = make_pictures(tmp_path / "pictures")
    out = tmp_path / "run"
    command = ["train", *TINY.split(), "--max-steps", 1, "--data", pictures, "--out", out]
    code, _, err = cli(*command)
    assert code == 130
    assert err.endswith("with --resume goes on from the last checkpoint\n")
