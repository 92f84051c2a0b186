"""The help of all commands, and what a wrong call is told."""

import pytest


@pytest.mark.parametrize("command", [[], ["train"], ["bundles"], ["engines"], ["doctor"]])
def test_help_fits_80_columns(cli, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = cli(*command, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "Usage: nem-stream" in out


def test_help_names_all_styles(cli):
    from stream.overlay import STYLES
    from stream.palette import COLORMAPS

    _, out, _ = cli("--help")
    for name in (
        *STYLES,
        *COLORMAPS,
        "nem-stream --camera 0",
        "--scores",
        "train explain",
        "--version",
    ):
        assert name in out


def test_places_are_named_as_the_errors_name_them(cli):
    assert "[OPTIONS] [SOURCE] [OUTPUT]" in cli("--help")[1]
    assert "[OPTIONS] [PATH]" in cli("train", "--help")[1]


def test_help_of_a_build_names_every_precision_it_takes(cli):
    _, out, _ = cli("engines", "build", "--help")
    for name in ("fp32", "fp16", "bf16", "int8", "fp8"):
        assert name in out


@pytest.mark.parametrize(
    ("given", "told", "asked"),
    [
        (["engines", "build", "--batch", "x"], "Invalid value for '--batch'", "engines build"),
        (["engines", "build", "-m"], "Option '-m' requires an argument", "engines build"),
        (["export", "--format"], "Option '--format' requires an argument", "export"),
        (["clip.mp4", "--scores"], "Option '--scores' requires an argument", "run"),
        (["bundles", "show"], "Missing argument 'BUNDLE'", "bundles show"),
        (["engines", "nosuch"], "No such command 'nosuch'", "engines"),
    ],
)
def test_a_wrong_call_is_sent_to_the_help_of_its_own_command(cli, given, told, asked):
    code, _, err = cli(*given)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"nem-stream: error: {told}")
    assert err.endswith(f"; see nem-stream {asked} --help\n")


def test_the_help_of_engines_calls_its_commands_by_their_names(cli):
    assert "build, verify or prune" in cli("engines", "--help")[1]


@pytest.mark.parametrize("group", ["bundles", "engines", "gallery"])
def test_a_group_without_a_command_is_its_help_alone(cli, group):
    code, out, err = cli(group)
    assert (code, out) == (2, "")
    assert f"Usage: nem-stream {group}" in err
    assert "error" not in err


def test_help_tells_the_quality_that_is_meant_where_none_is_asked(cli):
    from stream.sinks.encoder import FAST, ULTRAFAST, X264_FASTEST

    told = " ".join(cli("--help")[1].replace("│", " ").split())
    fast = f"of libx264: {FAST['libx264'][1]}, of its {ULTRAFAST} qp {X264_FASTEST['qp']}."
    assert fast in told
