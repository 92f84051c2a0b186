import dataclasses
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nem.bundle import open_bundle
from nem.bundle_io import load_model, round_weights_, save_tensors, state_sha256, write_bundle
from nem.errors import BundleError, ModelError, WriteError
from nem.explanation import AIMS
from nem.hashes import sha256_of
from nem.manifest import MANIFEST
from tests.nem.toys import batch, tiny_nem, write_tiny_bundle


@pytest.mark.parametrize("family", ["resnet", "vit", "swin"])
def test_a_model_comes_back_bit_equal(tmp_path: Path, family: str) -> None:
    model = tiny_nem(family, aims=AIMS)
    bundle = write_tiny_bundle(tmp_path / "b", model, source="here")
    assert bundle.manifest.heads == AIMS
    again = load_model(open_bundle(bundle.path))
    assert state_sha256(again.state_dict()) == state_sha256(model.state_dict())
    named = load_model(str(bundle.path))
    assert state_sha256(named.state_dict()) == state_sha256(model.state_dict())
    assert not any(m.training for m in again.modules())
    assert again.backbone.source == "here"
    assert again.backbone.classes == ("a", "b", "c", "d", "e")
    with torch.no_grad():
        one, other = model(batch()), again(batch())
    assert one.maps.keys() == other.maps.keys()
    for aim, value in one.maps.items():
        assert torch.equal(value, other.maps[aim])
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.embedding, other.embedding)


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_tensors_are_as_open_to_others_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        save_tensors({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


def test_big_weights_take_16_bits_and_the_rest_32(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "b")
    stored = load_file(bundle.weights_path)
    assert stored["decoder.head.weight"].dtype == torch.float16
    assert stored["decoder.head.bias"].dtype == torch.float32
    assert stored["backbone.model.fc.weight"].dtype == torch.float16
    assert stored["backbone.model.layer1.0.bn1.weight"].dtype == torch.float32
    assert stored["backbone.model.layer1.0.bn1.running_var"].dtype == torch.float32


def test_rounding_refuses_what_16_bits_can_not_hold() -> None:
    for value in (1e6, float("nan")):
        model = tiny_nem()
        model.decoder.head.weight.data[:] = value
        with pytest.raises(ModelError, match=r"decoder.head.weight does not fit 16-bit"):
            round_weights_(model)


def test_a_model_that_was_not_rounded_is_refused(tmp_path: Path) -> None:
    graph = tmp_path / "g.onnx"
    graph.write_bytes(b"g")
    with pytest.raises(BundleError, match="is not rounded; call round_weights_"):
        write_bundle(tmp_path / "b", tiny_nem(), graph, name="b", training={}, quality={}, card="")
    assert list(tmp_path.iterdir()) == [graph]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "no/slash"}, "name: String should match"),
        ({"quality": {"kept": float("nan")}}, "quality.kept: Input should be a finite number"),
        ({"training": {"when": object()}}, "can't be written as JSON"),
        ({"classes": ("a",)}, "1 names for 5 logits"),
    ],
)
def test_values_that_are_not_allowed_leave_nothing(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(BundleError, match=reason):
        write_tiny_bundle(tmp_path / "b", **changes)
    assert [p.name for p in tmp_path.iterdir()] == ["some.onnx"]


def test_paths_may_hold_bytes_that_are_no_text(tmp_path: Path) -> None:
    told = {"data": [os.fsdecode(b"folder\xff/caf\xc3\xa9")]}
    bundle = write_tiny_bundle(tmp_path / "b", training=told)
    assert bundle.manifest.training == {"data": ["folder?/café"]}


def test_a_missing_graph_leaves_nothing(tmp_path: Path) -> None:
    model = round_weights_(tiny_nem())
    with pytest.raises(WriteError, match="can't be written"):
        write_bundle(
            tmp_path / "b", model, tmp_path / "no.onnx", name="b", training={}, quality={}, card=""
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("nem.bundle_io.save_file", full)
    with pytest.raises(WriteError, match="can't be written: No space left"):
        write_tiny_bundle(tmp_path / "b")
    assert not [p.name for p in tmp_path.iterdir() if p.is_dir()]


def test_an_existing_folder_is_replaced_only_if_asked(tmp_path: Path) -> None:
    old = write_tiny_bundle(tmp_path / "b", card="old")
    (old.path / "note.txt").write_text("mine")
    with pytest.raises(BundleError, match="exists already"):
        write_tiny_bundle(tmp_path / "b", card="new")
    assert old.card_path.read_text() == "old"
    new = write_tiny_bundle(tmp_path / "b", card="new", overwrite=True)
    assert new.card_path.read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "some.onnx"]


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "b")
    state = load_file(bundle.weights_path)
    state["backbone.model.fc.bias"] += 1
    save_file(state, bundle.weights_path)
    with pytest.raises(BundleError, match="changed since the bundle was opened"):
        load_model(bundle)
    files = bundle.manifest.files | {bundle.weights_path.name: sha256_of(bundle.weights_path)}
    manifest = bundle.manifest.model_copy(update={"files": files})
    (bundle.path / MANIFEST).write_text(manifest.model_dump_json())
    with pytest.raises(BundleError, match=r"resnet10t has tensors of SHA-256 .* trained on"):
        open_bundle(bundle.path)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "b")
    manifest = bundle.manifest
    for change in (
        {"decoder": manifest.decoder.model_copy(update={"kwargs": {"width": 8}})},
        {"decoder": manifest.decoder.model_copy(update={"kwargs": {"nonsense": 8}})},
        {"decoder": manifest.decoder.model_copy(update={"kwargs": {"width": "wide"}})},
        {"decoder": manifest.decoder.model_copy(update={"kwargs": {"width": 1.5}})},
        {"backbone": manifest.backbone.model_copy(update={"kwargs": {"act_layer": "x"}})},
        {"backbone": manifest.backbone.model_copy(update={"kwargs": {"channels": []}})},
        {"backbone": manifest.backbone.model_copy(update={"name": "no_such_net"})},
        {"classes": ("a",)},
    ):
        other = dataclasses.replace(bundle, manifest=manifest.model_copy(update=change))
        with pytest.raises(BundleError, match="can't build its model") as error:
            load_model(other)
        assert "\n" not in str(error.value)


def test_the_hash_sees_names_types_shapes_and_values() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    same = {"b": torch.ones(1), "a": torch.zeros(3, 2).T}
    assert state_sha256(base) == state_sha256(same)
    for other in (
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        {"c": torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1) * 2},
    ):
        assert state_sha256(other) != state_sha256(base)
