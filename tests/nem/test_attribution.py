import sys
from functools import partial

import numpy as np
import pytest
import torch

from nem.attribution import (
    attribute,
    gradient_shap,
    guided_backprop,
    integrated_gradients,
    saliency,
    smooth_grad,
)
from nem.attribution_rules import baseline_of, guided, path, plain, shap, smooth
from nem.backbone import Backbone
from nem.errors import ArgumentError, MissingError, ModelError
from nem.explained import Of
from tests.nem.toys import batch, tiny_backbone

pytest.importorskip("captum", reason="needs the eval extra")

RULES = {
    "saliency": plain,
    "integrated_gradients": partial(path, steps=4),
    "gradient_shap": partial(shap, samples=3, noise=0.1),
    "smooth_grad": partial(smooth, samples=3),
    "guided_backprop": guided,
}
METHODS = {
    "saliency": (saliency, 1),
    "integrated_gradients": (partial(integrated_gradients, steps=4), 4),
    "gradient_shap": (partial(gradient_shap, samples=3), 3),
    "smooth_grad": (partial(smooth_grad, samples=3), 3),
    "guided_backprop": (guided_backprop, 1),
}


def values(name: str, backbone: Backbone, x: torch.Tensor, **kwargs) -> torch.Tensor:
    return attribute(RULES[name], backbone, x, **kwargs).values


@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_saliency_is_the_gradient_of_half_the_squared_norm(family: str) -> None:
    backbone, x = tiny_backbone(family), batch(3).requires_grad_()
    (backbone.embed(x).square().sum() / 2).backward()
    torch.testing.assert_close(values("saliency", backbone, x.detach()), x.grad)


def test_the_embedding_s_number_is_not_a_cosine() -> None:
    # The cosine's gradient is 0 at the picture itself.
    assert values("saliency", tiny_backbone(), batch(3)).abs().amax((1, 2, 3)).min() > 1e-3


def test_saliency_of_a_class_is_the_gradient_of_its_score() -> None:
    backbone, x, target = tiny_backbone(), batch(3).requires_grad_(), torch.tensor([4, 0, 2])
    for softmax in (False, True):
        x.grad = None
        scores = backbone.model(x)
        scores = scores.softmax(1) if softmax else scores
        scores.gather(1, target[:, None]).sum().backward()
        of_class = attribute(plain, backbone, x.detach(), target, of="class", softmax=softmax)
        torch.testing.assert_close(of_class.values, x.grad)


def test_the_most_probable_class_is_the_default() -> None:
    backbone, x = tiny_backbone(), batch(3)
    with torch.no_grad():
        best = backbone.model(x).argmax(1)
    target = best.clone()
    target[1] = (best[1] + 1) % 5
    own = saliency(backbone, x, best, of="class")
    assert torch.equal(saliency(backbone, x, of="class").map, own.map)
    mixed = saliency(backbone, x, torch.where(target == best, -1, target), of="class")
    assert torch.equal(mixed.map[::2], own.map[::2])
    assert not torch.equal(mixed.map[1], own.map[1])


@pytest.mark.parametrize(
    ("family", "steps", "baseline"),
    # ReLU nets are rough between the points; an untrained one is linear on the way from 0.
    [("resnet", 10, "mean"), ("vit", 30, "blur"), ("swin", 30, "mean")],
)
def test_integrated_gradients_are_complete(family: str, steps: int, baseline: str) -> None:
    backbone, x = tiny_backbone(family).double(), batch(2).double()
    rule, base = partial(path, steps=steps, baseline=baseline), baseline_of(baseline, x)
    full, other = backbone.embed(x), backbone.embed(base)
    of_embedding = attribute(rule, backbone, x).values.sum((1, 2, 3))
    difference = (full * full).sum(1) - (full * other).sum(1)
    torch.testing.assert_close(of_embedding, difference, rtol=1e-4, atol=0)
    target = torch.tensor([1, 3])
    of_class = attribute(rule, backbone, x, target, of="class").values.sum((1, 2, 3))
    logits = (backbone.model(x) - backbone.model(base)).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(of_class, logits, rtol=1e-4, atol=0)


def test_gradient_shap_sums_up_in_expectation() -> None:
    backbone, x = tiny_backbone("vit", size=32), batch(2, size=32)
    full, other = backbone.embed(x), backbone.embed(torch.zeros_like(x))
    total = attribute(partial(shap, samples=400), backbone, x).values.sum((1, 2, 3))
    difference = (full * full).sum(1) - (full * other).sum(1)
    torch.testing.assert_close(total, difference, rtol=0.05, atol=0)


def test_gradient_shap_s_noise_is_part_of_the_picture_on_both_sides_of_the_product() -> None:
    backbone, x = tiny_backbone(), batch(2)
    backbone.embed = lambda z: z.flatten(1)  # type: ignore[method-assign]
    still, noisy = (
        attribute(partial(shap, samples=4, noise=noise), backbone, x).values / x
        for noise in (0.0, 0.3)
    )  # the gradient is x everywhere, so this is the mean of what is multiplied by it
    torch.testing.assert_close(still, x)
    assert (noisy - x).std().item() == pytest.approx(0.3 / 2, rel=0.05)


def test_nothing_is_important_in_a_picture_that_is_its_baseline() -> None:
    backbone, x = tiny_backbone(), batch(2)
    for method in (integrated_gradients, gradient_shap):
        few = {"steps": 2} if method is integrated_gradients else {"samples": 2}
        assert (method(backbone, x, baseline=x, **few).map == 0).all()
        assert method(backbone, x, baseline=x[:1], **few).map[1].max() > 0


@pytest.mark.parametrize("name", RULES)
def test_a_rotation_of_the_embedding_changes_nothing(name: str) -> None:
    backbone, x = tiny_backbone().double(), batch(2).double()
    before, embed = values(name, backbone, x), backbone.embed
    rotation = torch.linalg.qr(torch.randn(24, 24, generator=torch.manual_seed(0)).double()).Q
    backbone.embed = lambda z: embed(z) @ rotation  # type: ignore[method-assign]
    after = values(name, backbone, x)
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("of", ["embedding", "class"])
def test_a_picture_s_map_does_not_depend_on_its_batch(name: str, of: str) -> None:
    backbone, x, target = tiny_backbone(), batch(3), torch.tensor([4, -1, 2])
    method, _ = METHODS[name]
    together = method(backbone, x, target, of=of).map
    for i in range(3):
        alone = method(backbone, x[i : i + 1], target[i : i + 1], of=of).map
        assert_nearly(together[i : i + 1], alone)
    least_memory = method(backbone, x, target, of=of, memory_mb=1).map
    assert_nearly(together, least_memory)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("of", ["embedding", "class"])
def test_in_double_precision_a_batch_is_its_pictures_to_the_last_digits(name: str, of: Of) -> None:
    backbone, x = tiny_backbone().double(), batch(3).double()
    target = torch.tensor([4, -1, 2])
    together = values(name, backbone, x, target=target, of=of)
    assert together.dtype == torch.float64
    for i in range(3):
        alone = values(name, backbone, x[i : i + 1], target=target[i : i + 1], of=of)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-12)
    least_memory = values(name, backbone, x, target=target, of=of, memory_mb=1)
    torch.testing.assert_close(least_memory, together, rtol=1e-9, atol=1e-12)


def assert_nearly(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """But for a few pixels: the last bit of a sum opens or closes a ReLU that is near 0."""
    away = (found - wanted).abs() > 1e-5 + 1e-3 * wanted.abs()
    assert away.float().mean() < 0.1
    assert (found - wanted).abs().mean() < 0.02 * wanted.abs().mean()


@pytest.mark.parametrize("name", METHODS)
def test_runs_are_counted_and_nothing_is_left_behind(name: str) -> None:
    backbone, x, seen = tiny_backbone(), batch(2), []
    handle = backbone.model.conv1.register_forward_hook(lambda m, a, out: seen.append(len(out)))
    state = (torch.get_rng_state(), np.random.get_state()[1].copy())
    method, runs = METHODS[name]
    for of, target, first in [
        ("embedding", None, 1),
        ("class", None, 1),
        ("class", torch.tensor([1, 2]), 0),
    ]:
        seen.clear()
        result = method(backbone, x, target, of=of)
        assert (result.forwards, result.backwards) == (first + runs, runs)
        assert sum(seen) == 2 * result.forwards
        assert result.map.shape == (2, 64, 64)
        assert result.map.dtype == torch.float32
        assert not result.map.requires_grad
    handle.remove()
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()
    assert not any(m._forward_hooks or m._backward_hooks for m in backbone.modules())
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert x.grad is None
    assert not x.requires_grad


@pytest.mark.parametrize("method", [gradient_shap, smooth_grad])
def test_the_seed_decides_what_is_random(method) -> None:
    run = partial(method, tiny_backbone("vit"), batch(2), samples=2)
    assert torch.equal(run(seed=1).map, run(seed=1).map)
    assert not torch.equal(run(seed=1).map, run(seed=2).map)


def test_options_reach_the_rules() -> None:
    backbone, x = tiny_backbone("vit"), batch(2)
    signed = attribute(plain, backbone, x).values
    torch.testing.assert_close(saliency(backbone, x).map, signed.abs().sum(1))
    torch.testing.assert_close(saliency(backbone, x, reduce="sum").map, signed.sum(1))
    no_noise = smooth_grad(backbone, x, samples=2, noise=0)
    torch.testing.assert_close(no_noise.map, saliency(backbone, x).map)
    maps = [
        integrated_gradients(backbone, x, steps=2),
        integrated_gradients(backbone, x, steps=3),
        integrated_gradients(backbone, x, steps=2, baseline="blur"),
        gradient_shap(backbone, x, samples=2),
        gradient_shap(backbone, x, samples=2, noise=0.1),
        gradient_shap(backbone, x, samples=2, baseline="blur"),
        smooth_grad(backbone, x, samples=2),
        smooth_grad(backbone, x, samples=2, noise=0.3),
    ]
    assert len({tuple(m.map.flatten().tolist()) for m in maps}) == len(maps)


def test_smooth_grad_scales_its_noise_by_each_picture_s_range() -> None:
    seen, x = [], batch(2) * torch.tensor([1.0, 5.0])[:, None, None, None]
    backbone = tiny_backbone()
    embed = backbone.embed
    backbone.embed = lambda z: (seen.append(z.detach()), embed(z))[1]  # type: ignore
    smooth_grad(backbone, x, samples=1, noise=0.2)
    noise = (seen[1] - x).std((1, 2, 3))
    expected = 0.2 * (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))
    torch.testing.assert_close(noise, expected, rtol=0.05, atol=0)


def test_the_blurred_baseline_is_a_gaussian_of_21_pixels() -> None:
    dot = torch.zeros(1, 3, 64, 64)
    dot[..., 32, 32] = 1
    spread = baseline_of("blur", dot)[0, 0]
    torch.testing.assert_close(spread.sum(), torch.tensor(1.0))
    assert (spread[32] > 0).nonzero().flatten().tolist() == list(range(22, 43))
    ratio = (spread[32, 37] / spread[32, 32]).item()
    assert ratio == pytest.approx(np.exp(-0.5))


def test_what_does_not_fit_is_refused() -> None:
    backbone, x = tiny_backbone(), batch(2)
    with pytest.raises(ArgumentError, match="of 'label': allowed are embedding, class"):
        saliency(backbone, x, of="label")
    with pytest.raises(ArgumentError, match="reduce 'max': allowed are abs, sum"):
        saliency(backbone, x, reduce="max")
    with pytest.raises(ArgumentError, match=r"pictures \(2, 3, 32, 32\).*64, 64"):
        saliency(backbone, batch(2, size=32))
    with pytest.raises(ArgumentError, match=r"\(0, 3, 64, 64\).*at least 1"):
        saliency(backbone, x[:0])
    for target in ([1, 5], [1], [[1, 2]]):
        with pytest.raises(ArgumentError, match="expected 2 classes of 0 to 4"):
            saliency(backbone, x, torch.tensor(target), of="class")
    with pytest.raises(ArgumentError, match="steps 0: at least 1"):
        integrated_gradients(backbone, x, steps=0)
    for method in (gradient_shap, smooth_grad):
        with pytest.raises(ArgumentError, match="samples 0: at least 1"):
            method(backbone, x, samples=0)
    with pytest.raises(ArgumentError, match="baseline 'black': allowed are mean, blur"):
        integrated_gradients(backbone, x, baseline="black")
    with pytest.raises(ArgumentError, match=r"baseline \(3, 3, 64, 64\): doesn't broadcast"):
        gradient_shap(backbone, x, baseline=batch(3))
    with pytest.raises(ModelError, match=r"no classes to explain; take of='embedding'"):
        saliency(tiny_backbone(num_classes=0), x, of="class")
    assert saliency(tiny_backbone(num_classes=0), x).map.max() > 0


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingError, match=r"needs captum.*pip install 'nem-stream\[eval\]'"):
        saliency(tiny_backbone(), batch(1))
