"""Stands for AOTInductor's compiler and loader: nothing is compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engines.fixed_graph import FixedGraph
from engines.gpus import Gpu

H100 = Gpu(0, "NVIDIA H100 80GB HBM3", "9.0", "580.65.06")


class Torch:
    """Stands for the compiler and the loader: the graph itself is run.

    Attributes:
        most: frames for which there is memory.
        shapes: of the frames of each call.
        fails: what a call raises.
    """

    def __init__(self) -> None:
        self.most, self.shapes, self.fails = 64, [], None
        self._graphs: dict[bytes, FixedGraph] = {}

    def build(self, graph: FixedGraph, batch: int, *_: object) -> bytes:
        package = f"package {len(self._graphs)} {batch}".encode()
        self._graphs[package] = graph
        return package

    def load(self, package: bytes, _device: object) -> Any:
        if int(package.split()[-1]) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        owner, graph = self, self._graphs[package]

        class Loader:
            def boxed_run(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
                owner.shapes.append(tuple(inputs[0].shape))
                if owner.fails:
                    raise owner.fails
                with torch.inference_mode():
                    return list(graph(*inputs))

        return Loader()


def install(monkeypatch: pytest.MonkeyPatch) -> Torch:
    """Put one in the place of the real ones."""
    made = Torch()
    monkeypatch.setattr("engines.inductor_build.build_package", made.build)
    monkeypatch.setattr("engines.inductor_open.load_package", made.load)
    return made
