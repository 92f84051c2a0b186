"""Gradients and Hessians of a loss per picture, by the weights of a copy of a model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from nem.errors import ArgumentError

Loss = Callable[[nn.Module, Tensor], Tensor]
"""A model and pictures (N, ...) to one loss per picture (N,), independent of the others. As
`lambda model, x: (model(x) - x).square().flatten(1).mean(1)` for an autoencoder."""


def self_similarity(model: nn.Module, x: Tensor) -> Tensor:
    """1/2 |f(x)|^2, (N,): the similarity <f(x), f(x)> label-free feature importance explains.

    Its gradient is that of <f(x), f(z)> at z = x with f(x) held fixed. f is `model.embed` where
    there is one (a `Backbone`), else the model itself.
    """
    embed: Callable[[Tensor], Tensor] = getattr(model, "embed", model)
    return embed(x).flatten(1).square().sum(1) / 2


class Losses(nn.Module):
    """A loss as a module whose parameters are the chosen ones of a copy of the model.

    Args:
        model: copied; never changed.
        loss: one number per picture.
        x: pictures to try it on, (N, ...).
        names: parameters, by name or beginning; default all that the loss depends on.

    Attributes:
        encoder: the copy, in eval mode.
        size: how many numbers the chosen parameters are, P.
        like: one of them, for device and type.

    Raises:
        ArgumentError: no pictures, a loss that is not one number per picture, or a name that no
            parameter has that the loss depends on.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, x: Tensor, names: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        if not len(x):
            raise ArgumentError("no examples; give at least one")
        # In a tuple: no module of this one, so that only what is chosen counts as its parameters.
        self._hidden = (copy.deepcopy(model).eval().requires_grad_(False),)
        self._loss = loss
        wanted = {
            name: parameter.requires_grad_()
            for name, parameter in self.encoder.named_parameters()
            if names is None or any(_below(name, start) for start in names)
        }
        sample = self(x[:1])
        used: Sequence[Tensor | None] = ()
        if sample.requires_grad:
            used = torch.autograd.grad(sample.sum(), list(wanted.values()), allow_unused=True)
        chosen = {
            name: parameter
            for (name, parameter), slope in zip(wanted.items(), used, strict=False)
            if slope is not None
        }
        for start in names or ():
            if not any(_below(name, start) for name in chosen):
                raise ArgumentError(
                    f"parameters {start!r}: the loss depends on none of that name; they are as "
                    f"{', '.join([name for name, _ in self.encoder.named_parameters()][:3])}"
                )
        if not chosen:
            raise ArgumentError("the loss depends on no parameter of the model")
        self.chosen = nn.ParameterList(chosen.values())
        self.like = self.chosen[0]
        self.size = sum(parameter.numel() for parameter in self.chosen)

    @property
    def encoder(self) -> nn.Module:
        """The copy of the model, in eval mode."""
        return self._hidden[0]

    def forward(self, x: Tensor) -> Tensor:
        """The loss of each picture, (N,)."""
        losses = self._loss(self.encoder, x)
        if losses.shape != (len(x),):
            raise ArgumentError(
                f"the loss gave {tuple(losses.shape)} for {len(x)} pictures: expected ({len(x)},)"
            )
        return losses

    def gradients(self, x: Tensor, batch_size: int) -> Iterator[Tensor]:
        """The gradient of each picture's loss, (n, P) for each batch of n pictures."""
        for part in torch.split(x, batch_size):
            rows = self(part)
            yield torch.stack(
                [self._flat(row, keep=index + 1 < len(part)) for index, row in enumerate(rows)]
            )

    def hessian(self, vectors: Tensor, x: Tensor, batch_size: int) -> Tensor:
        """The Hessian of the mean loss over `x`, times vectors (K, P): (K, P)."""
        total = torch.zeros_like(vectors)
        for part in torch.split(x, batch_size):
            with sdpa_kernel(SDPBackend.MATH), _Smooth():
                slope = self._flat(self(part).sum(), keep=True, again=True)
            if not slope.requires_grad:  # the loss is linear: no curvature
                continue
            for row, vector in zip(total, vectors, strict=True):
                row += self._flat(slope @ vector, keep=True)
        return total / len(x)

    def _flat(self, value: Tensor, *, keep: bool, again: bool = False) -> Tensor:
        """The gradient (P,) of a number; `keep` its graph, or make it ready to derive `again`."""
        parts = torch.autograd.grad(
            value,
            list(self.chosen),
            retain_graph=keep,
            create_graph=again,
            materialize_grads=True,
        )
        return torch.cat([part.flatten() for part in parts])


class _Smooth(TorchFunctionMode):
    """What torch can derive once only, by what it can derive again; with the same values.

    Beside it stand fused attentions, for which torch has the plain one (`SDPBackend.MATH`).
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is functional.hardsigmoid:
            return functional.relu6(args[0] + 3) / 6
        return func(*args, **(kwargs or {}))


def _below(name: str, start: str) -> bool:
    return name == start or name.startswith(start + ".")
