"""Label-free example importance from a loss: influence functions and TracIn.

Which examples would, if left out, make the loss of a picture grow? The loss needs no label: it is
any number per picture that the encoder alone gives (Crabbe and van der Schaar 2022, Label-Free
Explainability for Unsupervised Models). Unlike Deep-KNN and SimplEx (`nem.examples`) the answer
depends on that choice, for most losses also on how the embedding space is turned.

The given model is never touched: all work is done on a copy in eval mode.

TracIn is captum's. Its Arnoldi influence functions (0.9) are not used: the iteration loses its last
direction whenever it ends early, for errors of 16 % and more on linear models of 3 to 100 weights;
kept from ending, it takes rounding noise for directions, for errors of up to 200 % in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nem.backbone import load_weights
from nem.errors import ArgumentError
from nem.explained import library
from nem.gradients import Loss, Losses, self_similarity

__all__ = ["Checkpoint", "Loss", "influence", "lissa", "self_similarity", "tracin"]

_ROUNDINGS = 1000
"""A new direction this many times the rounding error of the largest product is taken for noise."""


class Checkpoint(NamedTuple):
    """The model at one moment of its training.

    Attributes:
        path: safetensors file of its `state_dict`; pickled files are not read.
        learning_rate: in force there.
    """

    path: Path
    learning_rate: float


@torch.inference_mode(False)
def influence(
    model: nn.Module,
    train: Tensor,
    query: Tensor,
    *,
    loss: Loss = self_similarity,
    parameters: Sequence[str] | None = None,
    damp: float = 1e-2,
    directions: int = 50,
    batch_size: int = 16,
) -> Tensor:
    """Influence functions (Koh and Liang 2017) by Lanczos iteration.

    c[i, n] = 1/N grad L(query_i)^T (H + damp)^-1 grad L(train_n), H the Hessian of the mean loss
    over `train`: by how much, to first order, L(query_i) grows when example n is left out. The
    inverse is taken in the space that H spans from the query's own gradient, within which it is
    exact. Negative curvature, where the loss is no minimum, counts by its size (Dauphin et al.
    2014).

    Args:
        model: the encoder; a `Backbone` or any module.
        train: examples (N, ...).
        query: pictures (Q, ...).
        loss: (model, x) to one loss per picture (N,).
        parameters: of the encoder, by name or beginning, as ("layer4", "fc.weight"); default all
            that the loss depends on.
        damp: added to all curvatures, above 0; the smaller, the more directions are needed.
        directions: per query; as many products of H with a vector, over all of `train`. As many
            vectors as long as the parameters are in memory, besides Q + `batch_size`.
        batch_size: pictures at a time.

    Returns:
        (Q, N); positive = proponent.

    Raises:
        ArgumentError: what can't be used.
    """
    _positive(damp=damp, directions=directions, batch_size=batch_size)
    losses = Losses(model, loss, train, parameters)
    solved = []
    for slope in torch.cat(list(losses.gradients(query, batch_size))):
        if not slope.any():
            solved.append(slope)
            continue
        values, basis = _curvature(losses, train, slope, directions, batch_size)
        solved.append((basis @ slope / (values.abs() + damp)) @ basis)
    return _products(losses, torch.stack(solved), train, batch_size) / len(train)


@torch.inference_mode(False)
def lissa(
    model: nn.Module,
    train: Tensor,
    query: Tensor,
    *,
    loss: Loss = self_similarity,
    parameters: Sequence[str] | None = None,
    damp: float = 1e-3,
    scale: float = 1000.0,
    steps: int = 100,
    draw: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> Tensor:
    """Influence functions by LiSSA (Agarwal et al. 2017): v <- g + (1 - damp) v - H v / scale.

    Scores are v^T grad L(train_n) / (scale N). The recursion tends to the inverse of
    H + damp scale, at a speed of 1 - damp - (curvature / scale) per step. With the defaults, those
    of the label-free paper's code, 100 steps end near its start unless curvatures are in the
    hundreds: the scores then rank as the plain products of gradients do. For the inverse itself,
    set `scale` just above the largest curvature and `steps` to some multiples of its ratio to
    the smallest one that counts; `influence` needs no such choice.

    Args:
        model: as in `influence`.
        train: as in `influence`.
        query: as in `influence`.
        loss: as in `influence`.
        parameters: as in `influence`.
        damp: shrinks v at each step, 0 to 1; in effect damp scale is added to the Hessian.
        scale: divides the Hessian, above half its largest curvature.
        steps: of the recursion.
        draw: examples drawn at each step for the Hessian; default all.
        batch_size: pictures at a time.
        seed: of the draws.

    Returns:
        (Q, N); positive = proponent.

    Raises:
        ArgumentError: what can't be used, or a recursion that grows without end.
    """
    _positive(scale=scale, steps=steps, batch_size=batch_size)
    if not 0 <= damp < 1 or (draw is not None and not 1 <= draw <= len(train)):
        raise ArgumentError(
            f"damp {damp}, draw {draw}: allowed are 0 to 1, and 1 to {len(train)} (the examples)"
        )
    losses = Losses(model, loss, train, parameters)
    chance = torch.Generator().manual_seed(seed)
    start = torch.cat(list(losses.gradients(query, batch_size)))
    v = start
    for _ in range(steps):
        drawn = train
        if draw is not None:
            drawn = train[torch.randperm(len(train), generator=chance)[:draw].to(train.device)]
        v = start + (1 - damp) * v - losses.hessian(v, drawn, batch_size) / scale
    # A recursion that converges adds at most |g| per step.
    if not bool((v.norm(dim=1) <= 1.01 * (steps + 1) * start.norm(dim=1)).all()):
        raise ArgumentError(
            f"LiSSA grows without end: the Hessian has curvatures above 2 scale = {2 * scale:g} or "
            f"below -damp scale = {-damp * scale:g}; raise scale or damp"
        )
    return _products(losses, v, train, batch_size) / (scale * len(train))


@torch.inference_mode(False)
def tracin(
    model: nn.Module,
    train: Tensor,
    query: Tensor,
    checkpoints: Sequence[Checkpoint],
    *,
    loss: Loss = self_similarity,
    parameters: Sequence[str] | None = None,
    batch_size: int = 16,
) -> Tensor:
    """TracIn (Pruthi et al. 2020), captum's TracInCP.

    c[i, n] = sum over checkpoints of learning_rate <grad L(query_i), grad L(train_n)>. (captum's
    faster TracInCPFast asks for a loss on the output of a linear last layer, which an encoder
    rarely ends in; `parameters` narrows the sum to any layer.)

    Args:
        model: as in `influence`; its own weights don't matter.
        train: as in `influence`.
        query: as in `influence`.
        checkpoints: of its training.
        loss: as in `influence`.
        parameters: as in `influence`.
        batch_size: queries and examples at a time; for each batch of queries all gradients of
            `train` are taken anew, and that of each query is kept at each checkpoint.

    Returns:
        (Q, N); positive = proponent.

    Raises:
        ArgumentError: what can't be used, or a learning rate that is not a number above 0.
        ModelError: a checkpoint can't be read, or its tensors don't fit the model.
        MissingError: captum isn't installed.
    """
    captum = library("captum.influence", "captum")
    _positive(batch_size=batch_size)
    if not checkpoints:
        raise ArgumentError("no checkpoint; give at least one")
    for checkpoint in checkpoints:
        if not (math.isfinite(checkpoint.learning_rate) and checkpoint.learning_rate > 0):
            raise ArgumentError(
                f"checkpoint {checkpoint.path}: learning rate {checkpoint.learning_rate}, allowed: "
                "above 0"
            )
    losses = Losses(model, loss, train, parameters)

    def load(_: nn.Module, checkpoint: Checkpoint) -> float:
        load_weights(losses.encoder, Path(checkpoint.path), type(model).__name__)
        return checkpoint.learning_rate

    traced = captum.TracInCP(
        losses,
        TensorDataset(train, torch.zeros(len(train))),  # captum wants labels; nobody reads them
        list(checkpoints),
        checkpoints_load_func=load,
        loss_fn=_AsItIs(),
        batch_size=batch_size,
    )
    parts = torch.split(query, batch_size)
    return torch.cat([traced.influence((part, torch.zeros(len(part)))) for part in parts])


class _AsItIs:
    """captum's loss of outputs and labels, where the outputs are the losses."""

    reduction = "none"

    def __call__(self, outputs: Tensor, _: Tensor) -> Tensor:
        return outputs


def _curvature(
    losses: Losses, train: Tensor, start: Tensor, most: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Curvatures (K,) and their directions (K, P), orthonormal, in the span of H^k start."""
    noise = _ROUNDINGS * torch.finfo(start.dtype).eps
    basis = [start / start.norm()]
    products: list[Tensor] = []
    largest = 0.0
    while True:
        products.append(losses.hessian(basis[-1][None], train, batch_size)[0])
        largest = max(largest, float(products[-1].norm()))
        if len(basis) == min(most, losses.size):
            break
        known, rest = torch.stack(basis), products[-1]
        for _ in range(2):  # once leaves what cancelled in float32
            rest = rest - known.T @ (known @ rest)
        if not float(rest.norm()) > noise * largest:
            break
        basis.append(rest / rest.norm())
    known = torch.stack(basis)
    within = known @ torch.stack(products).T
    values, vectors = torch.linalg.eigh((within + within.T) / 2)
    return values, vectors.T @ known


def _products(losses: Losses, vectors: Tensor, x: Tensor, batch_size: int) -> Tensor:
    """Vectors (K, P) times the gradients of pictures (N, ...): (K, N)."""
    return torch.cat([vectors @ part.T for part in losses.gradients(x, batch_size)], 1)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ArgumentError(f"{name} {value}: allowed are numbers above 0")
