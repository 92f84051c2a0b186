import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, kl_divergence

from nem.activations import activation_statistics, captured
from nem.backbone import Backbone
from nem.errors import ArgumentError, ModelError
from nem.iba import LEAST_STD, _Bottleneck, iba
from nem.stages import Layout, layout_of
from tests.nem.toys import FAMILIES, SIZE, batch, tiny_backbone

FEW = {"steps": 2, "samples": 2}


class Corner(nn.Module):
    """Sees the upper left quarter only: its places are the logits, and the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.AvgPool2d(8)
        self.feature_info = [{"module": "stage"}] * 5
        self.unused = nn.Parameter(torch.zeros(1))
        self.fc = nn.Linear(48, 5)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.stage(x)

    def forward_intermediates(
        self, x: torch.Tensor, indices: list[int]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return self.stage(x), [self.stage(x)] * len(indices)

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        seen = features[:, :, :4, :4].flatten(1)
        return seen if pre_logits else self.fc(8 * seen)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(8 * self.stage(x)[:, :, :4, :4].flatten(1))


def corner() -> Backbone:
    backbone = tiny_backbone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone.model = Corner().requires_grad_(False).eval()
    return backbone


@pytest.mark.parametrize("of", ["class", "embedding"])
def test_bits_flow_where_the_model_looks(of: str) -> None:
    backbone, x = corner(), batch(3)
    statistics = activation_statistics(backbone, batch(64, seed=1), layer="stage")
    # This model loses little of either loss, so the bits must be cheap.
    maps = iba(backbone, x, of=of, statistics=statistics, beta=0.1, steps=30, rate=0.5).map
    seen = maps[:, :28, :28].mean((1, 2))
    rest = torch.cat([maps[:, 36:].flatten(1), maps[:, :36, 36:].flatten(1)], 1).mean(1)
    assert (seen > 2 * rest).all()


def test_information_is_the_kl_divergence_to_normal_noise() -> None:
    generator = torch.manual_seed(0)
    normal = torch.randn(2, 3, 8, 8, generator=generator)
    statistics = activation_statistics(corner(), batch(2), layer="stage")
    neck = _Bottleneck(normal, statistics, statistics.std, Layout(0, False))
    with torch.no_grad():
        neck.alpha.copy_(3 * torch.randn(normal.shape, generator=generator))
    signal, noise = neck.shares()
    torch.testing.assert_close(signal + noise, torch.ones_like(signal))
    expected = kl_divergence(Normal(signal * normal, noise), Normal(0.0, 1.0))
    torch.testing.assert_close(neck.information(), expected)


# Few bits cost so little here that what the model loses counts as much.
@pytest.mark.parametrize(("of", "beta", "rate"), [("class", 1e-2, 1.0), ("embedding", 1e-4, 0.5)])
def test_the_map_is_what_plain_autograd_makes_of_the_paper(
    of: str, beta: float, rate: float
) -> None:
    backbone, x, target, size = tiny_backbone(), batch(1), torch.tensor([3]), 8
    statistics = activation_statistics(backbone, batch(16, seed=1), layer="layer2")
    options = {"beta": beta, "rate": rate, "steps": 3, "samples": 4, "seed": 5}
    found = iba(backbone, x, target, of=of, statistics=statistics, **options).map
    model, whole = backbone.model, backbone.embed(x)
    with captured(backbone, "layer2") as seen:
        backbone.embed(x)
    (real,), mean, std = seen, statistics.mean, statistics.std.clamp_min(LEAST_STD)
    line = torch.exp(-0.5 * torch.arange(-2.0, 3.0) ** 2)
    kernel = torch.outer(line, line)[None, None] / line.sum() ** 2
    alpha = torch.full_like(real, 5.0, requires_grad=True)
    adam, generator = torch.optim.Adam([alpha], lr=rate), torch.Generator().manual_seed(5)

    def flow() -> tuple[torch.Tensor, torch.Tensor]:
        padded = F.pad(alpha.sigmoid(), (2,) * 4, mode="replicate").transpose(0, 1)
        share = F.conv2d(padded, kernel).transpose(0, 1)
        through = Normal(share * real + (1 - share) * mean, (1 - share) * std)
        return share, kl_divergence(through, Normal(mean, std))

    for _ in range(3):
        share, nats = flow()
        noise = torch.randn(4, *real.shape[1:], generator=generator) * std + mean
        rest = model.layer4(model.layer3(share * real + (1 - share) * noise))
        if of == "class":
            lost = F.cross_entropy(model.forward_head(rest), target.expand(4))
        else:
            embedding = model.forward_head(rest, pre_logits=True)
            lost = (1 - F.cosine_similarity(embedding, whole)).mean()
        adam.zero_grad()
        (lost + beta * nats.mean()).backward()
        adam.step()
    bits = flow()[1].detach().sum(1, keepdim=True) / math.log(2)
    spread = F.interpolate(bits, scale_factor=SIZE // size, mode="bilinear")[:, 0]
    torch.testing.assert_close(found, spread * (size / SIZE) ** 2, rtol=1e-3, atol=1e-6)


def test_nothing_but_noise_flows_at_the_end_and_the_layer_itself_at_the_start() -> None:
    normal = torch.randn(1, 3, 8, 8, generator=torch.manual_seed(0))
    statistics = activation_statistics(corner(), batch(64), layer="stage")
    std = statistics.std.clamp_min(LEAST_STD)
    neck = _Bottleneck(normal, statistics, std, Layout(0, False))
    noise = torch.randn(2, 3, 8, 8, generator=torch.manual_seed(1))
    with torch.no_grad():
        neck.alpha.fill_(40)
        whole = neck.noisy(noise)
        assert neck.information().min() > 10
        neck.alpha.fill_(-40)
        nothing = neck.noisy(noise)
        assert neck.information().max() < 1e-6
    torch.testing.assert_close(whole, (normal * std + statistics.mean).expand(2, -1, -1, -1))
    torch.testing.assert_close(nothing, noise * std + statistics.mean)


def test_neighbouring_places_share_and_prefix_tokens_do_not() -> None:
    normal, statistics = (
        torch.zeros(1, 65, 2),
        activation_statistics(corner(), batch(2), layer="stage"),
    )
    neck = _Bottleneck(normal, statistics, statistics.std, Layout(1, False))
    with torch.no_grad():
        neck.alpha.fill_(-40)
        neck.alpha[:, 1 + 8 * 3 + 3] = 40  # row 3, column 3
        neck.alpha[:, 0] = 40
    signal, _ = neck.shares()
    assert (signal[:, 0] == 1).all()
    place = signal[0, 1:, 0].view(8, 8)
    torch.testing.assert_close(place.sum(), torch.tensor(1.0))
    assert (place[1:6, 1:6] > 1e-3).all()
    assert place[6:].max() < 1e-6


def test_the_dearer_the_bits_the_fewer_flow() -> None:
    backbone, x = tiny_backbone(), batch(2)
    statistics = activation_statistics(backbone, batch(16, seed=1))
    target = torch.tensor([1, 2])
    flows = [
        iba(backbone, x, target, statistics=statistics, beta=beta, steps=10, samples=2).map
        for beta in (0.0, 10.0)
    ]
    assert (flows[1].mean((1, 2)) < 0.5 * flows[0].mean((1, 2))).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("of", ["class", "embedding"])
def test_every_family_gives_bits(family: str, of: str) -> None:
    maps = iba(tiny_backbone(family), batch(2), of=of, statistics=batch(8, seed=1), **FEW).map
    assert maps.shape == (2, 64, 64)
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()
    assert maps.min() >= 0
    assert maps.std((1, 2)).min() > 0


def test_a_map_depends_on_its_picture_and_the_seed_alone() -> None:
    backbone, x, target = corner(), batch(3), torch.tensor([4, -1, 2])
    statistics = activation_statistics(backbone, batch(64, seed=1), layer="stage")
    together = iba(backbone, x, target, statistics=statistics, **FEW).map
    again = iba(backbone, x, target, statistics=statistics, memory_mb=1, **FEW).map
    torch.testing.assert_close(again, together, rtol=1e-3, atol=1e-6)
    alone = iba(backbone, x[1:2], target[1:2], statistics=statistics, **FEW).map
    torch.testing.assert_close(alone, together[1:2], rtol=1e-3, atol=1e-6)
    cheap = {"statistics": statistics, "beta": 0.01}
    one, two = (iba(backbone, x, target, seed=seed, **cheap, **FEW).map for seed in (0, 1))
    assert not torch.allclose(one, two, rtol=1e-3)
    alone = iba(backbone, x[1:2], target[1:2], **cheap, **FEW).map
    torch.testing.assert_close(alone, one[1:2], rtol=1e-3, atol=1e-6)


def test_the_target_decides_and_pictures_serve_as_statistics() -> None:
    backbone, x, others = corner(), batch(1), batch(16, seed=1)
    statistics = activation_statistics(backbone, others, layer="stage")
    one = iba(backbone, x, torch.tensor([0]), statistics=statistics, **FEW).map
    two = iba(backbone, x, torch.tensor([1]), statistics=statistics, **FEW).map
    assert not torch.allclose(one, two)
    same = iba(backbone, x, torch.tensor([0]), statistics=others, layer="stage", **FEW).map
    torch.testing.assert_close(one, same)


def test_runs_are_counted_and_nothing_is_left_behind() -> None:
    backbone, x, seen = tiny_backbone(), batch(2), []
    statistics = activation_statistics(backbone, batch(4, seed=1))
    state = torch.get_rng_state()
    layout_of(backbone, statistics.layer)  # found once per stage, by a run of its own
    handle = backbone.model.layer4.register_forward_hook(lambda m, a, out: seen.append(len(out)))
    for of, target, first in [
        ("class", None, 1),
        ("class", torch.tensor([1, 2]), 0),
        ("embedding", None, 1),
    ]:
        seen.clear()
        result = iba(backbone, x, target, of=of, statistics=statistics, steps=2, samples=3)
        assert (result.forwards, result.backwards) == (first + 1 + 6, 6)
        assert sum(seen) == 2 * result.forwards
        assert not result.map.requires_grad
    handle.remove()
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in backbone.modules())
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())


def test_what_does_not_fit_is_refused() -> None:
    backbone, x = tiny_backbone(), batch(2)
    statistics = activation_statistics(backbone, batch(2, seed=1))
    with pytest.raises(ArgumentError, match="iba needs statistics: pass other pictures"):
        iba(backbone, x)
    with pytest.raises(ArgumentError, match="layer 'layer3': the statistics are of 'layer2'"):
        iba(backbone, x, statistics=statistics, layer="layer3")
    with pytest.raises(ArgumentError, match=r"statistics \(12, 8, 8\): the layer gives \(24, 2, 2"):
        iba(backbone, x, statistics=statistics._replace(layer="layer4"))
    for wrong in ({"steps": 0}, {"samples": 0}, {"beta": -1}, {"rate": 0}):
        with pytest.raises(ArgumentError, match="expected at least 1 step and sample"):
            iba(backbone, x, statistics=statistics, **wrong)
    with pytest.raises(ModelError, match="no classes to explain"):
        iba(tiny_backbone(num_classes=0), x, statistics=statistics)
