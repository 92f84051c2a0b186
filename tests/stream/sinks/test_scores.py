from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import deque
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from nem.explanation import Explanation
from stream.errors import SinkError, UsageError
from stream.sinks import ScoresSink
from stream.sinks.scores import score_line
from tests.builders import make_explanation, make_frame
from tests.stream.cli.support import environment
from tests.stream.sinks.reading import names


def explanation() -> Explanation:
    mask = np.zeros((1, 10, 10), np.float32)
    mask[0, :2] = 1
    mask[0, 2] = 0.5
    scores = np.array([[0.1, 0.7, 0.2]], np.float32)
    embedding = np.array([[1.5, -0.25]], np.float32)
    return Explanation(mask, scores, embedding, ("a", "猫", "c"), 0.01)


def test_a_line_says_what_was_seen():
    frame = make_frame(index=12, pts=25, time_base=Fraction(1, 50))
    assert json.loads(score_line(frame, explanation())) == {
        "schema": 1,
        "frame": 12,
        "seconds": 0.5,
        "mask_mean": 0.25,
        "mask_area": 0.3,
        "explain": "embedding",
        "target": None,
        "top": [
            {"name": "猫", "score": 0.7},
            {"name": "c", "score": 0.2},
            {"name": "a", "score": 0.1},
        ],
    }


def test_a_line_names_the_class_that_is_explained():
    shown = replace(explanation(), method="nemt-target", target=np.array([1]))
    line = json.loads(score_line(make_frame(), shown))
    assert (line["explain"], line["target"]) == ("target", "猫")


@pytest.mark.parametrize("file", ["shots/ä 1.png", "shots/\udcff.png"])
def test_a_line_tells_of_which_picture_it_is(capsysbinary, file):
    """The second name is of bytes that are no text, as the system may give them."""
    ScoresSink("-").write(replace(make_frame(), file=file), explanation())
    assert json.loads(capsysbinary.readouterr().out.decode())["file"] == file


def test_names_are_written_as_they_are_and_five_of_them():
    line = score_line(make_frame(), explanation())
    assert '"name": "猫"' in line
    assert len(json.loads(score_line(make_frame(), make_explanation(classes=9)))["top"]) == 5


def test_times_are_told_to_the_microsecond():
    frame = make_frame(pts=1, time_base=Fraction(1, 90_000))
    assert json.loads(score_line(frame, explanation()))["seconds"] == 0.000011


def test_what_is_no_number_is_null():
    shown = explanation()
    shown.mask[0, 0, 0], shown.scores[0, 0] = np.nan, np.inf
    line = json.loads(score_line(make_frame(), shown), parse_constant=pytest.fail)
    assert line["mask_mean"] is None
    assert line["top"][0] == {"name": "a", "score": None}


def test_classes_only_if_any():
    line = json.loads(score_line(make_frame(), make_explanation(classes=0)))
    assert line["top"] == []


def test_one_line_per_frame_flushed_as_it_comes(tmp_path):
    sink = ScoresSink(tmp_path / "s.jsonl")
    for index in range(3):
        sink.write(make_frame(index=index), make_explanation())
        lines = (tmp_path / "s.jsonl.partial").read_text("utf-8").splitlines()
        assert [json.loads(line)["frame"] for line in lines] == list(range(index + 1))
    sink.close()
    assert names(tmp_path) == ["s.jsonl"]


def test_stdout(capsysbinary):
    sink = ScoresSink("-")
    sink.write(make_frame(index=4), explanation())
    assert json.loads(capsysbinary.readouterr().out)["frame"] == 4
    sink.close()


def test_stdout_stays_open(capsys):
    with ScoresSink("-"):
        pass
    assert not sys.stdout.closed


@pytest.mark.skipif(sys.platform == "win32", reason="pipes always wait there")
def test_an_unbuffered_stdout_that_takes_no_more_is_an_error(monkeypatch):
    """As with PYTHONUNBUFFERED: Python itself then drops what a pipe or disk does not take."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(reader, "rb") as taken, io.FileIO(writer, "w") as raw:
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, write_through=True))
        sink, frames = ScoresSink("-"), map(lambda index: make_frame(index=index), range(10_000))
        with pytest.raises(
            SinkError, match=r"stdout: writing scores failed: Resource .*; make room"
        ):
            deque(sink.write(frame, make_explanation()) for frame in frames)
        raw.close()
        lines = taken.read().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(next(frames).index - 1))


def test_a_reader_that_leaves_is_a_clean_end():
    """`nem-stream ... | head -1`: no error, no traceback, exit code 0."""
    program = (
        "from tests.builders import make_frame, make_explanation\n"
        "from stream.sinks.scores import ScoresSink\n"
        "sink, frames = ScoresSink('-'), 0\n"
        "while not sink.stop_requested() and frames < 100_000:\n"
        "    sink.write(make_frame(index=frames), make_explanation()); frames += 1\n"
        "assert frames < 100_000\n"
        "sink.write(make_frame(), make_explanation())\n"
        "sink.close()\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert run.stdout is not None
    assert json.loads(run.stdout.readline())["frame"] == 0
    run.stdout.close()
    assert run.stderr is not None
    assert run.stderr.read() == b""
    assert run.wait(60) == 0
    run.stderr.close()


def test_an_input_is_not_written_over(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"video")
    with pytest.raises(UsageError, match="also the input"):
        ScoresSink(clip, overwrite=True, inputs=[clip])
    assert clip.read_bytes() == b"video"


def test_a_name_that_promises_a_table_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"JSON lines are written, not \.csv; use \.jsonl"):
        ScoresSink(tmp_path / "scores.CSV")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lines", [0, 1])
def test_a_full_disk_is_told_in_one_line(tmp_path, lines):
    class Full(io.BytesIO):
        def write(self, _data):
            raise OSError(28, os.strerror(28))

    sink = ScoresSink(tmp_path / "s.jsonl")
    for _ in range(lines):
        sink.write(make_frame(), make_explanation())
    sink._output.file.close()
    sink._output.file = Full()
    with pytest.raises(OSError, match="No space left on device") as error:
        sink.write(make_frame(), make_explanation())
    sink.close(whole=False)
    assert names(tmp_path) == ["s.jsonl.partial"] * lines
    assert ("stays in s.jsonl.partial" in str(error.value)) == bool(lines)


def test_a_closed_stdout_is_refused(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(SinkError, match="stdout is closed"):
        ScoresSink("-")
