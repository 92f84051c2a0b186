"""Information bottleneck attribution: how many bits each place must let through.

Schulz et al. 2020, Restricting the Flow: Information Bottlenecks for Attribution, the per-sample
bottleneck (section 3.1). A middle layer's activations R are mixed with noise that looks like R,

    Z = l R + (1 - l) e,   e ~ N(mean, std),   l = blurred sigmoid(a),

and a is trained for each picture so that the model still sees what it saw (its loss) while little
information flows, beta times the mean of KL(P(Z|R) || N(mean, std)). The paper has no label-free
loss; ours for the embedding is 1 - cos(f(x), f_Z(x)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nem.activations import Statistics, activation_statistics, captured
from nem.backbone import Backbone
from nem.budget import pictures_per_run
from nem.errors import ArgumentError
from nem.explained import Explained, Of, check_pictures, parts
from nem.layers import resize
from nem.method import Map
from nem.smoothing import gaussian, separable
from nem.stages import Layout, find_stage, layout_of

ALPHA = 5.0
"""Start of a: nearly all flows."""
LEAST_STD = 0.01
"""Deviations below count as this: a nearly constant activation would cost endless bits."""
BLUR = gaussian(2, sigma=1)
"""Of l over neighbouring places, a Gaussian, so that no place hides in a grid."""


@dataclass(frozen=True)
class Training:
    """How a bottleneck is trained; the defaults are the paper's.

    Attributes:
        beta: weight of the information.
        steps: of Adam.
        samples: draws of the noise in each step.
        rate: Adam's learning rate.
        seed: of the noise, which is the same for all pictures.
    """

    beta: float = 10.0
    steps: int = 10
    samples: int = 10
    rate: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.samples < 1 or self.beta < 0 or self.rate <= 0:
            raise ArgumentError(
                f"steps {self.steps}, samples {self.samples}, beta {self.beta}, rate {self.rate}: "
                "expected at least 1 step and sample, beta of at least 0 and a rate above 0"
            )


def iba(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    statistics: Statistics | Tensor | None = None,
    of: Of = "class",
    layer: str | None = None,
    beta: float = 10.0,
    steps: int = 10,
    samples: int = 10,
    rate: float = 1.0,
    seed: int = 0,
    memory_mb: int = 512,
) -> Map:
    """Bits that flow through each place of a middle layer when few may.

    Args:
        backbone: the model.
        x: normalised pictures, float (N, 3, S, S).
        target: (N,) int64, the class; below 0, or None, the most probable one. Ignored for the
            embedding.
        statistics: what is normal at the layer, of `activation_statistics`, or other pictures
            (M, 3, S, S) to take it from (M runs on top of those counted). There is no default:
            the pictures to be explained don't tell it.
        of: "class", or "embedding".
        layer: name of the timm model's module; default that of `statistics`, else
            `nem.activations.middle_layer`.
        beta: weight of the information.
        steps: of Adam.
        samples: draws of the noise in each step.
        rate: Adam's learning rate.
        seed: of the noise.
        memory_mb: bound for the memory of the pictures seen at once.

    Returns:
        Bits per pixel, at least 0, bilinear from the layer's places. Layers before the bottleneck
        run once per step, not once per sample; a run is counted for each sample all the same.

    Raises:
        ArgumentError: no statistics or those of another layer; pictures, target or options that
            don't fit.
        ModelError: a class is asked of a model without classes; no such layer.
        DataError: too few pictures for statistics.
    """
    check_pictures(backbone, x)
    training = Training(beta, steps, samples, rate, seed)
    g = Explained(backbone, of)
    if statistics is None:
        raise ArgumentError(
            "iba needs statistics: pass other pictures (M, 3, S, S), better 1000 or more, or what "
            "nem.activations.activation_statistics makes of them"
        )
    if isinstance(statistics, Tensor):
        statistics = activation_statistics(backbone, statistics, layer=layer, memory_mb=memory_mb)
    if layer not in (None, statistics.layer):
        raise ArgumentError(
            f"layer {layer!r}: the statistics are of {statistics.layer!r}; take new ones"
        )
    part = pictures_per_run(x, memory_mb, gradient=True)
    reference, first = g.references(x, target, part)
    pictures = max(1, part // samples)
    maps = [
        _bits(g, z, r, statistics, training, max(1, part // len(z)))
        for z, r in parts(pictures, x.detach(), reference)
    ]
    runs = steps * samples
    return Map(torch.cat(maps), first + 1 + runs, runs)


class _Bottleneck:
    """Noise in the place of a layer's output, for n pictures; all tensors are laid out as it is."""

    def __init__(self, normal: Tensor, statistics: Statistics, std: Tensor, layout: Layout) -> None:
        self.normal = normal  # (n, ...) of mean 0 and deviation 1
        self.mean, self.std, self.layout = statistics.mean.to(normal), std, layout
        self.alpha = torch.full_like(normal, ALPHA, requires_grad=True)

    def shares(self) -> tuple[Tensor, Tensor]:
        """L and 1 - l; each from its own sigmoid, as 1 - l may be too small for a difference."""
        return self._blur(self.alpha.sigmoid()), self._blur((-self.alpha).sigmoid())

    def information(self) -> Tensor:
        """KL of each activation, in nats (eq. 4), (n, ...)."""
        signal, noise = self.shares()
        squares = (signal * self.normal).square() + noise.square()
        return 0.5 * (squares - 1) - noise.clamp_min(torch.finfo(noise.dtype).tiny).log()

    def noisy(self, noise: Tensor) -> Tensor:
        """Outputs (k n, ...) of k draws (k, ...) of normal noise."""
        signal, rest = self.shares()
        mixed = signal * self.normal + rest * noise[:, None]
        return (mixed * self.std + self.mean).flatten(0, 1)

    def _blur(self, share: Tensor) -> Tensor:
        drawn, prefix = self.layout.split(share)
        return self.layout.join(separable(drawn, BLUR), prefix, share.ndim)


def _bits(
    g: Explained, x: Tensor, reference: Tensor, stats: Statistics, how: Training, together: int
) -> Tensor:
    """(n, S, S) of n pictures, `together` noise samples per run."""
    with torch.no_grad(), captured(g.backbone, stats.layer) as seen:
        g.backbone.embed(x)
    output = seen[0].float()
    if output.shape[1:] != stats.mean.shape:
        raise ArgumentError(
            f"statistics {tuple(stats.mean.shape)}: the layer gives {tuple(output.shape[1:])}"
        )
    std = stats.std.to(output).clamp_min(LEAST_STD)
    normal = (output - stats.mean.to(output)) / std
    neck = _Bottleneck(normal, stats, std, layout_of(g.backbone, stats.layer))
    layer = find_stage(g.backbone, stats.layer)
    generator = torch.Generator().manual_seed(how.seed)
    adam = torch.optim.Adam([neck.alpha], lr=how.rate)
    with torch.enable_grad():
        for _ in range(how.steps):
            noise = torch.randn(how.samples, *output.shape[1:], generator=generator).to(output)
            # Summed over pictures: each has parameters of its own, and Adam treats them apart.
            information = how.beta * neck.information().flatten(1).mean(1).sum()
            (gradient,) = torch.autograd.grad(information, neck.alpha)
            for (draws,) in parts(together, noise):
                noisy = neck.noisy(draws).to(seen[0].dtype)
                with layer.register_forward_hook(lambda *_, noisy=noisy: noisy):
                    outputs = g.outputs(x)
                loss = _model_loss(
                    g, outputs, reference.repeat(len(draws), *(1,) * (reference.ndim - 1))
                )
                (more,) = torch.autograd.grad(loss.sum() / how.samples, neck.alpha)
                gradient = gradient + more
            neck.alpha.grad = gradient
            adam.step()
    with torch.no_grad():
        nats, _ = neck.layout.split(neck.information())
    bits = nats.sum(1, keepdim=True) / math.log(2)
    size = x.shape[-1]
    places = bits.shape[2] * bits.shape[3]
    return resize(bits * (places / size**2), size)[:, 0]


def _model_loss(g: Explained, outputs: Tensor, reference: Tensor) -> Tensor:
    """What the model has lost, per row."""
    if g.of == "embedding":
        return 1 - F.cosine_similarity(outputs, reference, dim=1)
    return F.cross_entropy(outputs, reference, reduction="none")
