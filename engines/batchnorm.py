"""BatchNorm folded into the convolution before it: one multiplication less to be rounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


def fold_batchnorm(model: nn.Module, *example: Tensor) -> int:
    """Fold each BatchNorm that alone reads what one convolution gives; `model` is changed.

    Which ones do is seen in one run, so it holds for models of any structure. Modules of other
    kinds than plain 2-d ones, and those that run more than once, are left as they are.

    Args:
        model: in eval mode.
        example: inputs of the run.

    Returns:
        How many were folded.
    """
    outputs: list[tuple[nn.Conv2d, Tensor]] = []
    inputs: list[tuple[nn.BatchNorm2d, Tensor]] = []

    def given(module: nn.Conv2d, _: Any, output: Tensor) -> None:
        outputs.append((module, output))

    def read(module: nn.BatchNorm2d, args: tuple[Tensor, ...]) -> None:
        inputs.append((module, args[0]))

    with torch.no_grad(), ExitStack() as hooks, _Uses() as uses:
        for module in model.modules():
            if type(module) is nn.Conv2d:
                hooks.enter_context(module.register_forward_hook(given))
            elif isinstance(module, nn.BatchNorm2d):
                hooks.enter_context(module.register_forward_pre_hook(read))
        model(*example)
    runs = Counter([*(id(m) for m, _ in outputs), *(id(m) for m, _ in inputs)])
    swaps: dict[nn.Module, nn.Module] = {}
    for norm, tensor in inputs:
        after = _without(norm)
        for conv, output in outputs:
            alone = runs[id(conv)] == runs[id(norm)] == uses.count[id(tensor)] == 1
            if output is tensor and alone and after is not None:
                swaps[conv], swaps[norm] = fuse_conv_bn_eval(conv, norm), after
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in swaps:
                setattr(parent, name, swaps[child])
    return len(swaps) // 2


def _without(norm: nn.BatchNorm2d) -> nn.Module | None:
    """What is left of a BatchNorm without its scaling; None where that is not known."""
    if norm.running_mean is None or norm.training:
        return None
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    if isinstance(drop, nn.Module) and isinstance(act, nn.Module):  # timm's BatchNormAct2d
        return nn.Sequential(drop, act)
    return None


class _Uses(TorchFunctionMode):
    """Counts the functions that make a tensor of each tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self._alive: list[Tensor] = []  # else another tensor may get the same id

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):  # else a shape is asked
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            self._alive += tensors
            self.count.update({id(tensor) for tensor in tensors})
        return result
