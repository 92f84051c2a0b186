"""Outputs that are closed, full or cut."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import cv2
import pytest

from tests.builders import counted_picture, make_clip
from tests.stream.cli.support import SECONDS, child, command, environment, leave_after_a_line


def shell(line, *arguments, cwd):
    """Run the command, its streams redirected as the shell line says."""
    given = " ".join(f"'{part}'" for part in command(*arguments))
    return child(["bash", "-c", f"{given} {line}"], cwd)


def test_a_video_cut_by_the_reader_of_the_scores_is_no_success(tmp_path, fake):
    clip = make_clip(tmp_path / "clip.mp4", frames=300)
    given = (clip, tmp_path / "o.mp4", "--scores", "-", "-q", *fake)
    line, code, err = leave_after_a_line(*given)
    assert json.loads(line)["frame"] == 0
    assert code == 5
    assert "ended before" in err
    assert "o.mp4.partial" in err
    assert not (tmp_path / "o.mp4").exists()


def test_without_stderr_the_run_goes_on_in_silence(tmp_path, fake):
    make_clip(tmp_path / "clip.mp4", frames=3)
    done = shell("2>&-", "clip.mp4", "none", "--scores", "-", *fake, cwd=tmp_path)
    assert done.returncode == 0
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == [0, 1, 2]


def test_without_stdout_files_are_written_and_scores_refused(tmp_path, fake):
    make_clip(tmp_path / "clip.mp4", frames=3)
    done = shell(">&-", "clip.mp4", "o.mp4", *fake, cwd=tmp_path)
    assert (done.returncode, (tmp_path / "o.mp4").exists()) == (0, True), done.stderr
    done = shell(">&-", "clip.mp4", "none", "--scores", "-", *fake, cwd=tmp_path)
    assert done.returncode == 5
    assert "stdout is closed" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_list_onto_a_full_disk_is_no_success(tmp_path, monkeypatch, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    done = shell(">/dev/full", "bundles", "list", cwd=tmp_path)
    assert done.returncode == 5
    told = "stdout: writing failed: No space left on device; make room, or send it elsewhere"
    assert done.stderr == f"nem-stream: error: {told}\n"


def test_terminated_while_it_works_a_gallery_leaves_nothing(tmp_path, fake):
    folder = tmp_path / "photos"
    folder.mkdir()
    assert cv2.imwrite(str(folder / "0.png"), counted_picture(1, 640, 480))
    for index in range(1, 400):
        (folder / f"{index}.png").hardlink_to(folder / "0.png")
    with subprocess.Popen(
        command("gallery", "build", folder, *fake), env=environment(), stderr=subprocess.PIPE
    ) as process:
        partial = tmp_path / "photos.gallery.safetensors.partial"
        while not partial.exists():
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(0.1)  # 400 pictures take longer, and the file's making is over by then
        process.send_signal(signal.SIGTERM)
        code = process.wait(SECONDS)
    assert code == 143
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]
