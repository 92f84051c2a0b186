"""A modelopt that rounds nothing: it measures as it was asked, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import fnmatch
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

CLASSES = {"nn.Conv2d": nn.Conv2d, "nn.Linear": nn.Linear}
NAME = "modelopt.torch.quantization"


class Quantizer(nn.Module):
    """Keeps the largest value it saw, as a buffer of the type of what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled, self.cfg = False, None

    def see(self, values: torch.Tensor) -> None:
        axis = None if self.cfg["axis"] is None else tuple(range(1, values.ndim))
        amax = values.abs().amax() if axis is None else values.abs().amax(axis, keepdim=True)
        before = getattr(self, "_amax", None)
        self.register_buffer("_amax", amax if before is None else torch.maximum(amax, before))


@dataclass
class Fake:
    configs: list[dict[str, Any]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    exporting: int = 0
    fail: str | None = None

    def quantize(self, model: nn.Module, config: dict[str, Any], forward_loop: Any) -> nn.Module:
        self.configs.append(config)
        print("Inserted quantizers")  # noqa: T201 the real one does
        layers = [m for m in model.modules() if isinstance(m, tuple(CLASSES.values()))]
        for layer in layers:
            layer.input_quantizer, layer.weight_quantizer = Quantizer(), Quantizer()
        parents = {f"{n}.{c}": m for n, m in model.named_modules() for c, _ in m.named_children()}
        for name, module in model.named_modules():
            for rule in config["quant_cfg"] if isinstance(module, Quantizer) else []:
                kind = CLASSES.get(rule.get("parent_class", ""), nn.Module)
                if fnmatch.fnmatch(name, rule["quantizer_name"]) and isinstance(
                    parents[name], kind
                ):
                    module.cfg = rule.get("cfg", module.cfg)
                    module.enabled = rule.get("enable", "cfg" in rule)
        hooks = [model.model.register_forward_pre_hook(lambda _, x: self.batches.append(len(x[0])))]
        for layer in layers:
            if layer.input_quantizer.enabled:
                see = layer.input_quantizer.see
                hooks.append(layer.register_forward_pre_hook(lambda _, x, see=see: see(x[0])))
            if layer.weight_quantizer.enabled:
                layer.weight_quantizer.see(layer.weight.detach())
        if self.fail is not None:
            raise RuntimeError(self.fail)
        forward_loop(model)
        for hook in hooks:
            hook.remove()
        return model

    @contextlib.contextmanager
    def export_torch_mode(self) -> Iterator[None]:
        self.exporting += 1
        yield
        self.exporting -= 1


def install(patch: pytest.MonkeyPatch, version: str = "0.47.0") -> Fake:
    """Put it where imports find it."""
    fake = Fake()
    top, quantization = ModuleType("modelopt"), ModuleType(NAME)
    utils, inside = ModuleType(f"{NAME}.utils"), ModuleType(f"{NAME}.tensor_quant")
    top.__version__, quantization.quantize = version, fake.quantize
    utils.export_torch_mode = fake.export_torch_mode
    inside._tensor_quant, inside.fake_quant_impl = "in torch", "compiled"
    inside.get_cuda_ext_fp8 = "compiled"
    for module in (top, ModuleType("modelopt.torch"), quantization, utils, inside):
        patch.setitem(sys.modules, module.__name__, module)
    return fake
