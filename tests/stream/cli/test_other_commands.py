import json
import re
import shutil
import time

import pytest

from engines import EngineInfo, StoredEngine, available_engines
from nem import list_bundles
from stream.cli import doctor
from stream.cli.engines import print_stored


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_bundles_list_names_what_is_embedded(cli):
    code, out, err = cli("bundles", "list")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list_bundles()


def test_bundles_show(cli, bundle):
    code, out, _ = cli("bundles", "show", bundle)
    assert code == 0
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert rows["name"] == "dummy"
    assert rows["classes"] == "3: 0 dark; 1 grey; 2 bright"
    assert "made by a test" in rows["backbone"]


def test_a_bundle_is_not_told_to_have_no_classes_where_they_have_no_names(cli, bundle, tmp_path):
    manifest = json.loads((bundle / "nem.json").read_text())
    for part in bundle.iterdir():
        shutil.copy(part, tmp_path)
    (tmp_path / "nem.json").write_text(json.dumps(manifest | {"classes": []}))
    code, out, _ = cli("bundles", "show", tmp_path)
    assert code == 0
    assert re.search(r"^classes +none, or without names$", out, re.MULTILINE)


def test_a_bug_is_traced_where_no_option_asks_for_it(cli, monkeypatch):
    def bug():
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("stream.cli.bundles.print_list", bug)
    code, _, err = cli("bundles", "list")
    assert code == 1
    assert err.startswith("Traceback")
    assert err.endswith("nem-stream: error: internal error: ZeroDivisionError: a bug\n")


def test_a_damaged_bundle_is_told(cli, bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "graph.onnx").write_bytes(b"other")
    for command in ("show", "check"):
        code, out, err = cli("bundles", command, copy)
        assert (code, out) == (6, "")
        assert "graph.onnx is damaged" in err
    code, _, err = cli("bundles", "check", "nonesuch")
    assert code == 6
    assert "no bundle called" in err


def test_a_bundle_whose_graph_is_none_fails_the_check(cli, bundle):
    code, out, err = cli("bundles", "check", bundle)
    assert (code, out) == (6, "")
    # OpenVINO's parser has its own say on stderr before.
    assert err.splitlines()[-1].startswith("nem-stream: error: ")
    assert "Traceback" not in err


def test_engines_list_gives_reasons(cli):
    code, out, _ = cli("engines", "list")
    assert code == 0
    for engine in available_engines():
        assert f"{engine.name} " in out
        assert (engine.trouble or "available") in out
    assert "stored: 0" in out


def test_an_engine_that_can_run_but_not_be_built_is_told(cli, monkeypatch):
    lacking = EngineInfo("tensorrt", "TensorRT", None, "torch is not installed: pip install it")
    for module in ("stream.cli.engines", "stream.cli.doctor"):
        monkeypatch.setattr(f"{module}.available_engines", lambda: [lacking])
    told = "only runs what is built already: torch is not installed: pip install it"
    assert f"TensorRT: {told}\n" in cli("engines", "list")[1]
    [finding] = doctor._engines()
    assert (finding.good, finding.detail) == (True, told)


@pytest.mark.parametrize(
    ("days", "told"), [(3, "3 days ago"), (-0.2, "0 days ago"), (-3, "in the future")]
)
def test_a_stored_engine_has_no_negative_age(capsys, days, told):
    entry = StoredEngine("k" * 64, 1000, time.time() - days * 86_400, {})
    print_stored([entry])
    listed = capsys.readouterr().out
    assert f"used {told}" in listed
    assert "-" not in listed


def test_the_store_is_verified_and_pruned(cli, own_cache):
    from engines import Store

    store = Store()
    facts = {"engine": "openvino", "device": "cpu", "precision": "f32"}
    for value in (b"one", b"two"):
        store.fetch(
            facts | {"graph": value.decode()},
            build=lambda value=value: value,
            dump=lambda built: built,
            load=lambda blob: blob,
        )
    code, out, _ = cli("engines", "verify")
    assert code == 0
    assert "stored: 2" in out
    assert "openvino cpu f32" in out
    blob = next(store.folder.glob("*.blob"))
    blob.write_bytes(b"bad")
    code, out, _ = cli("engines", "verify")
    assert code == 6
    assert "1 damaged" in out
    assert cli("engines", "prune")[0] == 0
    assert "stored: 1" in cli("engines", "list")[1]
    assert cli("engines", "prune", "--days", "0")[0] == 0
    assert "stored: 0" in cli("engines", "list")[1]


def test_doctor_tells_all_and_ends_as_the_main_job_would(cli):
    code, out, _ = cli("doctor")
    assert code == (0 if "nem-tiny" in list_bundles() else 6)
    for subject in ("package av", "decoder h264", "encoder libx264", "engine openvino", "cache"):
        assert subject in out
    assert "no display" in out
    assert out.count("\n") > 12


def test_doctor_tells_of_a_cache_that_a_run_would_not_use(unprivileged, monkeypatch):
    def found(folder):
        monkeypatch.setenv("NEM_CACHE", str(folder))
        return doctor._cache()

    mine = unprivileged / "mine"
    assert found(mine) == doctor.Finding("cache", True, str(mine / "engines"))
    mine.chmod(0)  # it can't even be asked whether there is something
    assert "engines: Permission denied; every start" in found(mine).detail
    (unprivileged / "file").touch()
    assert "engines: Not a directory; every start" in found(unprivileged / "file").detail


@pytest.mark.parametrize(("blocks", "code"), [(0, 0), (5, 5), (6, 6)])
def test_doctor_fails_only_for_the_main_job(monkeypatch, capsys, blocks, code):
    found = [doctor.Finding("a", True, "fine", 6), doctor.Finding("b", False, "gone", blocks)]
    monkeypatch.setattr(doctor, "findings", lambda: iter(found))
    assert doctor.examine() == code
    out = capsys.readouterr().out.splitlines()
    assert [line[:3] for line in out[:2]] == ["ok ", "no "]


@pytest.mark.parametrize(
    ("flags", "code", "say"),
    [
        ([], 2, "--model"),
        (["--model", "resnet18"], 2, "--data"),
        (["-m", "resnet18", "-d", "x", "--decoder", "pretty"], 2, "lite, paper"),
        (["-m", "resnet18", "-d", "x", "--weights", "gone.safetensors"], 2, "no such file"),
        (["-m", "resnet18", "-d", "x", "--devices", "some"], 2, "auto"),
        (["-m", "resnet18", "-d", "x", "--name", "a b"], 2, "letters, digits"),
        (["-m", "resnet18", "-d", "x", "--epochs", "0"], 2, "epochs"),
    ],
)
def test_training_refuses_before_it_begins(cli, tmp_path, monkeypatch, flags, code, say):
    monkeypatch.chdir(tmp_path)
    got, out, err = cli("train", *flags)
    assert (got, out) == (code, "")
    assert say in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_training_names_its_extra(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stream.cli.training.NEEDED", ("torch", "no_such_package"))
    code, _, err = cli("train", "-m", "resnet18", "-d", "x", "--weights", "none")
    assert code == 2
    assert "no_such_package" in err
    assert "pip install 'nem-stream[train]'" in err
