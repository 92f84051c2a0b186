"""Engines built ahead of time, and bundles written for other runtimes."""

import pytest

import stream
import stream.cli.session
from engines import Choice, file_batch


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_engine_is_built_once_and_kept(cli, own_cache):
    code, out, err = cli("engines", "build", "--device", "cpu", "--precision", "fp32")
    assert code == 0
    one, many = out.splitlines()
    assert one.startswith("openvino cpu f32, batch 1: ready after ")
    quick = f"openvino cpu f32, batch {file_batch('openvino')}, embedding alone"
    assert many.startswith(f"{quick}: ready after ")
    why, *compiled = err.splitlines()
    assert why == "engine auto is openvino: the CPU was asked for"
    folder = own_cache / "engines"
    assert compiled == [f"engine openvino: compiled nem-tiny, kept in {folder}"] * 2
    assert "stored: 2," in cli("engines", "list")[1]
    code, _, err = cli("engines", "build", "--engine", "openvino", "--precision", "f32", "-q")
    assert (code, err) == (0, "")
    assert "stored: 2," in cli("engines", "list")[1]
    code, out, _ = cli("engines", "build", "--device", "cpu", "--precision", "f32", "--batch", 3)
    assert code == 0
    assert out.startswith("openvino cpu f32, batch 3, embedding alone: ready after ")
    listed = cli("engines", "list")[1]
    assert "stored: 3," in listed
    assert "nem-tiny on openvino cpu f32, batch 1, " in listed
    for batch in (3, file_batch("openvino")):
        assert f"nem-tiny on openvino cpu f32, batch {batch}, embedding alone, " in listed


@pytest.mark.parametrize("batch", [(), ("--batch", 1), ("--batch", 3)])
def test_the_first_run_after_a_build_compiles_nothing(cli, own_cache, clip, batch):
    pytest.importorskip("skimage")
    assert cli("engines", "build", "--device", "cpu", *batch)[0] == 0
    built = sorted(own_cache.rglob("*.blob"))
    assert len(built) == (1 if batch == ("--batch", 3) else 2)
    assert cli(clip, "none", "--scores", "-", *batch)[0] == 0
    if not batch:
        assert len(list(stream.explain(clip))) == 20
    if batch != ("--batch", 3):  # which a live run refuses
        assert cli("demo", "none", "--scores", "-", "--frames", 2)[0] == 0
    assert sorted(own_cache.rglob("*.blob")) == built


def test_what_a_run_compiles_is_told_with_its_place_and_only_then(
    cli, clip, own_cache, monkeypatch
):
    run = (clip, "none", "--scores", "-", "--engine", "openvino")
    said = f"engine openvino: compiled nem-tiny, kept in {own_cache / 'engines'}"
    assert said in cli(*run)[2].splitlines()
    assert ", kept in " not in cli(*run)[2]
    monkeypatch.setenv("NEM_CACHE", str(own_cache / "other"))
    assert cli(*run, "-q")[2] == ""


def test_what_is_compiled_and_not_kept_is_told(cli, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NEM_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    code, out, err = cli("engines", "build", "--engine", "openvino")
    assert code == 5
    assert out.count(": ready after ") == 2
    assert err.splitlines()[-1].endswith("compiled, but not kept: each start would compile again")
    assert caplog.messages[0].endswith("; allow it or set NEM_CACHE to a folder of your own")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--engine", "fake", "--batch", "2"), 2, "takes no batch"),
        (("--engine", "openvino", "--frame", "1280x720"), 2, "takes no frame size"),
        (("--frame", "1280"), 2, "--frame 1280: give WIDTHxHEIGHT"),
        (("--frame", "0x720"), 2, "--frame 0x720: give WIDTHxHEIGHT"),
        (("--engine", "tensorflow"), 2, "no engine called 'tensorflow'"),
        (("--batch", "0"), 2, "batch 0: frames per call, from 1"),
        (("--model", "nonesuch"), 6, "no bundle called"),
    ],
)
def test_what_can_not_be_built_is_told(cli, arguments, code, told):
    found, out, err = cli("engines", "build", *arguments)
    assert (found, out) == (code, "")
    assert told in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_bundle_is_exported_under_its_name(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = cli("export", "--format", "openvino")
    assert code == 0
    written = sorted(out.split())
    assert written == ["nem-tiny.bin", "nem-tiny.xml"]
    assert all((tmp_path / name).stat().st_size > 10_000 for name in written)
    code, out, err = cli("export", "--format", "openvino")
    assert (code, out) == (5, "")
    assert "overwrite" in err
    assert cli("export", "--format", "openvino", "--overwrite")[0] == 0


def test_an_export_that_is_refused_leaves_nothing(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, code, told in (
        (("--format", "onx"), 2, "allowed: onnx, tensorrt, openvino"),
        (("--format", "onnx", "--precision", "int4"), 2, "precision 'int4'"),
        (("--format", "onnx", "--frame", "big"), 2, "--frame big: give WIDTHxHEIGHT"),
        (("--format", "onnx", "missing/x.onnx"), 5, "missing"),
    ):
        found, out, err = cli("export", *arguments)
        assert (found, out) == (code, ""), (arguments, err)
        assert told in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("wanting", "told"), [(True, True), (False, False)])
def test_why_an_engine_was_taken_is_said_where_a_gpu_stays_unused(
    cli, bundle, clip, monkeypatch, wanting, told
):
    choice = Choice("fake", "cpu", "a GPU is there, but no engine for it", wanting)
    monkeypatch.setattr(stream.cli.session, "choose_engine", lambda device: choice)
    code, _, err = cli(clip, "none", "--scores", "-", "--model", bundle)
    assert code == 0
    assert ("note: engine auto is fake: a GPU is there, but no engine for it" in err) is told
    assert "on fake" in err
    _, _, err = cli(clip, "none", "--scores", "-", "--model", bundle, "-v")
    assert "note: engine auto is fake: a GPU is there" in err
