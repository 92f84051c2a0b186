"""Guided backpropagation's rule, wherever a ReLU is run. Springenberg et al. 2015, section 3.4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_RELU: frozenset[Any] = frozenset(
    {torch.relu, torch.relu_, F.relu, F.relu_, Tensor.relu, Tensor.relu_, F.relu6}
)


class GuidedReLU(TorchFunctionMode):
    """Within it, the gradient that comes back to any ReLU (or ReLU6) loses its negative part.

    It catches the calls, not the modules, so in-place, reused and functional ReLUs are guided too,
    and the model is left as it is. Hooks on modules, captum's among them, fail on timm's in-place
    ReLUs.

    Attributes:
        seen: ReLUs run so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _RELU:
            self.seen += 1
            if out.requires_grad:
                out.register_hook(lambda gradient: gradient.clamp_min(0))
        return out
