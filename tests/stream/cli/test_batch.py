"""Of a file several frames and one head are computed; where somebody looks on, one and all."""

import json

import pytest

from engines import file_batch, open_engine
from nem.explanation import AIMS
from stream.cli import session
from stream.sinks import window
from tests.stream.cli.test_run import indices
from tests.stream.sinks.fake_screen import FakeScreen


def test_a_file_is_computed_in_batches_where_nobody_looks_on(cli, clip, monkeypatch):
    """What is shown, or comes from a camera, is computed frame by frame, with heads to turn to."""
    pytest.importorskip("skimage")
    asked = []

    def open_recorded(*given, **options):
        engine = open_engine(*given, **options)
        asked.append((engine.batch, engine.aims))
        return engine

    monkeypatch.setattr(session, "open_engine", open_recorded)
    monkeypatch.setattr(window, "Screen", lambda title: FakeScreen(300 * "." + "q"))
    flags = ["--engine", "openvino", "--label", 0, "--style", "contour", "--strength", 0.01]
    scores = clip.with_name("scores.jsonl")
    assert cli(clip, clip.with_name("a.mp4"), "--scores", scores, *flags)[0] == 0
    assert cli(clip, "none", "--show", *flags)[0] in (0, 130)
    assert cli("demo", clip.with_name("b.mp4"), "--frames", 3, *flags)[0] == 0
    assert cli(clip, clip.with_name("c.mp4"), "--batch", 3, *flags)[0] == 0
    assert cli(clip, clip.with_name("d.mp4"), "--explain", "class", *flags)[0] == 0
    assert cli(clip, clip.with_name("e.mp4"), "--target", "dog", *flags)[0] == 0
    quick = file_batch("openvino")
    assert quick > 1
    assert asked == [
        (quick, ("embedding",)),
        (1, AIMS),
        (1, AIMS),
        (3, ("embedding",)),
        (quick, ("class",)),
        (quick, ("target",)),
    ]
    lines = [json.loads(line) for line in scores.read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(20))
    assert indices(clip.with_name("a.mp4")) == indices(clip)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["clip.mp4", "--batch", 0], "--batch"),
        (["clip.mp4", "--batch", 65], "--batch"),
        (
            ["clip.mp4", "none", "--show", "--batch", 4],
            "--batch 4: frames of a camera, or in a window, are computed one by one; leave it out",
        ),
        (["demo", "out.mp4", "--batch", 4], "--batch 4: frames of a camera"),
    ],
)
def test_a_batch_that_can_not_be_is_told(cli, clip, monkeypatch, arguments, told):
    pytest.importorskip("skimage")
    monkeypatch.chdir(clip.parent)
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert told in line
    assert [path.name for path in clip.parent.iterdir()] == ["clip.mp4"]
