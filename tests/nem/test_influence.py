import pytest
import torch
from torch import Tensor, nn

from nem.errors import ArgumentError
from nem.influence import influence, lissa
from tests.nem.test_tracin import clusters, net

RIDGE = 0.3


class Line(nn.Module):
    """w x for three numbers, w at the minimum of the ridge loss of `points()`."""

    def __init__(self) -> None:
        super().__init__()
        x, y = points()[:, :3], points()[:, 3]
        hessian = x.T @ x / len(x) + RIDGE * torch.eye(3, dtype=x.dtype)
        self.w = nn.Parameter(torch.linalg.solve(hessian, x.T @ y / len(x)))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3] @ self.w


def points(n: int = 20, seed: int = 0) -> Tensor:
    """Three inputs and the value to be predicted, (n, 4)."""
    return torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ridge(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) - x[:, 3]).square() / 2 + RIDGE / 2 * model.w.square().sum()


def gradients(model: Line, x: Tensor) -> Tensor:
    error = model(x) - x[:, 3]
    return (error[:, None] * x[:, :3] + RIDGE * model.w).detach()


def closed_form(model: Line, train: Tensor, query: Tensor, damp: float = 0.0) -> Tensor:
    x = train[:, :3]
    hessian = x.T @ x / len(x) + (RIDGE + damp) * torch.eye(3, dtype=x.dtype)
    ours, theirs = gradients(model, query), gradients(model, train)
    return ours @ torch.linalg.solve(hessian, theirs.T) / len(x)


def test_influence_is_the_closed_form_of_ridge_regression() -> None:
    model, train, query = Line(), points(), points(5, 1)
    found = influence(model, train, query, loss=ridge, damp=1e-9, batch_size=3)
    assert found.shape == (5, 20)
    torch.testing.assert_close(found, closed_form(model, train, query), rtol=1e-6, atol=1e-12)
    damped = influence(model, train, query, loss=ridge, damp=0.5)
    torch.testing.assert_close(damped, closed_form(model, train, query, 0.5))


def test_influence_is_what_leaving_an_example_out_does() -> None:
    """Against ridge regression itself, solved again with an example weighted a little less."""
    model, train, query = Line(), points(), points(4, 1)
    x, y, n, less = train[:, :3], train[:, 3], 20, 1e-5
    found = influence(model, train, query, loss=ridge, damp=1e-12)
    before = ridge(model, query).detach()
    for index in range(n):
        weights = torch.full((n,), 1 / n, dtype=x.dtype)
        weights[index] -= less / n
        hessian = (weights[:, None] * x).T @ x + weights.sum() * RIDGE * torch.eye(3, dtype=x.dtype)
        again = Line()
        again.w.data = torch.linalg.solve(hessian, x.T @ (weights * y))
        growth = (ridge(again, query).detach() - before) / less
        torch.testing.assert_close(found[:, index], growth, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_examples_of_many_parameters(dtype: torch.dtype) -> None:
    """The directions are soon exhausted; rounding noise must not count as more of them."""
    torch.manual_seed(0)
    model, train, query = nn.Linear(60, 1, bias=False), torch.randn(4, 60), torch.randn(3, 60)
    model, train, query = model.to(dtype), train.to(dtype), query.to(dtype)
    found = influence(model, train, query, damp=0.1, directions=50)
    hessian = train.T @ train / 4 + 0.1 * torch.eye(60, dtype=dtype)
    slopes = [(model(x) * x).detach() for x in (query, train)]
    right = slopes[0] @ torch.linalg.solve(hessian, slopes[1].T) / 4
    torch.testing.assert_close(found, right, rtol=2e-3, atol=1e-5)


def test_influence_agrees_with_captum_where_captum_is_exact() -> None:
    captum = pytest.importorskip("captum.influence")
    model, train, query = Line(), points(), points(5, 1)

    class AsItIs:
        reduction = "none"

        def __call__(self, outputs: Tensor, _: Tensor) -> Tensor:
            return outputs

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = model

        def forward(self, x: Tensor) -> Tensor:
            return ridge(self.line, x)

    theirs = captum.NaiveInfluenceFunction(
        Whole(),
        torch.utils.data.TensorDataset(train, torch.zeros(20)),
        "",
        checkpoints_load_func=lambda *_: 1.0,
        loss_fn=AsItIs(),
        batch_size=7,
        hessian_reg=0.01 * 20,  # theirs is the Hessian of the sum, ours that of the mean
    ).influence((query, torch.zeros(5)))
    ours = influence(model, train, query, loss=ridge, damp=0.01)
    torch.testing.assert_close(ours, theirs, check_dtype=False)


def test_more_directions_come_closer() -> None:
    model, (train, _), (query, _) = net(), clusters(20, 0), clusters(4, 1)
    few, some, many, every = (
        influence(model, train, query, damp=0.2, directions=n) for n in (1, 8, 32, 10_000)
    )
    apart = [float((scores - every).norm() / every.norm()) for scores in (few, some, many)]
    assert apart[0] > 2 * apart[1] > 4 * apart[2]
    assert apart[2] < 0.03


def test_lissa_tends_to_the_closed_form() -> None:
    model, train, query = Line(), points(), points(5, 1)
    options = {"loss": ridge, "damp": 0.02, "steps": 100}
    found = lissa(model, train, query, scale=3, batch_size=7, **options)
    right = closed_form(model, train, query, damp=0.06)
    torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-10)
    drawn = [lissa(model, train, query, scale=10, draw=10, seed=s, **options) for s in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    right = closed_form(model, train, query, damp=0.2)
    assert float((drawn[0] - right).norm() / right.norm()) < 0.3


def test_lissa_by_its_defaults_is_nearly_the_plain_product() -> None:
    """As written: 101 steps that hardly move, over scale and N."""
    model, train, query = Line(), points(), points(5, 1)
    found = lissa(model, train, query, loss=ridge)
    products = gradients(model, query) @ gradients(model, train).T
    likeness = torch.cosine_similarity(found, products)
    assert (likeness > 0.99).all()
    by_hand = start = gradients(model, query)
    x = train[:, :3]
    hessian = x.T @ x / 20 + RIDGE * torch.eye(3, dtype=x.dtype)
    for _ in range(100):
        by_hand = start + (1 - 1e-3) * by_hand - by_hand @ hessian / 1000
    torch.testing.assert_close(found, by_hand @ gradients(model, train).T / (1000 * 20))


def test_lissa_that_grows_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"grows without end: .* raise scale or damp"):
        lissa(Line(), points(), points(2, 1), loss=ridge, scale=0.1, steps=50)
