import logging
import re

import pytest
import timm
import torch
from safetensors.torch import save_file

from nem.backbone import create_backbone, load_weights
from nem.bundle_io import state_sha256
from nem.errors import ModelError
from tests.nem.toys import FAMILIES, batch, tiny_backbone


@pytest.mark.parametrize("family", FAMILIES)
def test_one_run_equals_timm(family: str) -> None:
    backbone, x = tiny_backbone(family), batch()
    features = backbone(x)
    torch.testing.assert_close(features.logits, backbone.model(x))
    torch.testing.assert_close(features.embedding, backbone.embed(x))
    assert [m.shape[1] for m in features.pyramid] == list(backbone.channels)
    sides = [64 // stride for stride in backbone.strides]
    assert [tuple(m.shape[2:]) for m in features.pyramid] == [(s, s) for s in sides]


def test_maps_of_a_vit_are_spaced_evenly_and_without_prefix_tokens() -> None:
    backbone = tiny_backbone("vit")
    assert not backbone.is_pyramid
    assert backbone.indices == [0, 1, 2, 4]
    assert backbone.strides == (8, 8, 8, 8)
    last = backbone(batch(1)).pyramid[-1]
    tokens = backbone.model.blocks[-1].register_forward_hook  # the last block's own output
    seen = []
    handle = tokens(lambda module, args, output: seen.append(output))
    backbone(batch(1))
    handle.remove()
    prefix = backbone.model.num_prefix_tokens
    assert prefix == 3
    torch.testing.assert_close(last.flatten(2).transpose(1, 2), seen[0][:, prefix:])


def test_the_backbone_runs_once_per_call() -> None:
    backbone = tiny_backbone()
    calls = []
    backbone.model.layer1.register_forward_hook(lambda *_: calls.append(1))
    backbone(batch())
    assert len(calls) == 1


def test_stays_frozen_when_the_outside_trains() -> None:
    outer = torch.nn.ModuleList([tiny_backbone()])
    before = state_sha256(outer.state_dict())
    outer.train()
    assert not any(module.training for module in outer[0].modules())
    assert not any(p.requires_grad for p in outer.parameters())
    outer[0](batch())
    assert state_sha256(outer.state_dict()) == before


def test_gradients_reach_the_input_only() -> None:
    backbone, x = tiny_backbone(), batch().requires_grad_()
    backbone.embed(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in backbone.parameters())


def test_asks_timm_for_size_mean_and_deviation() -> None:
    backbone = create_backbone("vit_tiny_patch16_224", depth=4)
    assert backbone.input_size == 224
    assert backbone.mean == (0.5, 0.5, 0.5)  # this family's own, not ImageNet's
    given = create_backbone("resnet10t", input_size=96, mean=(0, 0, 0), std=(1, 1, 1))
    assert (given.input_size, given.mean, given.std) == (96, (0, 0, 0), (1, 1, 1))


def test_without_classifier_there_are_no_logits() -> None:
    features = tiny_backbone(num_classes=0)(batch())
    assert features.logits is None
    assert features.embedding.shape == (4, 24)


def test_unknown_names_suggest_near_ones() -> None:
    with pytest.raises(ModelError, match=r"resnet5O: timm has no such model.*resnet50"):
        create_backbone("resnet5O")
    with pytest.raises(ModelError, match="no such model"):
        create_backbone("hf-hub:owner/name")


def test_arguments_are_checked() -> None:
    with pytest.raises(ModelError, match=r"resnet10t with .*timm refuses"):
        create_backbone("resnet10t", nonsense=1)
    with pytest.raises(ModelError, match=r"timm refuses: .* modulo by zero"):
        create_backbone("resnet10t", block_reduce_first=0)
    with pytest.raises(ModelError, match="checkpoint_path not allowed"):
        create_backbone("resnet10t", checkpoint_path="evil.pth")
    with pytest.raises(ModelError, match="2 names for 5 logits"):
        create_backbone("resnet10t", num_classes=5, classes=("a", "b"))


def test_an_unreachable_hub_is_a_line_and_its_tries_too(
    monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        hub = logging.getLogger("huggingface_hub.utils._http")
        for attempt in (1, 2):
            hub.warning("no route")
            hub.warning("Retrying in 1s [Retry %s/5].", attempt)
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ModelError, match=r"^backbone resnet10t: can't fetch .*--weights") as error:
        create_backbone("resnet10t", "timm")
    assert "\n" not in str(error.value)
    assert [record.name for record in caplog.records] == ["nem.logs"]


def test_weights_come_from_a_safetensors_file(tmp_path) -> None:
    one, path = tiny_backbone(), tmp_path / "w.safetensors"
    save_file(one.model.state_dict(), path)
    name, kwargs = FAMILIES["resnet"]
    two = create_backbone(name, path, num_classes=5, input_size=64, **kwargs)
    assert state_sha256(two.state_dict()) == state_sha256(one.state_dict())
    assert two.source == "file w.safetensors"


def test_other_weights_are_refused(tmp_path) -> None:
    backbone, path = tiny_backbone(), tmp_path / "w.safetensors"
    state = dict(backbone.model.state_dict())
    state["fc.bias"] = torch.zeros(7)
    del state["fc.weight"]
    state["extra"] = torch.zeros(1)
    save_file(state, path)
    told = r"1 missing \(first: fc.weight\), 1 unknown \(first: extra\), 1 of another shape"
    with pytest.raises(ModelError, match=told):
        load_weights(backbone.model, path, "tiny")
    state = dict(backbone.model.state_dict())
    state["fc.bias"] = torch.full_like(state["fc.bias"], torch.nan)
    save_file(state, path)
    with pytest.raises(ModelError, match=r"fc.bias has values that are not finite"):
        load_weights(backbone.model, path, "tiny")
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="expected a safetensors file"):
        load_weights(backbone.model, tmp_path / "w.pth", "tiny")
    with pytest.raises(ModelError, match="Is a directory"):
        load_weights(backbone.model, tmp_path, "tiny")
    missing = tmp_path / "none.safetensors"
    with pytest.raises(ModelError, match=re.escape(str(missing))):
        load_weights(backbone.model, missing, "tiny")


def test_imagenet_names_are_known_for_imagenet_weights_only(tmp_path) -> None:
    model = timm.create_model("mobilenetv3_small_050")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    known = create_backbone("mobilenetv3_small_050", tmp_path / "w.safetensors")
    assert len(known.classes) == 1000
    assert "goldfish" in known.classes[1]
    assert create_backbone("mobilenetv3_small_050").classes == ()


def test_a_classifier_with_layers_before_it() -> None:
    """A BatchNorm stands between the embedding and what timm calls the classifier."""
    backbone = create_backbone("efficientvit_m0", input_size=64)
    generator = torch.Generator().manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.2, 3, generator=generator)
    x = torch.randn(2, 3, 64, 64, generator=generator)
    torch.testing.assert_close(backbone(x).logits, backbone.model(x))


@pytest.mark.parametrize(
    ("name", "size", "say"),
    [
        ("vit_tiny_patch16_224", 200, "200 is no multiple of its patches' 16 pixels.* take 192"),
        ("vit_tiny_patch16_224", 230, "take 224"),
        ("mixer_s32_224", 96, "does not run on pictures of 96 x 96"),
    ],
)
def test_an_input_size_that_the_model_can_not_take(name: str, size: int, say: str) -> None:
    with pytest.raises(ModelError, match=say) as error:
        create_backbone(name, input_size=size)
    assert "\n" not in str(error.value)


def test_another_input_size_is_set_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    backbone = create_backbone(
        "swin_tiny_patch4_window7_224", input_size=160,
        embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4),
    )  # fmt: skip
    assert backbone.input_size == 160
    assert not recwarn


def test_the_file_of_a_fine_tuned_model_tells_its_number_of_classes(tmp_path) -> None:
    name, kwargs = FAMILIES["resnet"]
    one, path = tiny_backbone(num_classes=7), tmp_path / "own.safetensors"
    save_file(one.model.state_dict(), path)
    two = create_backbone(name, path, input_size=64, **kwargs)
    assert (two.num_classes, two.kwargs["num_classes"], two.classes) == (7, 7, ())
    assert state_sha256(two.state_dict()) == state_sha256(one.state_dict())


def test_a_model_of_other_channels_is_refused_at_timm_s_own_size() -> None:
    with pytest.raises(ModelError, match=r"test_resnet: does not run on pictures .* 1 channels"):
        create_backbone("test_resnet", in_chans=1)
    assert create_backbone("test_resnet", in_chans=3).input_size == 160
