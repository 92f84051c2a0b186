"""What goes wrong is told with its cause and its cure, and ends with the right code."""

import errno
import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines import Store
from nem.config import CHECKPOINT
from stream.cli.console import start_console
from stream.errors import SourceError
from stream.sources import open_source
from stream.sources.base import counted
from tests.builders import counted_picture
from tests.stream.cli.support import make_paper_bundle
from tests.stream.cli.test_run import last_line


def test_a_path_that_may_not_be_entered_is_no_bug(cli, monkeypatch):
    def denied(self, exists=Path.exists):
        if "locked" in self.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return exists(self)

    monkeypatch.setattr(Path, "exists", denied)
    code, _, err = cli("train", "--model", "resnet18", "--data", "a.png", "--out", "locked/out")
    assert code == 2
    assert last_line(err).startswith("nem-stream: error: locked/out: Permission denied;")


@pytest.mark.parametrize("locked", [".", "nem.json", "weights.safetensors", "graph.onnx"])
def test_a_bundle_that_may_not_be_read_is_trouble_with_the_bundle(cli, unprivileged, locked):
    folder = make_paper_bundle(unprivileged / "locked")
    (folder / locked).chmod(0)
    code, _, err = cli("bundles", "check", folder)
    folder.chmod(0o700)  # for what tidies up
    assert code == 6
    line = last_line(err)
    assert line.startswith(f"nem-stream: error: bundle {folder}: no permission to read {folder}")
    assert line.endswith(f"; try: chmod -R u+rX {folder}")


@pytest.mark.parametrize("text", ["{", '{"format": 1}', None])
def test_a_broken_manifest_is_told_with_its_cure(cli, tmp_path, text):
    manifest = make_paper_bundle(tmp_path / "bad") / "nem.json"
    whole = manifest.read_text()
    manifest.write_text(text or whole.replace('"input_size":32', '"input_size":"big"'))
    code, _, err = cli("bundles", "check", tmp_path / "bad")
    assert code == 6
    assert last_line(err).endswith("bundle") is (text == '{"format": 1}')
    assert "get the bundle again" in err or "get another bundle" in err


@pytest.mark.parametrize("mode", [0o300, 0o600, 0])
def test_a_pattern_in_a_locked_folder_is_no_wrong_pattern(unprivileged, mode):
    (unprivileged / "locked").mkdir()
    (unprivileged / "locked" / "a.png").touch()
    (unprivileged / "locked").chmod(mode)
    with pytest.raises(SourceError, match="locked: no permission to list it; try: chmod u") as told:
        open_source(str(unprivileged / "locked" / "*.png"))
    (unprivileged / "locked").chmod(0o700)
    assert told.value.exit_code == 3


def notes(err, text):
    return [line for line in err.splitlines() if line == f"note: {text}"]


@pytest.mark.parametrize("clear", [(0, 1, 2), (1, 2), ()])
def test_the_transparency_of_pictures_is_told_once(cli, tmp_path, fake, clear):
    for index in range(4):
        picture = counted_picture(index, 96, 64)
        if index in clear:
            picture = np.dstack([picture, np.full((64, 96), 99, np.uint8)])
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), picture)
    code, _, err = cli(tmp_path, "none", "--scores", "-", *fake)
    assert code == 0
    assert len(notes(err, "transparency ignored")) == (1 if clear else 0)
    _, _, err = cli(tmp_path / "0.png", "none", "--scores", "-", *fake)
    assert last_line(err).startswith("1 frame in, 1 out, ")


def test_a_palette_and_webp_may_be_transparent_too(tmp_path):
    pytest.importorskip("PIL")
    from PIL import Image

    picture = Image.new("RGBA", (32, 32), (9, 9, 9, 99))
    picture.save(tmp_path / "whole.webp", lossless=True)
    picture.save(tmp_path / "lossy.webp")
    picture.quantize(8).save(tmp_path / "palette.png")
    opaque = picture.convert("RGB")
    opaque.save(tmp_path / "opaque.webp", lossless=True)
    opaque.save(tmp_path / "opaque.png")
    for path in sorted(tmp_path.iterdir()):
        with open_source(path) as source:
            told = "transparency ignored" in source.info.notes
            assert told is not path.name.startswith("opaque"), path.name


def test_counts_read_well_in_singular_and_plural():
    assert counted(1, "bad packets skipped") == "1 bad packet skipped"
    assert counted(3, "bad packets skipped") == "3 bad packets skipped"
    assert counted(1, "missing time stamps filled in") == "1 missing time stamp filled in"
    assert counted(1, "file is truncated") == "file is truncated"
    cause = "frames of other colour tags converted to the first"
    assert counted(1, cause) == "1 frame of other colour tags converted to the first"


def test_a_truncated_file_is_no_number_of_them(cli, clip, fake):
    os.truncate(clip, clip.stat().st_size - 40)
    _, _, err = cli(clip, "none", "--scores", "-", *fake)
    assert "file is truncated" in err
    assert "1 file" not in err


def test_a_store_that_can_not_be_used_is_told_of_once(cli, clip, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NEM_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    run = (clip, "none", "--scores", "-", "--engine", "openvino")
    assert cli(*run)[0] == 0  # two calls side by side
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"engine store {Store().folder} not used: ")


def test_a_folder_that_holds_a_training_is_no_place_for_another(cli, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CHECKPOINT).touch()
    train = ("train", "--model", "resnet18", "--data", tmp_path, "--out", tmp_path / "run")
    code, _, err = cli(*train)
    assert code == 2
    assert last_line(err).endswith(
        "run: holds a training; go on with --resume, or give another --out"
    )


@pytest.mark.parametrize("verbose", [0, 1])
def test_warnings_read_as_the_program_s_own(monkeypatch, capsys, verbose):
    monkeypatch.setattr(logging, "root", logging.RootLogger(logging.WARNING))  # without pytest's
    start_console(quiet=False, verbose=verbose)
    own, other = ("nem.logs", "trying again"), ("av.codec", "odd")
    (handler,) = logging.root.handlers
    for name, text in (own, other):
        handler.handle(logging.LogRecord(name, logging.WARNING, "", 1, text, (), None))
    told = "nem.logs: " if verbose else ""
    err = capsys.readouterr().err.splitlines()
    assert err == [
        f"nem-stream: warning: {told}trying again",
        "nem-stream: warning: av.codec: odd",
    ]
