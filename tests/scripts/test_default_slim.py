"""A smaller model is cut out of a larger one, channel by channel and block by block."""

import copy
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from nem.backbone import create_backbone
from nem.errors import ModelError
from nem.explanation import AIMS
from nem.model import NEM
from scripts.default_backbone import BackboneConfig
from scripts.default_slim import cut_backbone, cut_decoder

LARGE = BackboneConfig(layers=(1, 2, 1, 1), channels=(24, 17, 28, 30), stem_width=8)
SMALL = replace(LARGE, layers=(1, 1, 1, 1), channels=(24, 8, 16, 15))
WIDTH, SMALL_WIDTH = 20, 9


@pytest.fixture(scope="module")
def large():
    torch.manual_seed(0)
    model = LARGE.build(3).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm begins with blocks that add nothing
            nn.init.ones_(module.weight)
    return model


def hide(model):
    """Nothing of the channels that `SMALL` has not."""
    for stage, kept in enumerate(SMALL.channels):
        for module in getattr(model, f"layer{stage + 1}").modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.weight.detach()[kept:] = 0
    model.fc.weight.detach()[:, SMALL.channels[-1] :] = 0


def test_to_cut_nothing_off_changes_nothing(large):
    same = cut_backbone(large, LARGE, 3).state
    assert all(torch.equal(same[name], value) for name, value in large.state_dict().items())


def test_what_is_cut_out_computes_as_the_large_model_without_the_rest(large):
    """Channels that go are those with the smallest weights: at zero they are not missed."""
    whole = copy.deepcopy(large)
    hide(whole)
    small = SMALL.build(3).eval()
    small.load_state_dict(cut_backbone(whole, SMALL, 3).state)
    del whole.layer2[1:]
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(small(x), whole(x), atol=1e-5)


def test_the_large_model_stays_as_it_was(large):
    before = {name: value.clone() for name, value in large.state_dict().items()}
    cut_backbone(large, SMALL, 3)
    assert all(torch.equal(before[name], value) for name, value in large.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"layers": (1, 3, 1, 1)}, "has 2 blocks of 17 channels; asked are 3 of 8"),
        ({"channels": (24, 32, 16, 16)}, "has 2 blocks of 17 channels; asked are 1 of 32"),
        ({"stem_width": 16}, "size mismatch"),
    ],
)
def test_nothing_larger_is_cut_out(large, changes, what):
    with pytest.raises(ModelError, match=what):
        cut_backbone(large, replace(SMALL, **changes), 3)


def test_other_kinds_of_models_are_refused():
    with pytest.raises(ModelError, match="expected a timm ResNet"):
        cut_backbone(timm.create_model("mobilenetv3_small_050", num_classes=3), SMALL, 3)


def frozen(config, path, state):
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    names = ("ant", "bee", "cat")
    return create_backbone(
        config.model, path, input_size=64, classes=names, num_classes=3, **config.kwargs
    )


def test_a_decoder_is_cut_with_its_backbone(large, tmp_path):
    """What goes is at zero in all weights, and is not missed in any map."""
    hidden = copy.deepcopy(large)
    hide(hidden)
    cut = cut_backbone(hidden, SMALL, 3)
    del hidden.layer2[1:]
    one_block = replace(LARGE, layers=SMALL.layers)
    whole = NEM(frozen(one_block, tmp_path / "w", hidden.state_dict()), "lite", AIMS, width=WIDTH)
    small = NEM(frozen(SMALL, tmp_path / "s", cut.state), "lite", AIMS, width=SMALL_WIDTH)
    gen = torch.Generator().manual_seed(0)
    trunk = [1.0] * SMALL_WIDTH + [0.0] * (WIDTH - SMALL_WIDTH)
    coarse = [1.0] * 15 + [0.0] * 15
    stays = {WIDTH: trunk, WIDTH + 1: [*trunk, 1.0], 2 * WIDTH: 2 * trunk, 30: coarse}
    stays[30 + 8 * WIDTH] = coarse + 8 * trunk
    for name, tensor in whole.decoder.state_dict().items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            tensor.copy_(torch.rand(tensor.shape, generator=gen) - 0.5)
            for axis, length in enumerate(tensor.shape[:2]):
                if length in stays:
                    share = torch.tensor(stays[length]).view(-1, *[1] * (tensor.ndim - axis - 1))
                    tensor.mul_(share)
    stages = list(zip(LARGE.channels, cut.kept, strict=True))
    state = cut_decoder(whole.decoder.state_dict(), stages, SMALL_WIDTH)
    small.decoder.load_state_dict(state)
    x = torch.randn(2, 3, 64, 64, generator=gen)
    asked = torch.tensor([0, 2])
    with torch.inference_mode():
        maps, expected = small.eval()(x, asked).maps, whole.eval()(x, asked).maps
    for aim in AIMS:
        assert expected[aim].std() > 1e-3
        assert torch.allclose(maps[aim], expected[aim], atol=1e-4)


@pytest.mark.parametrize(("width", "wanted"), [(12, 13), (24, 12), (15, 12)])
def test_a_decoder_whose_axes_can_not_be_told_apart_is_refused(width, wanted):
    stages = [(length, torch.arange(8)) for length in LARGE.channels]
    with pytest.raises(ModelError, match=f"a decoder of width {wanted} out of one of {width}"):
        cut_decoder({"context.bias": torch.zeros(width)}, stages, wanted)


def test_another_decoder_is_refused():
    with pytest.raises(ModelError, match="expected that of a bundle with the decoder lite"):
        cut_decoder({"blocks.0.0.weight": torch.zeros(8, 8, 3, 3)}, [], 8)
