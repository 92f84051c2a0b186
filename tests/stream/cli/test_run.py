import json
import re

import av
import cv2
import pytest

from stream.cli.entry import with_command
from tests.builders import DATA, counted_picture, make_clip, read_index


def indices(path):
    with av.open(str(path)) as container:
        return [read_index(frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]


def last_line(text):
    return text.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["clip.mp4"], ["run", "clip.mp4"]),
        (["run", "clip.mp4"], ["run", "clip.mp4"]),
        (["--camera", "0"], ["run", "--camera", "0"]),
        (["-v", "clip.mp4"], ["run", "-v", "clip.mp4"]),
        (["demo"], ["run", "demo"]),
        (["./train"], ["run", "./train"]),
        (["train", "--data", "x"], ["train", "--data", "x"]),
        (["doctor"], ["doctor"]),
        (["--version"], ["--version"]),
        (["--help"], ["run", "--help"]),
        ([], ["run", "--help"]),
    ],
)
def test_the_word_run_may_be_left_out(given, read):
    assert with_command(given) == read


def test_a_clip_gets_its_explained_clip_beside_it(cli, clip, fake):
    code, out, err = cli(clip, *fake, "--label", 0, "--style", "contour", "--strength", 0.01)
    assert (code, out) == (0, "")
    output = clip.with_name("clip.nem.mp4")
    assert indices(output) == list(range(20))
    lines = err.strip().splitlines()
    source = f"{clip}: h264 by the CPU, 96x64 25 fps, all frames | "
    assert lines[0].startswith(source)
    assert lines[0].endswith(f"on fake cpu f32, explains embedding | to {output}")
    told = r"20 frames in, 20 out, 0 dropped; [\d.]+ fps, age p50/p95/p99 \d+/\d+/\d+ ms; .* MB"
    assert re.match(told, lines[-1])
    assert sorted(path.name for path in clip.parent.iterdir()) == ["clip.mp4", "clip.nem.mp4"]


def test_sound_is_copied(cli, clip, fake):
    output = clip.with_name("out.mkv")
    assert cli(clip, output, *fake)[0] == 0
    packets = []
    for path in (clip, output):
        with av.open(str(path)) as container:
            packets.append([bytes(p) for p in container.demux(audio=0) if p.size])
    assert packets[0] == packets[1] != []


@pytest.mark.parametrize("places", [("-s", "{clip}", "-o"), ("-s", "{clip}"), ("{clip}", "-o")])
def test_places_may_be_flags(cli, clip, fake, places):
    output = clip.with_name("other.mkv")
    assert cli(*(p.format(clip=clip) for p in places), output, *fake)[0] == 0
    assert output.exists()


def test_an_output_is_only_replaced_when_asked(cli, clip, fake):
    output = clip.with_name("clip.nem.mp4")
    output.write_bytes(b"precious")
    code, _, err = cli(clip, *fake)
    assert code == 5
    assert "already exists; pass --overwrite" in last_line(err)
    assert output.read_bytes() == b"precious"
    assert cli(clip, *fake, "--overwrite")[0] == 0
    assert len(indices(output)) == 20


def test_scores_go_to_a_file_and_no_video_is_written(cli, clip, fake):
    scores = clip.with_name("scores.jsonl")
    code, out, err = cli(clip, "-o", "none", "--scores", scores, *fake)
    assert (code, out) == (0, "")
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(20))
    assert str(scores) in last_line(err)
    assert not clip.with_name("clip.nem.mp4").exists()


def test_quiet_says_nothing_and_verbose_more(cli, clip, fake):
    assert cli(clip, *fake, "-q") == (0, "", "")
    _, _, err = cli(clip, *fake, "--overwrite", "-v")
    assert "infer: 20 x" in err


def test_pictures_become_a_video(cli, tmp_path, fake):
    for i in range(3):
        assert cv2.imwrite(str(tmp_path / f"p{i}.png"), counted_picture(i, 96, 64))
    output = tmp_path / "out.mp4"
    assert cli(tmp_path, output, "--fps", 5, *fake)[0] == 0
    with av.open(str(output)) as container:
        assert [float(f.time) for f in container.decode(video=0)] == [0, 0.2, 0.4]
    code, _, err = cli(tmp_path / "p0.png", *fake)
    assert code == 2
    assert "no name for the output" in last_line(err)


def broken_file(path):
    path.write_bytes(b"not a video " * 100)
    return path


def empty_file(path):
    path.write_bytes(b"")
    return path


CASES = {
    "misspelled command": (2, "did you mean nem-stream bundles?", lambda t: ["bundle"]),
    "missing file": (3, "no such file", lambda t: [t / "none.mp4"]),
    "not a video": (3, "not a video", lambda t: [broken_file(t / "x.mp4")]),
    "empty": (3, "empty", lambda t: [empty_file(t / "x.mp4")]),
    "no camera": (3, "camera 97", lambda t: ["--camera", 97]),
    "camera without a name": (2, "--camera: names none; give a number", lambda t: ["--camera", ""]),
    "no camera by path": (3, "video97", lambda t: ["--camera", "video97"]),
    "unknown option": (2, "--frob", lambda t: ["--frob"]),
    "unknown style": (2, "style", lambda t: [t / "c.mp4", "--style", "pink"]),
    "bad strength": (2, "strength", lambda t: [t / "c.mp4", "--strength", 7]),
    "bad label": (2, "label", lambda t: [t / "c.mp4", "--label", -1]),
    "not a number": (2, "label", lambda t: [t / "c.mp4", "--label", "x"]),
    "bad size": (2, "WIDTHxHEIGHT", lambda t: ["demo", "--size", "big"]),
    "useless option": (2, "frames", lambda t: [t / "c.mp4", "--frames", 3]),
    "two sources": (2, "two sources", lambda t: ["a", "b", "-s", "c"]),
    "source and camera": (2, "exclude", lambda t: ["--camera", 0, "-s", "c"]),
    "two outputs": (2, "two outputs", lambda t: ["a", "b", "-o", "c"]),
    "three places": (2, "unexpected", lambda t: ["a", "b", "c"]),
    "no source": (2, "no source", lambda t: ["-q"]),
    "video to stdout": (2, "stdout", lambda t: [t / "c.mp4", "-o", "-"]),
    "encoding without a video": (
        2,
        "--codec, --crf",
        lambda t: [t / "c.mp4", "none", "--scores", "-", "--codec", "libx264", "--crf", 5],
    ),
    "quiet and verbose": (2, "exclude each other", lambda t: [t / "c.mp4", "-q", "-v"]),
    "scores without a name": (2, "names no file", lambda t: [t / "c.mp4", "--scores", ""]),
    "one name for two": (
        2,
        "give two names",
        lambda t: [t / "c.mp4", t / "o.mp4", "--scores", t / ".." / t.name / "o.mp4"],
    ),
    "too large": (2, "16384 pixels a side", lambda t: ["demo", "--size", "100000x100000"]),
    "nothing to do": (2, "nothing would come out", lambda t: [t / "c.mp4", "-o", "none"]),
    "output is input": (2, "input", lambda t: [t / "c.mp4", t / "c.mp4", "--overwrite"]),
    "scores are input": (
        2,
        "input",
        lambda t: [t / "c.mp4", "none", "--scores", t / "c.mp4", "--overwrite"],
    ),
    "unknown suffix": (2, ".mp4", lambda t: [t / "c.mp4", t / "o.xyz"]),
    "unknown encoder": (2, "x999", lambda t: [t / "c.mp4", "--codec", "x999"]),
    "no directory": (5, "no directory", lambda t: [t / "c.mp4", t / "no" / "o.mp4"]),
    "no display": (5, "no display", lambda t: [t / "c.mp4", "-o", "none", "--show"]),
    "unknown bundle": (6, "no bundle called", lambda t: [t / "c.mp4", "-m", "nonesuch"]),
    "unknown engine": (2, "no engine called", lambda t: [t / "c.mp4", "--engine", "warp"]),
    "unknown precision": (2, "precision", lambda t: [t / "c.mp4", "--precision", "int3"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_can_not_be_done_is_one_line_and_a_code(cli, tmp_path, fake, case):
    code, say, arguments = CASES[case]
    make_clip(tmp_path / "c.mp4", frames=2)
    given = arguments(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    flags = [f for f in fake if "-m" not in given or f not in ("--model", fake[1])]
    if "--engine" in given:
        flags = fake[:2]
    got, out, err = cli(*flags, *given)
    assert (got, out) == (code, "")
    lines = err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("nem-stream: error: ")
    assert say in lines[0]
    assert "Traceback" not in err
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before  # nothing half-written


def test_no_picture_that_is_read_is_written_over(cli, tmp_path, fake):
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), counted_picture(0, 96, 64))
    before = (tmp_path / "b.png").read_bytes()
    scores = ("none", "--scores", tmp_path / "b.png", "--overwrite")
    for source in (tmp_path, tmp_path / "*.png", tmp_path / "b.png"):
        code, _, err = cli(source, *scores, *fake)
        assert code == 2
        assert "is also the input" in last_line(err)
    assert (tmp_path / "b.png").read_bytes() == before


def test_a_camera_without_display_or_output_says_what_to_do(cli, fake):
    pytest.importorskip("skimage")
    code, _, err = cli("demo", *fake)
    assert code == 5
    assert "no display" in last_line(err)
    assert "-o out.mp4" in last_line(err)
    code, _, err = cli("demo", "--headless", *fake)
    assert code == 2
    assert "give an OUTPUT, --scores or --show" in last_line(err)


def test_the_demo_can_be_recorded(cli, tmp_path, fake):
    pytest.importorskip("skimage")
    output = tmp_path / "demo.mp4"
    code, _, err = cli("demo", output, "--frames", 8, "--size", "160x120", "--fps", 100, *fake)
    assert code == 0
    assert "live, newest frame" in err
    frames_out = int(last_line(err).split(" out")[0].split()[-1])
    with av.open(str(output)) as container:
        assert sum(1 for _ in container.decode(video=0)) == frames_out


def test_a_failing_engine_leaves_nothing_that_looks_whole(cli, clip, fake, monkeypatch):
    from engines import EngineError, FakeEngine

    def fail(self, frames, aim, classes):
        if self._frames == 10:
            raise EngineError("engine fake: broke\nin two lines")
        self._frames += 1
        return FakeEngine.honest_run(self, frames, aim, classes)

    monkeypatch.setattr(FakeEngine, "honest_run", FakeEngine._run, raising=False)
    monkeypatch.setattr(FakeEngine, "_run", fail)
    code, _, err = cli(clip, *fake)
    assert code == 6
    assert last_line(err) == "nem-stream: error: engine fake: broke in two lines"
    assert not clip.with_name("clip.nem.mp4").exists()
    partial = clip.with_name("clip.nem.mp4.partial")
    assert partial.exists() == (f"kept: {partial}" in err)


def test_tracebacks_need_two_v(cli, clip, fake, monkeypatch):
    from engines import FakeEngine

    def bug(self, frames, aim, classes):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(FakeEngine, "_run", bug)
    code, _, err = cli(clip, *fake)
    assert code == 1
    assert "internal error: ZeroDivisionError: a bug; run again with -vv" in last_line(err)
    assert "Traceback" not in err
    code, _, err = cli(clip, *fake, "--overwrite", "-vv")
    assert code == 1
    assert "Traceback" in err


def test_nothing_asked_is_help_and_a_usage_code(cli):
    code, out, err = cli()
    assert (code, out) == (2, "")
    assert "Usage" in err


def test_version(cli):
    code, out, _ = cli("--version")
    assert code == 0
    assert out.startswith("nem-stream")


def test_a_default_model_is_the_embedded_one(cli, clip):
    code, _, err = cli(clip)
    assert code == 0
    assert "nem-tiny on openvino" in err


def test_real_video(cli, tmp_path, fake):
    source = DATA / "videos" / "car-detection.mp4"
    if not source.exists():
        pytest.skip(f"no {source}")
    output = tmp_path / "out.mp4"
    assert cli(source, output, *fake)[0] == 0
    stamps = []
    for path in (source, output):
        with av.open(str(path)) as container:
            stamps.append([float(frame.time) for frame in container.decode(video=0)])
    assert len(stamps[0]) == len(stamps[1]) > 300
    assert stamps[1] == pytest.approx(stamps[0], abs=1e-3)
