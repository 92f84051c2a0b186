import importlib.util
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from nem.backbone import create_backbone
from nem.cam import cam, grad_cam, grad_cam_plus_plus, lafam
from nem.errors import ArgumentError, MissingError, ModelError
from nem.stages import layout_of
from tests.nem.toys import FAMILIES, batch, tiny_backbone

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("pytorch_grad_cam") is None, reason="needs the eval extra"
)
GRADIENT = {"grad_cam": grad_cam, "grad_cam_plus_plus": grad_cam_plus_plus}
TARGET = torch.tensor([4, 0, 2])


def scaled(maps: torch.Tensor) -> torch.Tensor:
    """Positive part, from the smallest value 0 to the largest 1."""
    maps = maps.clamp_min(0)
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (1e-7 + maps.amax((1, 2), keepdim=True))


def enlarged(maps: torch.Tensor) -> torch.Tensor:
    return F.interpolate(maps[:, None], size=(64, 64), mode="bilinear")[:, 0]


def last_map(backbone, x):
    with torch.no_grad():
        return backbone(x).pyramid[-1]


def test_cam_is_the_classifier_s_row_times_the_last_map() -> None:
    backbone, x = tiny_backbone(), batch(3)
    features, fc = last_map(backbone, x), backbone.model.fc
    by_hand = torch.einsum("nchw,nc->nhw", features, fc.weight[TARGET])
    torch.testing.assert_close(cam(backbone, x, TARGET).map, enlarged(by_hand))
    # The model classifies the mean of the map: the map sums up to the logit.
    logits = backbone.model(x).gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(by_hand.mean((1, 2)) + fc.bias[TARGET], logits)


def test_cam_of_a_pooled_swin_sums_up_to_the_logit_too() -> None:
    backbone, x = tiny_backbone("swin"), batch(3)
    maps = cam(backbone, x, TARGET).map
    weights = backbone.model.head.fc
    logits = backbone.model(x).gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(maps.mean((1, 2)) + weights.bias[TARGET], logits)


@pytest.mark.parametrize("family", ["vit", "convnext", "mobilenet"])
def test_cam_applies_other_heads_to_each_place(family: str) -> None:
    backbone, x, target = tiny_backbone(family), batch(1), torch.tensor([3])
    model, classifier = backbone.model, backbone.model.get_classifier()
    with torch.no_grad():
        final = model.forward_features(x)
        # After three prefix tokens.
        corner = final[:, 3:4].expand(-1, 4, -1) if family == "vit" else final[:, :, :1, :1]
        embedding = model.forward_head(corner, pre_logits=True)
    expected = (embedding * classifier.weight[target]).sum()
    # The first pixel of a bilinear map is the first place, its edge replicated.
    torch.testing.assert_close(cam(backbone, x, target).map[0, 0, 0], expected)


def test_cam_needs_linear_classes() -> None:
    backbone, x = tiny_backbone(num_classes=0), batch(1)
    with pytest.raises(ModelError, match="linear classifier, found no classes; take lafam"):
        cam(backbone, x)
    backbone = tiny_backbone()
    backbone.model.fc = torch.nn.Sequential(torch.nn.Linear(24, 5))
    with pytest.raises(ModelError, match="found Sequential"):
        cam(backbone, x)


def test_cam_says_when_a_head_needs_the_whole_map(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone()

    head = backbone.model.forward_head

    def whole(features, **given):
        if features.shape[-1] == 1:
            raise RuntimeError("size of tensor a (4) must match b (1)")
        return head(features, **given)

    monkeypatch.setattr(backbone.model, "forward_head", whole)
    with pytest.raises(ModelError, match=r"can't be applied to a single place .*take lafam"):
        cam(backbone, batch(1), torch.tensor([1]))


@pytest.mark.parametrize("name", ["cait_xxs24_224", "twins_svt_small"])
def test_cam_needs_no_stage(name: str) -> None:
    """Their blocks hold no class token, or have names that timm does not know."""
    backbone = create_backbone(name, num_classes=3)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(cam(backbone, x, torch.tensor([1])).map).all()


def test_lafam_is_the_scaled_mean_over_channels() -> None:
    backbone, x = tiny_backbone(), batch(3)
    mean = last_map(backbone, x).mean(1)
    low, high = mean.amin((1, 2), keepdim=True), mean.amax((1, 2), keepdim=True)
    result = lafam(backbone, x)
    torch.testing.assert_close(result.map, enlarged((mean - low) / (high - low)))
    assert torch.equal(lafam(backbone, x, TARGET).map, result.map)


def test_lafam_of_an_even_map_is_zero_not_nan() -> None:
    backbone = tiny_backbone()
    torch.nn.init.zeros_(backbone.model.layer4[0].bn2.weight)
    torch.nn.init.zeros_(backbone.model.layer4[0].downsample[-1].weight)
    assert (lafam(backbone, batch(2)).map == 0).all()


@needs_library
def test_grad_cam_of_a_linear_head_is_cam() -> None:
    backbone, x = tiny_backbone(), batch(3)
    rows = backbone.model.fc.weight[TARGET]
    by_hand = torch.einsum("nchw,nc->nhw", last_map(backbone, x), rows)
    expected = enlarged(scaled(by_hand))
    torch.testing.assert_close(
        grad_cam(backbone, x, TARGET).map, scaled(expected), rtol=1e-3, atol=1e-4
    )


@needs_library
def test_grad_cam_of_the_embedding_weighs_channels_by_their_mean() -> None:
    backbone, x = tiny_backbone(), batch(3)
    features = last_map(backbone, x)  # f is its mean, so the gradient of <f(x), f> is f(x) / HW
    by_hand = torch.einsum("nchw,nc->nhw", features, features.mean((2, 3)))
    expected = scaled(enlarged(scaled(by_hand)))
    found = grad_cam(backbone, x, of="embedding").map
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@needs_library
def test_grad_cam_plus_plus_follows_its_equation_19() -> None:
    backbone, x = tiny_backbone(), batch(3)
    a = last_map(backbone, x)
    g = (backbone.model.fc.weight[TARGET] / a[0, 0].numel())[:, :, None, None].expand_as(a)
    alpha = g**2 / (2 * g**2 + a.sum((2, 3), keepdim=True) * g**3 + 1e-6)
    weights = (g.clamp_min(0) * alpha).sum((2, 3), keepdim=True)
    expected = scaled(enlarged(scaled((weights * a).sum(1))))
    found = grad_cam_plus_plus(backbone, x, TARGET).map
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@needs_library
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("of", ["class", "embedding"])
@pytest.mark.parametrize("name", GRADIENT)
def test_every_family_gives_a_map_that_is_not_blank(family: str, of: str, name: str) -> None:
    result = GRADIENT[name](tiny_backbone(family), batch(2), of=of)
    assert result.map.shape == (2, 64, 64)
    assert result.map.dtype == torch.float32
    assert result.map.amin() >= 0
    assert result.map.amax((1, 2)).tolist() == pytest.approx([1, 1], abs=1e-3)
    assert result.map.std((1, 2)).min() > 0.01


@needs_library
def test_where_timm_names_a_layer_that_is_not_there_the_last_norm_is_taken() -> None:
    backbone = create_backbone(
        "twins_svt_small", input_size=64, num_classes=5,
        embed_dims=(16,) * 4, depths=(1,) * 4, num_heads=(1,) * 4,
    )  # fmt: skip
    x = batch(3)
    with torch.no_grad():
        tokens = backbone.model.forward_features(x)  # their mean is classified
        by_hand = (tokens * backbone.model.head.weight[TARGET][:, None]).sum(2).view(3, 2, 2)
    expected = scaled(enlarged(scaled(by_hand)))
    torch.testing.assert_close(grad_cam(backbone, x, TARGET).map, expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(ModelError, match=r"no layer 'block.3'; .* name another layer, as norm$"):
        grad_cam(backbone, x, layer="block.3")


@needs_library
def test_the_layer_can_be_chosen() -> None:
    backbone, x = tiny_backbone(), batch(1)
    default, earlier, same = (
        grad_cam(backbone, x, of="embedding", layer=layer).map
        for layer in (None, "layer3", "layer4")
    )
    assert not torch.allclose(earlier, default, atol=0.01)
    torch.testing.assert_close(same, default)
    with pytest.raises(ModelError, match=r"no layer 'layer9'; its stages are act1, .*layer4"):
        grad_cam(backbone, x, layer="layer9")


@needs_library
def test_softmax_explains_the_probability() -> None:
    backbone, x = tiny_backbone("vit"), batch(2)
    one = grad_cam(backbone, x, TARGET[:2], softmax=True).map
    assert not torch.allclose(one, grad_cam(backbone, x, TARGET[:2]).map)


@pytest.mark.parametrize(
    "method", [*(pytest.param(m, marks=needs_library) for m in GRADIENT.values()), cam, lafam]
)
def test_a_picture_s_map_depends_on_itself_alone(method) -> None:
    backbone, x, target = tiny_backbone(), batch(3), torch.tensor([4, -1, 2])
    together = method(backbone, x, target).map
    least_memory = method(backbone, x, target, memory_mb=1).map
    torch.testing.assert_close(least_memory, together, rtol=1e-3, atol=1e-5)
    alone = method(backbone, x[1:2], target[1:2]).map
    torch.testing.assert_close(alone, together[1:2], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "target", "counts"),
    [
        pytest.param(grad_cam, None, (2, 1), marks=needs_library),
        pytest.param(grad_cam, TARGET, (1, 1), marks=needs_library),
        pytest.param(partial(grad_cam, of="embedding"), TARGET, (1, 1), marks=needs_library),
        pytest.param(grad_cam_plus_plus, TARGET, (1, 1), marks=needs_library),
        (cam, None, (2, 0)),
        (cam, TARGET, (1, 0)),
        (lafam, None, (1, 0)),
    ],
)
def test_runs_are_counted_and_nothing_is_left_behind(method, target, counts) -> None:
    backbone, x, seen, kept = tiny_backbone(), batch(3), [], []
    layout_of(backbone)  # found once per stage, by a run of its own

    def note(module, args, output) -> None:
        seen.append(len(output))
        kept.append(output.requires_grad)

    handle = backbone.model.conv1.register_forward_hook(note)
    result = method(backbone, x, target)
    handle.remove()
    assert (result.forwards, result.backwards) == counts
    assert sum(seen) == 3 * result.forwards
    assert not any(kept)  # the early layers keep nothing for a gradient
    assert not any(m._forward_hooks for m in backbone.modules())
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert x.grad is None
    assert not result.map.requires_grad


@needs_library
@torch.no_grad()
def test_gradients_are_taken_even_where_they_are_off() -> None:
    backbone, x = tiny_backbone(), batch(1)
    assert grad_cam(backbone, x).map.max() > 0


def test_what_does_not_fit_is_refused() -> None:
    backbone = tiny_backbone()
    for method in (grad_cam, grad_cam_plus_plus, cam, lafam):
        with pytest.raises(ArgumentError, match=r"pictures \(1, 3, 32, 32\)"):
            method(backbone, batch(1, size=32))
    for method in (grad_cam, cam):
        with pytest.raises(ArgumentError, match="expected 1 classes of 0 to 4"):
            method(backbone, batch(1), torch.tensor([5]))
    with pytest.raises(ModelError, match="no classes to explain; take of='embedding'"):
        grad_cam(tiny_backbone(num_classes=0), batch(1))


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(MissingError, match=r"pytorch-grad-cam.*pip install 'nem-stream\[eval\]'"):
        grad_cam(tiny_backbone(), batch(1))
    assert lafam(tiny_backbone(), batch(1)).map.max() > 0
