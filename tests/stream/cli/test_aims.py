"""What is explained, as an option and as commands tell of it."""

import json

import pytest

from nem.explanation import AIMS
from stream.cli import doctor
from stream.sinks import window
from tests.stream.cli.support import make_paper_bundle
from tests.stream.sinks.fake_screen import FakeScreen

ALL = "embedding, class, ranking, target"


@pytest.fixture
def bundle(tmp_path):
    return make_paper_bundle(tmp_path / "all", heads=AIMS)


def test_a_class_is_asked_for_by_name(cli, clip, tmp_path, bundle):
    run = (clip, "none", "--model", bundle, "--engine", "fake", "--scores")
    code, _, err = cli(*run, tmp_path / "s.jsonl", "--target", "grey")
    assert code == 0, err
    line = json.loads((tmp_path / "s.jsonl").read_text().splitlines()[0])
    assert (line["explain"], line["target"]) == ("target", "grey")
    for wrong, reason in (
        (("--target", "gray"), "nearest: grey"),
        (("--explain", "rank"), "embedding, class, ranking, target"),
        (("--explain", "class", "--target", "grey"), "goes with explain target"),
    ):
        code, _, err = cli(*run, tmp_path / "t.jsonl", *wrong)
        assert code == 2
        assert reason in err
        assert not (tmp_path / "t.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "explained", "targets"),
    [
        ([], "embedding", {None}),
        (["--explain", "ranking"], "ranking", {"dark", "grey", "bright"}),
        (["-e", "target", "-t", 2], "target", {"bright"}),
        (["--target", -1], "target", {"dark", "grey", "bright"}),
    ],
)
def test_the_first_line_and_each_score_say_what_is_explained(
    cli, clip, tmp_path, bundle, flags, explained, targets
):
    scores = tmp_path / "s.jsonl"
    code, _, err = cli(
        clip, "none", "--model", bundle, "--engine", "fake", "--scores", scores, *flags
    )
    assert code == 0, err
    assert f"explains {explained}" in err.splitlines()[0]
    lines = [json.loads(line) for line in scores.read_text().splitlines()]
    assert {line["explain"] for line in lines} == {explained}
    assert {line["target"] for line in lines} <= targets


def test_a_bundle_without_the_head_says_what_it_explains(cli, clip, tmp_path):
    plain = make_paper_bundle(tmp_path / "plain")
    for flags in (["--target", "grey"], ["--explain", "class"]):
        code, out, err = cli(clip, "--model", plain, "--engine", "fake", *flags)
        assert (code, out) == (2, "")
        assert "embedding" in err
        assert len(err.splitlines()) == 1
        assert not clip.with_name("clip.nem.mp4").exists()


def test_show_list_and_doctor_tell_what_a_bundle_explains(cli, bundle, monkeypatch):
    assert ALL in cli("bundles", "show", bundle)[1]
    for module in ("stream.cli.bundles", "stream.cli.doctor"):
        from nem.bundle import open_bundle

        monkeypatch.setattr(f"{module}.list_bundles", lambda: ["all"])
        monkeypatch.setattr(f"{module}.open_bundle", lambda _: open_bundle(bundle))
    assert ALL in cli("bundles", "list")[1]
    [finding] = doctor._bundles()
    assert f"explains {ALL}" in finding.detail


def test_the_keys_of_a_window_turn_the_engine_that_runs(cli, clip, bundle, monkeypatch):
    def keys():
        while not screen.shown:  # the window is asked before the first frame, too
            yield "."
        yield from "e tc" + 300 * "." + "q"

    screen = FakeScreen(keys())
    monkeypatch.setattr(window, "Screen", lambda title: screen)
    code, _, err = cli(
        clip, "none", "--show", "--model", bundle, "--engine", "fake", "--no-progress"
    )
    assert code in (0, 130), err
    said = err.splitlines()
    assert "explains class" in said
    assert said.index("paused") < next(i for i, line in enumerate(said) if "target " in line)
    assert any(line.startswith("RELAX after 3000 masks") for line in said)
