"""Graphs made runnable on a GPU by each engine, for frames that are on it already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from engines.fixed_graph import FixedGraph
from engines.inductor_run import CudaProgram, load_package
from engines.onnx_passes import FRAMES, graph_outputs
from engines.trt_api import Flavour
from nem.backbone import create_backbone
from nem.model import NEM


class BackboneGraph(FixedGraph):
    """The model without its explanation: frames in, scores and embedding out."""

    @property
    def outputs(self) -> list[str]:
        """As `FixedGraph`, without maps."""
        return graph_outputs((), scores=True)

    def forward(self, frames: Tensor, target: Tensor | None = None) -> tuple[Tensor, ...]:
        """As `FixedGraph`, without maps."""
        features = self.model.backbone(self.prepare(frames))
        assert features.logits is not None, "the cases are of a model with classes"
        return features.logits.float().softmax(dim=1), features.embedding.float()


CASES = {"backbone": BackboneGraph, "lite": FixedGraph}
"""The model alone, and with the lite decoder of one head (`embedding`, NEM-U)."""


@dataclass(frozen=True, slots=True)
class Call:
    """A graph on the GPU.

    Attributes:
        run: takes uint8 (B, H, W, 3) on the GPU; gives the outputs by name, complete.
        close: frees it.
    """

    run: Callable[[Tensor], Mapping[str, Any]]
    close: Callable[[], None]


def make_model(name: str) -> NEM:
    """The measured model: the backbone of timm's `name` and the case's decoder, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NEM(create_backbone(name), "lite", ("embedding",)).eval()


def make_graph(model: Any, case: str, size: tuple[int, int], precision: str) -> FixedGraph:
    """The graph of a case, on the CPU; `model` has classes and the head `embedding` alone."""
    return CASES[case](model, size, precision)


def make_call(engine: str, graph: FixedGraph, batch: int, package: bytes | None) -> Call:
    """Make a graph runnable on the first GPU.

    Args:
        engine: "eager", "inductor", "tensorrt" or "tensorrt-rtx".
        graph: moved to the GPU.
        batch: frames per call.
        package: what `inductor` runs, see `scripts.gpu_packages`.

    Raises:
        EngineError: it can't be built; the reason in a line.
    """
    device = torch.device("cuda", 0)
    if engine == "eager":
        return _eager(graph.to(device))
    if engine == "inductor":
        assert package is not None
        return _inductor(graph, batch, device, package)
    assert engine in get_args(Flavour), engine
    return _tensorrt(engine, graph, batch)  # type: ignore[arg-type]


def _eager(graph: FixedGraph) -> Call:
    def run(frames: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            found = dict(zip(graph.outputs, graph(frames), strict=True))
        torch.cuda.synchronize()  # as the others, which give complete outputs
        return found

    return Call(run, lambda: None)


def _inductor(graph: FixedGraph, batch: int, device: torch.device, package: bytes) -> Call:
    graph = graph.to(device)
    with torch.inference_mode():
        found = graph(*(tensor.to(device) for tensor in graph.example(batch)))
    program = CudaProgram(
        load_package(package, device),
        {name: tuple(value.shape) for name, value in zip(graph.outputs, found, strict=True)},
        (batch, *graph.frame_size, 3),
        targeted=False,
        device=device,
        exact=graph.precision == "f32",
    )
    return Call(lambda frames: program.run_on_device(frames, None, None), program.close)


def _tensorrt(flavour: Flavour, graph: FixedGraph, batch: int) -> Call:
    from engines.trt_build import BuildOptions, compile_graph
    from engines.trt_convert import convert
    from engines.trt_runner import TrtRunner

    options = BuildOptions(graph.frame_size, graph.precision, batch, flavour)
    runner = TrtRunner(compile_graph(graph, options, convert), flavour=flavour, device=0)
    return Call(lambda frames: runner.run_on_device({FRAMES: frames}), runner.close)
