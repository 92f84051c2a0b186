"""What was asked for on the command line reaches what it is about."""

import pytest

from engines import open_engine
from stream.cli import session
from stream.sinks import FileSink, WindowSink, window
from stream.temporal import Smoother
from tests.stream.sinks.fake_screen import FakeScreen


def test_options_reach_the_engine_and_the_video(cli, clip, bundle, monkeypatch):
    told = {}

    def opened(bundle, name, **options):
        told.update(options, engine=name)
        return open_engine(bundle, "fake")

    def sink(path, **options):
        told.update(options)
        return FileSink(path, **options)

    monkeypatch.setattr(session, "open_engine", opened)
    monkeypatch.setattr(session, "FileSink", sink)
    engine = {"engine": "openvino", "device": "cpu", "precision": "int8", "batch": 2}
    video = {"codec": "libx264", "preset": "superfast", "crf": 30}
    flags = [part for name, value in (engine | video).items() for part in (f"--{name}", value)]
    assert cli(clip, "-m", bundle, "--calibrate", clip.parent, *flags)[0] == 0
    wanted = engine | video | {"calibration": clip.parent, "copy_from": clip, "overwrite": False}
    assert {name: told[name] for name in wanted} == wanted


def test_masks_are_smoothed_of_live_sources_or_where_asked_for(
    cli, clip, tmp_path, fake, monkeypatch
):
    pytest.importorskip("skimage")
    made = []

    def smoother():
        made.append(1)
        return Smoother()

    monkeypatch.setattr(session, "Smoother", smoother)
    for source, flags, wanted in (
        (clip, [], 0),
        (clip, ["--smooth"], 1),
        ("demo", ["--frames", 3], 1),
        ("demo", ["--frames", 3, "--no-smooth"], 0),
    ):
        made.clear()
        assert cli(source, tmp_path / "out.mp4", "--overwrite", *flags, *fake)[0] == 0
        assert len(made) == wanted, (source, flags)


@pytest.mark.parametrize("video", ["none", "out.mkv"])
def test_a_window_beside_a_file_keeps_its_pace_and_size(cli, clip, fake, monkeypatch, video):
    seen = {}

    class Spy(WindowSink):
        def __init__(self, title, **options):
            seen.update(options)
            super().__init__(title, **options)

    monkeypatch.setattr(session, "WindowSink", Spy)
    monkeypatch.setattr(window, "Screen", lambda title: FakeScreen(300 * "." + "q"))
    monkeypatch.chdir(clip.parent)
    cli(clip, video, "--show", *fake)
    alone = video == "none"
    assert seen["paced"] is alone
    assert ("side" in {seen["dial"].next_style() for _ in range(5)}) is alone
