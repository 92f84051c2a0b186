import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from nem.backbone import Backbone, create_backbone
from nem.decoder import build_decoder
from nem.errors import ModelError
from nem.explanation import AIMS
from nem.layers import enlarge
from nem.model import NEM
from tests.nem.toys import FAMILIES, SIZE, batch, tiny_backbone


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def resnet50() -> Backbone:
    return create_backbone("resnet50")


def test_paper_decoder_has_the_paper_s_parameters(resnet50: Backbone) -> None:
    assert parameters(build_decoder("paper", resnet50)) == 9_012_945
    assert parameters(build_decoder("paper", resnet50, image_skip=True)) == 9_013_377


def test_convolutions_begin_kaiming_normal_without_bias(resnet50: Backbone) -> None:
    for kind in ("lite", "paper"):
        decoder = build_decoder(kind, resnet50)
        for layer in decoder.modules():
            if isinstance(layer, torch.nn.Conv2d) and layer.weight.numel() > 10_000:
                spread = layer.weight[0].numel() ** -0.5 * 2**0.5
                assert layer.weight.std().item() == pytest.approx(spread, rel=0.05)
                assert layer.weight.abs().max() > 3 * spread  # no uniform distribution
            assert getattr(layer, "bias", None) is None or not layer.bias.any()


def test_paper_decoder_on_a_vit_stops_at_stride_four() -> None:
    backbone = create_backbone("vit_small_patch16_224", depth=4)
    decoder = build_decoder("paper", backbone)
    blocks = 1_770_496 + 737_792 + 258_304 + 65
    assert parameters(decoder) == 4 * (384 * 256 + 256) + blocks


def test_lite_decoder_costs_a_tenth_of_resnet50_at_most(resnet50: Backbone) -> None:
    def flops(module: torch.nn.Module) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(torch.zeros(1, 3, 224, 224))
        return counter.get_total_flops()

    alone = flops(resnet50)
    whole = flops(NEM(resnet50, "lite").eval())
    assert alone < whole <= 1.1 * alone


@pytest.mark.parametrize("kind", ["lite", "paper"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_decoder_parameter_learns_and_no_backbone_one(family: str, kind: str) -> None:
    model = NEM(tiny_backbone(family), kind, AIMS)
    sum(value.square().mean() for value in model(batch()).maps.values()).backward()
    for name, parameter in model.decoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in model.backbone.parameters())


@pytest.mark.parametrize("size", [72, 100])
@pytest.mark.parametrize("kind", ["lite", "paper"])
@pytest.mark.parametrize("family", ["resnet", "convnext"])
def test_sizes_that_strides_do_not_divide(family: str, kind: str, size: int) -> None:
    model = NEM(tiny_backbone(family, size=size), kind).eval()
    assert model(batch(2, size)).mask.shape == (2, 1, size, size)


def test_maps_are_joined_and_pooled_as_described() -> None:
    """The U-Net doubles without interpolation; the lite one's context is the mean of all places."""
    backbone, seen = tiny_backbone(), []
    pyramid = backbone(batch()).pyramid
    paper, lite = build_decoder("paper", backbone), build_decoder("lite", backbone)
    for layer in (paper.blocks[0], lite.context):
        layer.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    for decoder in (paper, lite):
        decoder(pyramid, batch())
    nn = torch.nn
    assert [type(m) for m in paper.blocks[0]] == [nn.Conv2d, nn.BatchNorm2d, nn.SiLU] * 2
    doubled = pyramid[-1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(seen[0], torch.cat([doubled, pyramid[-2]], 1))
    torch.testing.assert_close(seen[1], F.adaptive_avg_pool2d(pyramid[-1], 1))


def test_early_token_maps_go_to_fine_strides() -> None:
    backbone = tiny_backbone("vit")
    tokens, pyramid = build_decoder("lite", backbone, width=8).tokens, backbone(batch()).pyramid
    for tokens_in, reduce, found, stride in zip(
        pyramid, tokens.reduce, tokens(pyramid), (4, 8, 16, 32), strict=True
    ):
        size = (SIZE // stride, SIZE // stride)
        expected = F.interpolate(reduce(tokens_in), size=size, mode="bilinear")
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_lite_decoder_draws_at_its_stride(stride: int) -> None:
    decoder = build_decoder("lite", tiny_backbone(), width=8, stride=stride)
    shapes = []
    decoder.head.register_forward_hook(lambda module, args, out: shapes.append(out.shape[2:]))
    decoder(tiny_backbone()(batch()).pyramid, batch())
    assert shapes == [(SIZE // stride, SIZE // stride)]


def test_only_the_image_skip_looks_at_the_picture() -> None:
    backbone = tiny_backbone()
    pyramid = backbone(batch()).pyramid
    for kind, options, looks in (
        ("lite", {}, False),
        ("paper", {}, False),
        ("paper", {"image_skip": True}, True),
    ):
        decoder = build_decoder(kind, backbone, **options).eval()
        one, other = (decoder(pyramid, batch(seed=seed))["embedding"] for seed in (1, 2))
        same = torch.equal(one, other)
        assert same is not looks


def test_what_can_not_be_built_is_refused() -> None:
    backbone = tiny_backbone("convnext")
    for kind, options, reason in (
        ("big", {}, "allowed are lite, paper"),
        ("lite", {"stride": 2}, r"stride 2: convnext_atto allows \[4, 8\]"),
        ("lite", {"width": 0}, "width 0"),
        ("lite", {"image_skip": True}, "no option image_skip"),
        ("lite", {"aims": ("class", "class")}, "each once"),
        ("lite", {"aims": ("clas",)}, "expected some of embedding, class"),
    ):
        with pytest.raises(ModelError, match=reason):
            build_decoder(kind, backbone, **options)
    with pytest.raises(ModelError, match="has no classes, only embedding"):
        build_decoder("lite", tiny_backbone(num_classes=0), AIMS)
    with pytest.raises(ModelError, match="image_skip: not for token maps"):
        build_decoder("paper", tiny_backbone("vit"), image_skip=True)


@pytest.mark.parametrize(("length", "size"), [(40, 160), (7, 25), (16, 16), (28, 224)])
def test_enlarge_is_bilinear_interpolation(length: int, size: int) -> None:
    x = torch.randn(2, 1, length, length)
    expected = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    assert torch.allclose(enlarge(x, size), expected, atol=1e-5)


def test_maps_without_stride_4_are_drawn_at_stride_8() -> None:
    backbone = create_backbone("visformer_tiny")
    assert 4 not in backbone.strides
    assert backbone.strides[build_decoder("lite", backbone).first] == 8
    with pytest.raises(ModelError, match=r"stride 4: visformer_tiny allows \[8\]; or take"):
        build_decoder("lite", backbone, stride=4)


def test_a_single_class_has_no_heads() -> None:
    with pytest.raises(ModelError, match="has one class, only embedding"):
        build_decoder("lite", tiny_backbone(num_classes=1), ("class",))
