import math

import pytest
import torch

from nem.errors import ArgumentError
from nem.sensitivity import mprt, randomised, sensitivity, spearman, with_backbone
from tests.nem.toys import batch, tiny_backbone, tiny_nem


def test_toy_sensitivities():
    x = batch(2, 32)[:, :1]
    x = x * (0.97 / x.flatten(1).pow(2).mean(1).sqrt()).view(-1, 1, 1, 1)
    constant = sensitivity(lambda z: torch.ones(len(z), 32, 32), x)
    assert constant.average.tolist() == constant.maximum.tolist() == [0, 0]
    same = sensitivity(lambda z: z[:, 0], x)
    assert 0.2 / math.sqrt(3) / 0.97 == pytest.approx(0.119, abs=5e-4)
    assert same.average.tolist() == pytest.approx([0.119] * 2, abs=2e-3)
    assert (same.maximum > same.average).all()
    assert same.maximum.tolist() == pytest.approx([0.119] * 2, abs=6e-3)
    # Relative to the picture, not to the map.
    triple = sensitivity(lambda z: 3 * z[:, 0], x)
    torch.testing.assert_close(triple.average, 3 * same.average)
    wider = sensitivity(lambda z: z[:, 0], x, radius=0.4)
    torch.testing.assert_close(wider.average, 2 * same.average)


def test_noise_is_seeded_and_the_same_for_each_picture():
    x = batch(3, 16)

    def explain(z):
        return z.abs().sum(1)

    whole = sensitivity(explain, x, samples=3)
    alone = sensitivity(explain, x[1:2], samples=3)
    assert whole.average[1].item() == pytest.approx(alone.average.item())
    other = sensitivity(explain, x, samples=3, seed=1)
    assert not torch.equal(whole.average, other.average)
    calls = []
    sensitivity(lambda z: calls.append(z) or z, x)
    assert len(calls) == 1 + 10
    moved = torch.stack([z - x for z in calls[1:]])
    assert -0.2 - 1e-6 <= moved.min() < -0.19 < 0.19 < moved.max() <= 0.2 + 1e-6
    with pytest.raises(ArgumentError, match="samples 0"):
        sensitivity(explain, x, samples=0)


def test_spearman():
    a = torch.tensor([[1.0, 2.0, 3.0, 10.0]])
    assert spearman(a, a.exp()).item() == pytest.approx(1)
    assert spearman(a, -a).item() == pytest.approx(-1)
    tied = torch.tensor([[1.0, 2.0, 2.0, 3.0]])  # mean ranks 1, 2.5, 2.5, 4
    assert spearman(a, tied).item() == pytest.approx(4.5 / math.sqrt(5 * 4.5))
    flat = torch.ones(1, 4)
    assert spearman(flat, 2 * flat).item() == 1
    assert spearman(flat, a).item() == 0
    broken = torch.tensor([[1.0, 2.0, math.nan, 10.0]])
    for pair in ((a, broken), (broken, a), (broken, broken), (flat * math.nan, flat)):
        assert spearman(*pair).isnan().item()
    assert spearman(torch.cat([a, a]), torch.cat([broken, a])).isnan().tolist() == [True, False]


def test_a_map_that_ignores_the_model_scores_one_in_each_stage():
    maps = torch.rand(2, 8, 8)
    result = mprt(lambda backbone: maps, tiny_backbone())
    assert result.shape == (5, 2)
    torch.testing.assert_close(result, torch.ones(5, 2))


def test_a_map_of_the_model_is_lost_with_its_weights():
    backbone, x = tiny_backbone(), batch(2)

    def explain(model):
        return model(x).pyramid[0].mean(1)

    torch.rand(1)  # not as another test of it left it
    state = torch.get_rng_state()
    result = mprt(explain, backbone)
    assert torch.equal(torch.get_rng_state(), state)
    assert result[0].tolist() == pytest.approx([1, 1])  # the first map is below the last layers
    assert (result[-1].abs() < 0.9).all()
    torch.testing.assert_close(result, mprt(explain, backbone))
    assert not torch.equal(result[-1], mprt(explain, backbone, seed=1)[-1])


@pytest.mark.parametrize("family", ["resnet", "convnext", "vit"])
def test_weights_are_lost_from_the_last_layer_to_the_first(family):
    backbone = tiny_backbone(family)
    for buffer_name, value in backbone.named_buffers():
        if buffer_name.endswith("running_mean"):
            value.add_(1)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    copies = list(randomised(backbone, 3))
    changed = [
        {k for k, v in copy.state_dict().items() if not torch.equal(v, before[k])}
        for copy in copies
    ]
    assert changed[0] < changed[1] < changed[2]
    assert any("fc" in k or "head" in k for k in changed[0])
    first = next(k for k, v in before.items() if v.ndim == 4)
    assert first not in changed[0] | changed[1]
    # Every kernel and matrix is lost in the end; norms start anew at what they may have been.
    matrices = {k for k, v in before.items() if v.ndim > 1}
    means = {k for k in before if k.endswith("running_mean")}
    assert matrices | means <= changed[2]
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert copies[2](batch(1)).embedding.isfinite().all()


def test_stages_are_checked():
    with pytest.raises(ArgumentError, match="stages 0"):
        next(randomised(tiny_backbone(), 0))
    with pytest.raises(ArgumentError, match="stages 999"):
        next(randomised(tiny_backbone(), 999))


def test_the_decoder_stays_on_another_backbone():
    model, x = tiny_nem(), batch(2)
    mask = model(x).mask
    (lost,) = randomised(model.backbone, 1)
    rebuilt = with_backbone(model, lost)
    assert rebuilt.backbone is lost
    assert rebuilt.decoder is model.decoder
    assert model.backbone is not lost
    assert not torch.allclose(rebuilt(x).mask, mask, atol=1e-3)
    torch.testing.assert_close(model(x).mask, mask)
    torch.testing.assert_close(with_backbone(model, model.backbone)(x).mask, mask)
    result = mprt(lambda b: with_backbone(model, b)(x).mask, model.backbone)
    assert result.shape == (5, 2)
    assert (result < 1).all()
