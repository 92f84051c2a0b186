"""How each gradient method values pictures: rules for `nem.attribution.attribute`.

A rule takes the explained number g, pictures (N, 3, S, S), their references and how many pictures
to see at once, and gives signed values of the pictures' shape. captum is used for gradients and
integrals; what is random is drawn here, once for all pictures, so that a picture's values depend
neither on its batch nor on the global generators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from nem.errors import ArgumentError, ModelError
from nem.explained import Explained, library, parts
from nem.guided import GuidedReLU
from nem.smoothing import gaussian, separable

Baseline = Literal["mean", "blur"]
"""What a picture is compared with: the data mean (0), or the picture blurred."""
BLUR_KERNEL, BLUR_SIGMA = 21, 5.0
"""The blurred baseline of Crabbe & van der Schaar for natural pictures, in pixels."""

Rule = Callable[[Explained, Tensor, Tensor, int], tuple[Tensor, int]]
"""(g, pictures, references, pictures per run) -> values of the pictures' shape, and how many
gradients they took per picture."""


def plain(g: Explained, x: Tensor, reference: Tensor, part: int) -> tuple[Tensor, int]:
    """Rule of saliency: the gradient itself."""
    return gradient(g, x, reference, part), 1


def gradient(g: Explained, x: Tensor, reference: Tensor, part: int) -> Tensor:
    """dg/dz at z = x."""
    captum_saliency = library("captum.attr", "captum").Saliency(g)
    values = [
        captum_saliency.attribute(z.clone().requires_grad_(), abs=False, additional_forward_args=r)
        for z, r in parts(part, x, reference)
    ]
    return torch.cat(values)


def path(
    g: Explained,
    x: Tensor,
    reference: Tensor,
    part: int,
    *,
    steps: int = 50,
    baseline: Baseline | Tensor = "mean",
) -> tuple[Tensor, int]:
    """Rule of integrated gradients, see `baseline_of`."""
    _at_least_one(steps, "steps")
    integrated = library("captum.attr", "captum").IntegratedGradients(g)
    values = [
        integrated.attribute(
            z,
            baselines=b,
            additional_forward_args=r,
            n_steps=steps,
            method="gausslegendre",  # captum's trapezoid weights don't sum to 1
            internal_batch_size=part,
        )
        for z, r, b in parts(part, x, reference, baseline_of(baseline, x))
    ]
    return torch.cat(values).to(x.dtype), steps


def shap(
    g: Explained,
    x: Tensor,
    reference: Tensor,
    part: int,
    *,
    samples: int = 50,
    baseline: Baseline | Tensor = "mean",
    noise: float = 0.0,
    seed: int = 0,
) -> tuple[Tensor, int]:
    """Rule of GradientSHAP, see `baseline_of`.

    Not captum's class: that draws from the global generators of torch and numpy, per row of the
    batch, and can't bound its memory.
    """
    generator = torch.Generator().manual_seed(seed)
    base = baseline_of(baseline, x)

    def draw(index: int) -> tuple[Tensor, Tensor]:
        # One u in each equal part of [0, 1]: the same expectation, far less scatter.
        u = (index + torch.rand((), generator=generator).item()) / samples
        away = x + noise * _normal(x, generator) - base
        return base + u * away, away

    return _mean_gradient(g, draw, samples, reference, part), samples


def smooth(
    g: Explained,
    x: Tensor,
    reference: Tensor,
    part: int,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
) -> tuple[Tensor, int]:
    """Rule of SmoothGrad; `noise` is a share of each picture's range."""
    generator = torch.Generator().manual_seed(seed)
    deviation = noise * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))

    def draw(_: int) -> tuple[Tensor, Tensor]:
        return x + deviation * _normal(x, generator), torch.ones_like(x)

    return _mean_gradient(g, draw, samples, reference, part), samples


def guided(g: Explained, x: Tensor, reference: Tensor, part: int) -> tuple[Tensor, int]:
    """Rule of guided backpropagation."""
    with GuidedReLU() as mode:
        values = gradient(g, x, reference, part)
    if mode.seen == 0:
        found = {type(m).__name__ for m in g.backbone.modules() if "activation" in m.__module__}
        raise ModelError(
            f"backbone {g.backbone.name}: guided backpropagation needs ReLU, found "
            f"{', '.join(sorted(found)) or 'none'}; take smooth_grad or integrated_gradients"
        )
    return values, 1


def baseline_of(baseline: Baseline | Tensor, x: Tensor) -> Tensor:
    """The pictures to compare `x` with, of its shape.

    Args:
        baseline: "mean": 0, the data mean. "blur": `x` blurred, 21 pixels and sigma 5. Or
            normalised pictures that broadcast to `x`.
        x: normalised pictures (N, 3, S, S).

    Raises:
        ArgumentError: another name or shape.
    """
    if isinstance(baseline, Tensor):
        try:
            return baseline.to(x).expand_as(x)
        except RuntimeError:
            raise ArgumentError(
                f"baseline {tuple(baseline.shape)}: doesn't broadcast to {tuple(x.shape)}"
            ) from None
    if baseline == "mean":
        return torch.zeros_like(x)
    if baseline != "blur":
        raise ArgumentError(f"baseline {baseline!r}: allowed are mean, blur, or pictures")
    return separable(x, gaussian(BLUR_KERNEL // 2, BLUR_SIGMA)).to(x.dtype)


def _mean_gradient(
    g: Explained,
    draw: Callable[[int], tuple[Tensor, Tensor]],
    samples: int,
    reference: Tensor,
    part: int,
) -> Tensor:
    """Mean over samples of weight times gradient, of which `draw` gives (pictures, weights)."""
    _at_least_one(samples, "samples")
    together = max(1, part // len(reference))  # samples per run
    total: Tensor | float = 0.0
    for start in range(0, samples, together):
        drawn = [draw(index) for index in range(start, min(start + together, samples))]
        pictures = torch.cat([picture for picture, _ in drawn])
        gradients = gradient(g, pictures, torch.cat([reference] * len(drawn)), part)
        weights = torch.stack([weight for _, weight in drawn])
        total = total + (weights * gradients.view_as(weights)).sum(0)
    return torch.as_tensor(total) / samples


def _at_least_one(count: int, what: str) -> None:
    if count < 1:
        raise ArgumentError(f"{what} {count}: at least 1 is needed")


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    """One draw for all pictures: the same whatever the batch, and on any device."""
    return torch.randn(1, *x.shape[1:], generator=generator).to(x)
