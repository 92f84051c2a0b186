"""Feature importance from gradients, over captum: of the embedding without a label, or of a class.

All attribute `nem.explained.Explained`, for the embedding g_x(z) = <f(x), f(z)>; f(x) goes to
captum as `additional_forward_args`, so each picture of a batch, at each step, is held against its
own. What is random is drawn once for all pictures from `seed` alone, not from the global
generators: a picture's map doesn't depend on the batch it is in.

`attribute` gives the signed values per channel, the functions named as the methods give maps.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple, get_args

from torch import Tensor

from nem.attribution_rules import (
    Baseline,
    Rule,
    guided,
    path,
    plain,
    shap,
    smooth,
)
from nem.backbone import Backbone
from nem.budget import pictures_per_run
from nem.errors import ArgumentError
from nem.explained import Explained, Of, check_pictures
from nem.method import Map

Reduce = Literal["abs", "sum"]
"""Channels to one map: the sum of absolute values, or the sum with signs."""


class Attribution(NamedTuple):
    """Signed importance of each channel of each pixel.

    Attributes:
        values: (N, 3, S, S), in units of g (gradients: per unit of the normalised input).
        forwards: runs of the backbone per picture.
        backwards: gradients through the backbone per picture.
    """

    values: Tensor
    forwards: int
    backwards: int

    def map(self, reduce: Reduce = "abs") -> Map:
        """One value per pixel, float32."""
        if reduce not in get_args(Reduce):
            raise ArgumentError(f"reduce {reduce!r}: allowed are {', '.join(get_args(Reduce))}")
        values = self.values.abs() if reduce == "abs" else self.values
        return Map(values.sum(1).float(), self.forwards, self.backwards)


def attribute(
    rule: Rule,
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    of: Of = "embedding",
    softmax: bool = False,
    memory_mb: int = 512,
) -> Attribution:
    """Signed values per channel.

    Args:
        rule: one of `plain`, `path`, `shap`, `smooth`, `guided`, its options bound by
            `functools.partial`.
        backbone: the model.
        x: normalised pictures, float (N, 3, S, S).
        target: (N,) int64, the class with of="class"; below 0, or None, the most probable one.
        of: explain the "embedding", or a "class".
        softmax: of a class explain the probability, not the logit.
        memory_mb: bound for the memory of the pictures seen at once.

    Raises:
        ArgumentError: pictures, target or options that don't fit.
        ModelError: a class is asked of a model without classes.
        MissingError: captum isn't installed.
    """
    g = Explained(backbone, of, softmax=softmax)
    check_pictures(backbone, x)
    part = pictures_per_run(x, memory_mb, gradient=True)
    reference, first = g.references(x, target, part)
    values, runs = rule(g, x.detach(), reference, part)
    return Attribution(values, first + runs, runs)


def saliency(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    of: Of = "embedding",
    softmax: bool = False,
    reduce: Reduce = "abs",
    seed: int = 0,
    memory_mb: int = 512,
) -> Map:
    """The gradient of g at the picture. Simonyan et al. 2014.

    A model that ends in LayerNorm has embeddings of nearly one length, so for of="embedding" this
    gradient, of ||f||^2 / 2, is nearly 0 there: take `integrated_gradients`.

    Args as in `attribute`; `reduce` says how channels become one map; nothing is random, so
    `seed` changes nothing.
    """
    run = partial(attribute, of=of, softmax=softmax, memory_mb=memory_mb)
    return run(plain, backbone, x, target).map(reduce)


def integrated_gradients(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    of: Of = "embedding",
    softmax: bool = False,
    steps: int = 50,
    baseline: Baseline | Tensor = "mean",
    reduce: Reduce = "abs",
    seed: int = 0,
    memory_mb: int = 512,
) -> Map:
    """(x - b) times the mean gradient on the way from b to x. Sundararajan et al. 2017.

    The values sum up to g(x) - g(b); for the embedding that is ||f(x)||^2 - <f(x), f(b)>.

    Args as in `saliency`, and:
        steps: points on the way, placed and weighted by Gauss-Legendre quadrature.
        baseline: b: "mean", "blur", or pictures that broadcast to `x`.
    """
    rule = partial(path, steps=steps, baseline=baseline)
    run = partial(attribute, of=of, softmax=softmax, memory_mb=memory_mb)
    return run(rule, backbone, x, target).map(reduce)


def gradient_shap(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    of: Of = "embedding",
    softmax: bool = False,
    samples: int = 50,
    baseline: Baseline | Tensor = "mean",
    noise: float = 0.0,
    reduce: Reduce = "abs",
    seed: int = 0,
    memory_mb: int = 512,
) -> Map:
    """E[(x - b) grad g(b + U (x - b))], U uniform on [0, 1]. Lundberg & Lee 2017 (GradientSHAP).

    Args as in `saliency`, and:
        samples: of the expectation, one U in each equal part of [0, 1].
        baseline: b: "mean", "blur", or pictures that broadcast to `x`.
        noise: deviation of normal noise added to x in each sample, in normalised units.
    """
    rule = partial(shap, samples=samples, baseline=baseline, noise=noise, seed=seed)
    run = partial(attribute, of=of, softmax=softmax, memory_mb=memory_mb)
    return run(rule, backbone, x, target).map(reduce)


def smooth_grad(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    of: Of = "embedding",
    softmax: bool = False,
    samples: int = 25,
    noise: float = 0.15,
    reduce: Reduce = "abs",
    seed: int = 0,
    memory_mb: int = 512,
) -> Map:
    """The mean gradient around the picture. Smilkov et al. 2017.

    Args as in `saliency`, and:
        samples: noisy pictures.
        noise: deviation of their normal noise, as a share of the picture's largest less its
            smallest value (the paper: 0.1 to 0.2).
    """
    rule = partial(smooth, samples=samples, noise=noise, seed=seed)
    run = partial(attribute, of=of, softmax=softmax, memory_mb=memory_mb)
    return run(rule, backbone, x, target).map(reduce)


def guided_backprop(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    of: Of = "embedding",
    softmax: bool = False,
    reduce: Reduce = "abs",
    seed: int = 0,
    memory_mb: int = 512,
) -> Map:
    """The gradient, of which each ReLU passes only the positive part. Springenberg et al. 2015.

    It catches ReLU as a module, reused or in place, and as a function alike. Args as in `saliency`.

    Raises:
        ModelError: the model runs no ReLU; smooth activations have no such rule.
    """
    run = partial(attribute, of=of, softmax=softmax, memory_mb=memory_mb)
    return run(guided, backbone, x, target).map(reduce)
