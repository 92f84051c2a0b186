import copy

import pytest
import torch
from torch import nn

from nem.attribution import attribute, guided_backprop
from nem.attribution_rules import guided, plain
from nem.errors import ModelError
from tests.nem.toys import batch, tiny_backbone

pytest.importorskip("captum", reason="needs the eval extra")


class Functional(nn.Module):
    """ReLUs as a function, in place, and one module used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, 4, 3, padding=1) for i in (3, 4, 4))
        self.twice = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.a(x))
        x = torch.nn.functional.relu(self.b(x))
        return self.twice(self.c(x)).mean((2, 3))


class Modules(Functional):
    """The same function with a module of its own for each ReLU."""

    def __init__(self, same: Functional) -> None:
        super().__init__()
        self.load_state_dict(same.state_dict())
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, relu in zip((self.a, self.b, self.c), self.relus, strict=True):
            x = relu(conv(x))
        return x.mean((2, 3))


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_guided_backprop_equals_captum_s_where_that_one_works() -> None:
    from captum.attr import GuidedBackprop

    x, target = batch(2), torch.tensor([3, 1])
    backbone = tiny_backbone()
    apart = copy.deepcopy(backbone.model)
    for module in apart.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    theirs = GuidedBackprop(apart).attribute(x.clone().requires_grad_(), target=target)
    ours = attribute(guided, backbone, x, target, of="class").values
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(ours, attribute(plain, backbone, x, target, of="class").values)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone.model = Functional()
    apart = Modules(backbone.model)
    theirs = GuidedBackprop(apart).attribute(x.clone().requires_grad_(), target=target)
    ours = attribute(guided, backbone, x, target, of="class").values
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("family", "found"), [("vit", "GELU"), ("convnext", "GELU")])
def test_guided_backprop_without_relu_is_refused(family: str, found: str) -> None:
    with pytest.raises(ModelError, match=rf"needs ReLU, found .*{found}.*; take smooth_grad"):
        guided_backprop(tiny_backbone(family), batch(1))
