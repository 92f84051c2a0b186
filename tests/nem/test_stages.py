"""How models lay out the maps inside them, found out by a run."""

from __future__ import annotations

import pytest
import torch

from nem.backbone import create_backbone
from nem.errors import ModelError
from nem.stages import Layout, find_stage, layout_of
from tests.nem.toys import FAMILIES, tiny_backbone


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stage_is_split_into_its_map_and_joined_again(family: str) -> None:
    backbone = tiny_backbone(family)
    name = [info["module"] for info in backbone.model.feature_info][backbone.indices[-1]]
    seen: list[torch.Tensor] = []
    find_stage(backbone, name).register_forward_hook(lambda *run: seen.append(run[-1]))
    layout = layout_of(backbone)
    seen.clear()
    drawn = backbone(torch.randn(2, 3, backbone.input_size, backbone.input_size)).pyramid[-1]
    found, prefix = layout.split(seen[0])
    assert found.shape == drawn.shape
    assert torch.equal(layout.join(found, prefix, seen[0].ndim), seen[0])


def test_blocks_without_the_class_token_of_their_model() -> None:
    backbone = create_backbone("xcit_nano_12_p16_224", input_size=64)
    assert backbone.model.num_prefix_tokens == 1
    assert layout_of(backbone).prefix == 0


@pytest.mark.parametrize(
    ("name", "layer"), [("hiera_tiny_224", "blocks.2"), ("hrnet_w18_small", None)]
)
def test_layouts_of_their_own_are_refused(name: str, layer: str | None) -> None:
    """Places in another order, and a list of maps."""
    with pytest.raises(ModelError, match="in a way of its own; take a method that needs no layer"):
        layout_of(create_backbone(name), layer)


def test_a_map_as_deep_as_it_is_wide() -> None:
    """64 x 64 x 64 looks the same in both orders."""
    assert layout_of(create_backbone("resnet18", input_size=256), "layer1") == Layout(0, False)


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(ModelError, match=r"no layer 'layer9'; its stages are .*layer4"):
        find_stage(tiny_backbone(), "layer9")
