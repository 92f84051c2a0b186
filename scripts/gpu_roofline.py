"""The least time that a graph can take on a GPU: counted work over measured rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, slots=True)
class Work:
    """What one call of a graph comes to.

    Attributes:
        multiply_adds: of convolutions and products, the resize of the frames included.
        bytes: that can't be avoided: weights and inputs read once, outputs written once. What
            passes between layers is left out, as it may stay in the caches.
    """

    multiply_adds: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Roof:
    """Rates of a GPU, measured.

    Attributes:
        multiply_adds: per second, of one large matrix product.
        bytes: per second, read and written, of one large copy.
    """

    multiply_adds: float
    bytes: float

    def least_ms(self, work: Work) -> float:
        """Milliseconds below which the work can't be done: the slower of its two parts."""
        seconds = max(work.multiply_adds / self.multiply_adds, work.bytes / self.bytes)
        return 1000 * seconds

    def bound_by(self, work: Work) -> str:
        """Which of the two parts that is: "arithmetic" or "memory"."""
        arithmetic = work.multiply_adds / self.multiply_adds >= work.bytes / self.bytes
        return "arithmetic" if arithmetic else "memory"

    def share(self, work: Work, milliseconds: float) -> float:
        """What part of the roof a measured time reaches, in [0, 1] if both are right."""
        return self.least_ms(work) / milliseconds


def count_work(graph: nn.Module, inputs: Sequence[Tensor]) -> Work:
    """Count one call, by running the graph on shapes alone.

    Args:
        graph: its weights tell shapes and types; nothing is computed.
        inputs: of the right shapes and types.
    """
    with torch.no_grad(), torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        counter = FlopCounterMode(display=False)
        with counter:
            outputs = graph(*inputs)
    held = [*graph.parameters(), *graph.buffers(), *inputs, *outputs]
    return Work(
        multiply_adds=counter.get_total_flops() // 2,  # it counts the two apart
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in held),
    )


def product_rate(size: int, milliseconds: float) -> float:
    """Multiply-adds per second of a product of two square matrices."""
    return size**3 / (milliseconds / 1000)


def copy_rate(size: int, milliseconds: float) -> float:
    """Bytes per second of a copy of `size` bytes: each is read and written."""
    return 2 * size / (milliseconds / 1000)
