import pytest
import torch

from nem.activations import activation_statistics, captured, middle_layer
from nem.errors import ArgumentError, DataError, ModelError
from tests.nem.toys import batch, tiny_backbone


@pytest.mark.parametrize(("family", "layer"), [("resnet", "layer2"), ("vit", "blocks.1")])
def test_mean_and_deviation_are_those_of_all_pictures(family: str, layer: str) -> None:
    backbone, pictures = tiny_backbone(family), 3 + 2 * batch(7)
    assert middle_layer(backbone) == layer
    with captured(backbone, layer) as seen, torch.no_grad():
        backbone.embed(pictures)
    for memory_mb in (1, 512):
        found = activation_statistics(backbone, pictures, memory_mb=memory_mb)
        assert (found.layer, found.pictures) == (layer, 7)
        torch.testing.assert_close(found.mean, seen[0].mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.std, seen[0].std(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "layer"),
    [("convnext", "stages.1"), ("mobilenet", "blocks.1"), ("swin", "layers.1")],
)
def test_the_middle_layer_has_a_stride_of_eight(family: str, layer: str) -> None:
    assert middle_layer(tiny_backbone(family)) == layer


def test_another_layer_can_be_asked_for() -> None:
    found = activation_statistics(tiny_backbone(), batch(2), layer="layer3")
    assert found.layer == "layer3"
    assert found.mean.shape == (16, 4, 4)


def test_hooks_are_gone_afterwards_also_after_an_error() -> None:
    backbone = tiny_backbone()
    activation_statistics(backbone, batch(2))
    with pytest.raises(ZeroDivisionError), captured(backbone, "layer2"):
        _ = 1 / 0
    assert not any(module._forward_hooks for module in backbone.modules())


def test_what_does_not_fit_is_refused() -> None:
    backbone = tiny_backbone()
    with pytest.raises(DataError, match="statistics of 1 picture: at least 2"):
        activation_statistics(backbone, batch(1))
    with pytest.raises(ArgumentError, match=r"pictures \(2, 3, 32, 32\)"):
        activation_statistics(backbone, batch(2, size=32))
    with pytest.raises(ModelError, match="no layer 'nowhere'; its stages are act1, layer1"):
        activation_statistics(backbone, batch(2), layer="nowhere")
    backbone.model.layer2.register_forward_hook(lambda m, a, out: (out, out))
    with pytest.raises(ModelError, match="layer layer2 gives tuple, expected one tensor"):
        activation_statistics(backbone, batch(2))


def test_pictures_are_taken_as_the_model_computes() -> None:
    exact = activation_statistics(tiny_backbone().double(), batch(2))
    rounded = activation_statistics(tiny_backbone(), batch(2).double())
    assert exact.mean.dtype == rounded.mean.dtype == torch.float32
    torch.testing.assert_close(exact.mean, rounded.mean, rtol=1e-4, atol=1e-5)
