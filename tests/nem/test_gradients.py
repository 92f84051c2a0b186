import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian

from nem.errors import ArgumentError
from nem.gradients import Losses, self_similarity
from tests.nem.toys import batch, tiny_backbone


def pair() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Softplus(), nn.Linear(3, 2)).double()
    return model, torch.randn(5, 4, dtype=torch.float64)


def test_self_similarity_has_the_gradient_of_label_free_importance() -> None:
    model, x = pair()
    z = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(self_similarity(model, z).sum(), z)
    (right,) = torch.autograd.grad((model(x).detach() * model(z)).sum(), z)
    torch.testing.assert_close(slope, right)
    assert self_similarity(model, x).shape == (5,)


def test_gradients_and_hessian_are_autograds() -> None:
    model, x = pair()
    losses = Losses(model, self_similarity, x)
    assert losses.size == sum(p.numel() for p in model.parameters()) == 23
    flat = nn.utils.parameters_to_vector(model.parameters()).detach()

    def mean_loss(values: Tensor) -> Tensor:
        sizes = [p.numel() for p in model.parameters()]
        parts = dict(zip(dict(model.named_parameters()), values.split(sizes), strict=True))
        shaped = {name: part.view_as(model.get_parameter(name)) for name, part in parts.items()}
        return torch.func.functional_call(model, shaped, (x,)).square().sum(1).mean() / 2

    whole = hessian(mean_loss, flat)
    for size in (1, 2, 5):
        found = losses.hessian(torch.eye(23, dtype=torch.float64), x, size)
        torch.testing.assert_close(found, whole)
        rows = torch.cat(list(losses.gradients(x, size)))
        torch.testing.assert_close(rows.mean(0), torch.func.grad(mean_loss)(flat))
        assert rows.shape == (5, 23)


def test_a_loss_without_curvature_has_a_zero_hessian() -> None:
    losses = Losses(nn.Linear(4, 1), lambda model, x: model(x)[:, 0], torch.randn(3, 4))
    assert losses.hessian(torch.randn(2, losses.size), torch.randn(3, 4), 2).count_nonzero() == 0


@pytest.mark.parametrize("family", ["vit", "mobilenet"])
def test_layers_torch_derives_once_only_are_derived_twice(family: str) -> None:
    """Fused attention and the hard sigmoid: the Hessian against differences of the gradient."""
    backbone = tiny_backbone(family).double()
    x = batch(2).double()
    some = {"vit": "model.blocks.4.mlp.fc1.bias", "mobilenet": "model.blocks.5.0.bn1.bias"}[family]
    losses = Losses(backbone, self_similarity, x, [some])
    chance = torch.Generator().manual_seed(0)
    vector = torch.randn(losses.size, dtype=torch.float64, generator=chance)
    found = losses.hessian(vector[None], x, 2)[0]
    slopes = []
    for side in (-1, 1):
        moved = Losses(backbone, self_similarity, x, [some])
        with torch.no_grad():
            moved.chosen[0].add_(side * 1e-5 * vector.view_as(moved.chosen[0]))
        slopes.append(torch.cat(list(moved.gradients(x, 2))).mean(0))
    differences = (slopes[1] - slopes[0]) / 2e-5
    assert found.norm() > 0
    assert float((found - differences).norm() / found.norm()) < 1e-3


def test_only_what_the_loss_depends_on_is_chosen() -> None:
    backbone = tiny_backbone()
    losses = Losses(backbone, self_similarity, batch(2))
    head = sum(p.numel() for p in backbone.model.get_classifier().parameters())
    assert losses.size == sum(p.numel() for p in backbone.parameters()) - head
    assert not any(p.requires_grad for p in backbone.parameters())


def test_what_can_not_be_used_is_refused() -> None:
    model, x = pair()
    with pytest.raises(ArgumentError, match=r"the loss gave \(1, 2\) for 1 pictures"):
        Losses(model, lambda m, x: m(x), x)
    with pytest.raises(ArgumentError, match=r"the loss gave \(\) for 1 pictures"):
        Losses(model, lambda m, x: m(x).sum(), x)
    with pytest.raises(ArgumentError, match="no examples"):
        Losses(model, self_similarity, x[:0])
    with pytest.raises(ArgumentError, match="depends on no parameter"):
        Losses(model, lambda _, x: x.sum(1), x)
