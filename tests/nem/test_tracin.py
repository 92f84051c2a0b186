"""TracIn, and what all three ways of tracing a loss to examples have in common."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nem.errors import ArgumentError, MissingError, ModelError
from nem.examples import label_agreement
from nem.influence import Checkpoint, influence, lissa, self_similarity, tracin


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 3)).eval()


def clusters(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points around three axes, and which axis."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=chance)
    centres = torch.eye(3).repeat_interleave(2, 1) * 2
    return centres[labels] + 0.5 * torch.randn(n, 6, generator=chance), labels


def write(folder: Path, *models: nn.Module) -> list[Path]:
    paths = [folder / f"{index}.safetensors" for index in range(len(models))]
    for path, model in zip(paths, models, strict=True):
        save_file(model.state_dict(), path)
    return paths


def plain_products(model: nn.Module, train: Tensor, query: Tensor) -> Tensor:
    """<grad L(query), grad L(train)> by autograd, one picture at a time."""

    def rows(x: Tensor) -> Tensor:
        parts = [
            torch.autograd.grad(self_similarity(model, one[None]).sum(), list(model.parameters()))
            for one in x
        ]
        return torch.stack([torch.cat([p.flatten() for p in part]) for part in parts])

    return rows(query) @ rows(train).T


def by_tracin(model: nn.Module, train: Tensor, query: Tensor, folder: Path, **kwargs) -> Tensor:
    pytest.importorskip("captum")
    (path,) = write(folder, model)
    return tracin(model, train, query, [Checkpoint(path, 0.1)], **kwargs)


def test_one_checkpoint_is_the_learning_rate_times_the_product(tmp_path: Path) -> None:
    model, (train, _), (query, _) = net(), clusters(9, 0), clusters(4, 1)
    found = by_tracin(model, train, query, tmp_path, batch_size=2)
    assert found.shape == (4, 9)
    torch.testing.assert_close(found, 0.1 * plain_products(model, train, query))


def test_checkpoints_add_up_each_with_its_learning_rate(tmp_path: Path) -> None:
    pytest.importorskip("captum")
    first, second = net(), net()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(0.3)
    second[2].running_mean += 0.5  # buffers belong to a checkpoint too
    (train, _), (query, _) = clusters(7, 0), clusters(3, 1)
    one, two = write(tmp_path, first, second)
    found = tracin(net(), train, query, [Checkpoint(one, 0.1), Checkpoint(two, 0.02)])
    products = [plain_products(model, train, query) for model in (first, second)]
    torch.testing.assert_close(found, 0.1 * products[0] + 0.02 * products[1])


def test_checkpoints_are_read_as_safetensors_only(tmp_path: Path) -> None:
    pytest.importorskip("captum")
    model, (x, _) = net(), clusters(3, 0)
    torch.save(model.state_dict(), tmp_path / "pickled.pt")
    (other,) = write(tmp_path, nn.Linear(6, 3))
    for path, say in ((tmp_path / "pickled.pt", "safetensors"), (other, "don't fit Sequential")):
        with pytest.raises(ModelError, match=say):
            tracin(model, x, x, [Checkpoint(path, 0.1)])
    with pytest.raises(ArgumentError, match="at least one"):
        tracin(model, x, x, [])
    for rate in (0.0, -1.0, float("nan")):
        with pytest.raises(ArgumentError, match="learning rate"):
            tracin(model, x, x, [Checkpoint(other, rate)])


def test_without_captum_the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.influence", None)
    with pytest.raises(MissingError, match=r"nem-stream\[eval\]"):
        tracin(net(), *(clusters(3, 0)[0],) * 2, [Checkpoint(tmp_path / "a", 0.1)])


# All three


@pytest.fixture(params=["influence", "lissa", "tracin"])
def method(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "tracin":
        return lambda model, train, query, **kwargs: by_tracin(
            model, train, query, tmp_path, **kwargs
        )
    own = {"influence": influence, "lissa": lissa}[request.param]
    extra = {"lissa": {"scale": 300.0, "steps": 8}}.get(
        request.param, {"damp": 0.1, "directions": 99}
    )
    return lambda model, train, query, **kwargs: own(model, train, query, **extra, **kwargs)


def test_a_caller_without_gradients_gets_the_same(method) -> None:
    model, (train, _), (query, _) = net(), clusters(5, 0), clusters(2, 1)
    found = method(model, train, query)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert torch.equal(method(model, train, query), found)


def test_on_itself_it_is_symmetric_and_never_negative(method) -> None:
    x, _ = clusters(8, 0)
    found = method(net(), x, x)
    torch.testing.assert_close(found, found.T, rtol=1e-3, atol=1e-6)
    assert (found.diagonal() >= 0).all()
    assert found.diagonal().max() > 0


def test_without_a_gradient_it_is_zero(method) -> None:
    model = nn.Linear(6, 3, bias=False)
    (x, _), nothing = clusters(5, 0), torch.zeros(2, 6)
    assert method(model, x, nothing).count_nonzero() == 0
    assert method(model, torch.cat([x, nothing]), x)[:, 5:].count_nonzero() == 0


def test_the_model_is_left_as_it_was(method) -> None:
    model = net().train()
    model[0].requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x, _ = clusters(5, 0)
    trained = method(model, x, x)
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [False, False] + [True] * 4
    assert all(p.grad is None for p in model.parameters())
    assert all(module.training for module in model.modules())
    # What is frozen is explained as well, and always in eval mode.
    torch.testing.assert_close(trained, method(net(), x, x))


def test_proponents_share_the_label(method) -> None:
    (train, labels), (query, own) = clusters(30, 0), clusters(12, 1)
    torch.manual_seed(3)
    found = method(nn.Linear(6, 6), train, query)
    top, bottom = label_agreement(found.numpy(), own.numpy(), labels.numpy(), 5)
    assert top > 0.75
    assert bottom < top - 0.4


def test_parameters_narrow_it(method) -> None:
    x, _ = clusters(6, 0)
    model = net()
    whole, last = method(model, x, x), method(model, x, x, parameters=["3"])
    assert not torch.allclose(whole, last)
    both = method(model, x, x, parameters=["3.bias", "3.weight"])
    torch.testing.assert_close(last, both)
    with pytest.raises(ArgumentError, match=r"parameters 'head': .* as 0\.weight"):
        method(model, x, x, parameters=["3", "head"])
