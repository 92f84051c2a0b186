"""A `FixedGraph` that rounds to 8 bits around the convolutions and linears that bear it.

modelopt puts the rounding in, and measures on pictures how far the numbers there reach; see
`engines.trt_quant`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.batchnorm import fold_batchnorm
from engines.calibration import Pictures
from engines.errors import EngineError
from engines.fixed_graph import FixedGraph
from engines.graph import FrameGraph
from engines.trt_quant import BASE, load_modelopt, make_config, quiet
from nem.model import NEM

if TYPE_CHECKING:
    from engines.trt_build import BuildOptions

FINEST = 4
"""Input pixels per pixel of the finest maps that are quantised in a backbone. What is before that
has few channels of a wide range: quantising it, too, saves little and moves the masks of the
default (resnet18d) 1.4 to 2.7 times as far."""

SMALLEST = 1e-6
"""Ranges of what is always zero are made this: TensorRT refuses to divide by zero."""

PIECE = 16
"""Pictures that are calibrated with at once."""

Graph = TypeVar("Graph", bound=FixedGraph)


def calibrated_graph(
    kind: type[Graph], model: NEM, options: BuildOptions, say: Callable[[str], None] | None = None
) -> Graph:
    """A graph of a kind, in f16 and quantised, on the CPU.

    Args:
        kind: `FixedGraph`, or one made of it.
        model: left as it is.
        options: with precision and pictures of a quantised engine.
        say: told in a line what takes long.

    Raises:
        EngineUnavailable: no modelopt.
        EngineError: the ranges can't be measured.
    """
    tell = say or (lambda _: None)
    graph, pictures = kind(folded(model), options.frame_size, BASE), options.calibration
    assert isinstance(pictures, Pictures), "read by who builds, to keep some from it"
    count = len(pictures.frames)
    tell(f"calibrating {model.backbone.name} on {count} pictures: may take minutes")
    layers = quantise(graph, options.precision, pictures.frames)
    tell(f"{layers} layers compute in {options.precision}, the rest in {BASE}")
    return graph


def folded(model: NEM) -> NEM:
    """A copy of the model on the CPU, in float32, without the BatchNorms that can be folded."""
    model = copy.deepcopy(model).cpu().float().eval()
    side = model.backbone.input_size
    fold_batchnorm(model, torch.zeros(1, 3, side, side))
    return model


def quantise(graph: FixedGraph, precision: str, frames: NDArray[np.uint8]) -> int:
    """Round weights and activations of a graph to 8 bits; `graph` is changed.

    The ranges are measured in float32, on torch's current GPU where there is one. Afterwards the
    graph computes in its own precision around the rounding, and is on the CPU.

    Args:
        graph: of a `folded` model, in precision `BASE`.
        precision: of `QUANTISED`.
        frames: to calibrate with, RGB uint8 (N, S, S, 3).

    Returns:
        How many layers were quantised.

    Raises:
        EngineUnavailable: no modelopt.
        EngineError: the ranges can't be measured.
    """
    mtq = load_modelopt()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def run(_: object) -> None:
        for start in range(0, len(frames), PIECE):
            piece = torch.from_numpy(frames[start : start + PIECE]).to(device)
            # In float32, and of any size; a graph's own way takes frames of its size.
            graph.model(FrameGraph.prepare(graph, piece))

    graph.to(device)
    graph.model.float()
    try:
        with torch.no_grad(), quiet():
            mtq.quantize(graph, make_config(precision, kept_names(graph)), run)
    except Exception as error:  # of any kind: it runs the model's own code
        reason = " ".join(str(error).split())[:240] or type(error).__name__
        raise EngineError(f"precision {precision}: calibration failed: {reason}") from error
    ranges = {n: b.float() for n, b in graph.named_buffers() if "_quantizer." in n}
    graph.model.to(graph.dtype)
    layers = set()
    for name, value in ranges.items():
        # In float32 as they were: f16 has no numbers small enough for the steps made of them.
        owner, _, own = name.rpartition(".")
        if not torch.isfinite(value).all():
            raise EngineError(
                f"precision {precision}: {owner} is not finite on the calibration pictures; use "
                f"precision {BASE}"
            )
        setattr(graph.get_submodule(owner), own, value.clamp(min=SMALLEST))
        layers.add(owner.rpartition(".")[0])
    graph.cpu()
    return len(layers)


def kept_names(graph: FixedGraph) -> list[str]:
    """Modules that stay as they are: what sees the picture first, and what draws or decides last.

    The heads' few channels become masks directly, and the classifier's rows say which class is
    explained: rounding there is seen at once and saves next to nothing. For the first layers see
    `FINEST`.
    """
    decoder, backbone = graph.model.decoder, graph.model.backbone
    kept: list[nn.Module | None] = [decoder.head, decoder.target, getattr(decoder, "guide", None)]
    kept += [backbone.classifier, *_first_layers(graph)]
    return [name for name, module in graph.named_modules() if any(module is k for k in kept)]


def _first_layers(graph: FixedGraph) -> list[nn.Module]:
    """Convolutions of the backbone that read the picture or draw maps finer than `FINEST`."""
    backbone, found = graph.model.backbone, []
    side = backbone.input_size

    def look(module: nn.Conv2d, _: Any, output: Tensor) -> None:
        if module.in_channels == 3 or output.shape[-1] * FINEST > side:
            found.append(module)

    weight = next(backbone.parameters())
    with torch.no_grad(), ExitStack() as hooks:
        for module in backbone.modules():
            if isinstance(module, nn.Conv2d):
                hooks.enter_context(module.register_forward_hook(look))
        backbone(torch.zeros(1, 3, side, side, dtype=weight.dtype, device=weight.device))
    return list(found)
