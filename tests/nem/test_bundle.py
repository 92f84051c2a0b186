import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

import nem.bundle
from nem.bundle import is_bundle, list_bundles, open_bundle
from nem.errors import BundleError
from tests.nem.toys import write_tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny").path


def edit(folder: Path, **changes: object) -> None:
    file = folder / "nem.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_opens_a_folder(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert bundle.path == folder
    assert bundle.manifest.name == "tiny"
    assert bundle.manifest.heads == ("embedding",)
    assert bundle.manifest.classes == ("a", "b", "c", "d", "e")
    assert bundle.graph_path.read_bytes() == b"a graph"
    assert bundle.weights_path.is_file()
    assert bundle.card_path.read_text() == "# tiny\n"
    assert open_bundle(str(folder)) == bundle
    assert open_bundle(bundle) is bundle


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 5}, "has format 5, this version reads 4; update nem-stream"),
        ({"format": None}, "has format None"),
        ({"format": "1"}, "has format '1'"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"heads": ["guess"]}, "heads.0: Input should be 'embedding', 'class'"),
        ({"heads": []}, "heads: Tuple should have at least 1 item"),
        ({"heads": ["class", "class"]}, "each may be there once"),
        ({"fill": "black"}, "fill: Input should be"),
        ({"std": [0.2, 0.2, 0]}, "std.2: Input should be greater than 0"),
        ({"mean": [0.2, 0.2]}, "mean.2: Field required"),
        ({"input_size": 0}, "input_size: Input should be greater"),
        ({"classes": ["cat", "\x9b2J"]}, "classes.1: String should match"),
        ({"classes": ["cat\n"]}, "classes.0: String should match"),
        ({"classes": ["cat", "\u202etac"]}, "classes.1: String should match"),
        ({"files": {}}, "files must name"),
        ({"files": {"../../etc/passwd": "0" * 64}}, "files must name"),
        ({"backbone": 3}, "backbone: Input should be"),
        (
            {"backbone": {"name": "hf-hub:a/b", "source": "", "sha256": "0" * 64}},
            "backbone.name: String should match",
        ),
        (
            {
                "backbone": {
                    "name": "resnet18",
                    "kwargs": {"checkpoint_path": "x.pth"},
                    "source": "",
                    "sha256": "0" * 64,
                }
            },
            "may not ask for weights elsewhere",
        ),
        (
            {
                "backbone": {
                    "name": "resnet18",
                    "kwargs": {"weights": "timm"},
                    "source": "",
                    "sha256": "0" * 64,
                }
            },
            "may not ask for weights elsewhere",
        ),
    ],
)
def test_refuses_a_manifest(folder: Path, changes: dict[str, object], reason: str) -> None:
    edit(folder, **changes)
    with pytest.raises(BundleError) as error:
        open_bundle(folder)
    message = str(error.value)
    assert reason in message
    assert str(folder) in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["{", "[1]", "\x00", "[" * 100_000])
def test_refuses_a_manifest_that_is_no_manifest(folder: Path, text: str) -> None:
    (folder / "nem.json").write_text(text)
    with pytest.raises(BundleError, match=r"can't read nem.json|has format None"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "graph.onnx"])
def test_refuses_damaged_and_missing_files(folder: Path, name: str) -> None:
    file = folder / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        open_bundle(folder)
    file.write_bytes(data[:-1])
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        open_bundle(folder)
    file.unlink()
    with pytest.raises(BundleError, match=f"can't read {name}"):
        open_bundle(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["nem.json", "graph.onnx", "weights.safetensors"])
def test_waits_for_no_pipe(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(BundleError, match=f"{name} is no file"):
        open_bundle(folder)


def test_the_card_may_be_edited(folder: Path) -> None:
    (folder / "README.md").write_text("more to say")
    assert open_bundle(folder).card_path.read_text() == "more to say"


def test_names_the_bundle_inside_the_folder_of_a_training(folder: Path) -> None:
    with pytest.raises(BundleError, match=f"no nem.json inside; give {re.escape(str(folder))}$"):
        open_bundle(folder.parent)


def test_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no nem.json inside"):
        open_bundle(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="expected a folder, found a file"):
        open_bundle(str(tmp_path / "file"))
    with pytest.raises(BundleError, match="found nothing"):
        open_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("given", "say"),
    [
        ("", "no bundle called '': "),
        (None, "bundle: expected a name, a folder or a hub id, got NoneType"),
        (3, "bundle: expected a name, a folder or a hub id, got int"),
    ],
)
def test_says_what_names_a_bundle(given: object, say: str) -> None:
    with pytest.raises(BundleError, match=say):
        open_bundle(given)  # type: ignore[arg-type]


def test_names_come_from_the_package(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(nem.bundle, "EMBEDDED", folder.parent)
    assert list_bundles() == ["tiny"]
    assert open_bundle("tiny").path == folder
    with pytest.raises(BundleError, match=r"no bundle called 'tinny': did you mean tiny\?"):
        open_bundle("tinny")
    with pytest.raises(BundleError, match="embedded: tiny"):
        open_bundle("quite-another")
    assert is_bundle("tiny")
    assert is_bundle("owner/name")
    assert is_bundle(str(tmp_path))
    assert not is_bundle("resnet50")


def test_hub_ids_are_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(hub_id: str, allow_patterns: list[str]) -> str:
        asked.append((hub_id, sorted(allow_patterns)))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert open_bundle("owner/name").path == folder
    files = ["README.md", "graph.onnx", "nem.json", "weights.safetensors"]
    assert asked == [("owner/name", files)]


def test_hub_trouble_is_a_line_and_its_tries_too(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    response = type("Response", (), {"headers": {}, "request": None})()
    troubles = {
        "can't be reached": ConnectionError("no route\nto host"),
        "no such model": RepositoryNotFoundError("404", response=response),
    }
    for reason, trouble in troubles.items():

        def fail(*args: object, _trouble: Exception = trouble, **kwargs: object) -> None:
            hub = logging.getLogger("huggingface_hub.utils._http")
            for attempt in (1, 2):
                hub.warning("no route")
                hub.warning("Retrying in 1s [Retry %s/5].", attempt)
            raise _trouble

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        with pytest.raises(BundleError, match=reason) as error:
            open_bundle("owner/name")
        assert "\n" not in str(error.value)
        assert [record.name for record in caplog.records] == ["nem.logs"]
        caplog.clear()
    monkeypatch.undo()
    with pytest.raises(BundleError, match="not a valid hub id"):
        open_bundle("owner/na--me")


def test_without_the_extra_a_hub_id_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleError, match=r"pip install 'nem-stream\[train\]'"):
        open_bundle("owner/name")


def test_opening_loads_no_torch(folder: Path) -> None:
    code = (
        "import sys, nem; nem.open_bundle(sys.argv[1]); nem.list_bundles();"
        "bad = {'torch', 'timm', 'huggingface_hub'} & sys.modules.keys();"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
