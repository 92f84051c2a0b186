"""What the gradient methods share: the number they explain, the class, the library.

Label-free, the number is g_x(z) = <f(x), f(z)> with f(x) held fixed (Crabbe & van der Schaar 2022,
Label-Free Explainability for Unsupervised Models, section 3.1). It is never the cosine, whose
gradient at z = x is 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from nem.backbone import Backbone
from nem.errors import ArgumentError, MissingError, ModelError

Of = Literal["embedding", "class"]
"""What is explained: the embedding as a whole (needs no label), or the score of one class."""


class Explained(nn.Module):
    """The number per picture whose gradient is taken.

    embedding: <f(x), f(z)>. class: the logit of the target, or its softmax.

    Args:
        backbone: the model.
        of: "embedding" or "class".
        softmax: of a class take the probability, not the logit.

    Raises:
        ArgumentError: another `of`.
        ModelError: a class is asked of a model without classes.
    """

    def __init__(self, backbone: Backbone, of: Of = "embedding", *, softmax: bool = False) -> None:
        super().__init__()
        if of not in get_args(Of):
            raise ArgumentError(f"of {of!r}: allowed are {', '.join(get_args(Of))}")
        if of == "class" and backbone.num_classes == 0:
            raise ModelError(
                f"backbone {backbone.name}: no classes to explain; take of='embedding', in "
                "Python, or another method"
            )
        self.backbone, self.of, self.softmax = backbone, of, softmax

    def outputs(self, z: Tensor) -> Tensor:
        """Embeddings (N, D), or logits or probabilities (N, C), of pictures (N, 3, S, S)."""
        if self.of == "embedding":
            return self.backbone.embed(z)
        logits: Tensor = self.backbone.model(z)
        return logits.softmax(1) if self.softmax else logits

    def pick(self, outputs: Tensor, reference: Tensor) -> Tensor:
        """The number (N,) from `outputs`; `reference` as `references` gives it."""
        if self.of == "embedding":
            return (outputs * reference).sum(1)
        return outputs.gather(1, reference[:, None])[:, 0]

    def forward(self, z: Tensor, reference: Tensor) -> Tensor:
        """g(z), (N,): one number per picture, of no other picture in the batch."""
        return self.pick(self.outputs(z), reference)

    @torch.no_grad()
    def references(self, x: Tensor, target: Tensor | None, part: int) -> tuple[Tensor, int]:
        """What to hold each picture against, and the runs per picture that took (0 or 1).

        Args:
            x: (N, 3, S, S).
            target: (N,) int64; below 0, or None, the most probable class. Ignored for embeddings.
            part: pictures per run.

        Returns:
            The embeddings (N, D), or the classes (N,) int64.

        Raises:
            ArgumentError: a target that doesn't fit the model.
        """
        if self.of == "embedding":
            return torch.cat([self.backbone.embed(p) for (p,) in parts(part, x)]), 1
        return targets(self.backbone, x, target, part)


@torch.no_grad()
def targets(backbone: Backbone, x: Tensor, target: Tensor | None, part: int) -> tuple[Tensor, int]:
    """The classes to explain, (N,) int64, and the runs per picture that took (0 or 1).

    Args:
        backbone: a model with classes.
        x: (N, 3, S, S).
        target: (N,) int64; below 0, or None, the most probable class.
        part: pictures per run.

    Raises:
        ArgumentError: a target that is no class, or not one per picture.
    """
    if target is not None:
        target = target.to(x.device, torch.int64)
        if target.shape != (len(x),) or int(target.max()) >= backbone.num_classes:
            raise ArgumentError(
                f"target {target.tolist()}: expected {len(x)} classes of 0 to "
                f"{backbone.num_classes - 1}, one per picture, or below 0 for the most probable"
            )
        if int(target.min()) >= 0:
            return target, 0
    best = torch.cat([backbone.model(p).argmax(1) for (p,) in parts(part, x)])
    return (best if target is None else torch.where(target < 0, best, target)), 1


def check_pictures(backbone: Backbone, x: Tensor) -> None:
    """Raise ArgumentError unless `x` is float (N, 3, S, S) with N >= 1 and the model's S."""
    size = backbone.input_size
    if x.ndim != 4 or x.shape[1:] != (3, size, size) or not len(x) or not x.is_floating_point():
        raise ArgumentError(
            f"pictures {tuple(x.shape)} {x.dtype}: expected normalised float "
            f"(N, 3, {size}, {size}), N at least 1"
        )


def parts(size: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors of one length alike, `size` rows at a time."""
    return zip(*(torch.split(tensor, size) for tensor in tensors), strict=True)


def library(module: str, package: str) -> ModuleType:
    """Import an optional library.

    Raises:
        MissingError: it isn't installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingError(
            f"this method needs {package}, and {error.name} is not installed: "
            "pip install 'nem-stream[eval]'"
        ) from None
