"""Builds and captures of several threads: one after the other, as they disturb each other."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

import engines.trt_build
from engines.fixed_graph import FixedGraph
from engines.inductor_build import build_package
from engines.trt_build import BuildOptions, build_engine
from engines.trt_runner import TrtRunner
from tests.engines.conftest import tiny_model
from tests.engines.fake_tensorrt import Fakes
from tests.engines.fake_torch_tensorrt import install
from tests.engines.small_trt import assert_right, engine_of, some


@pytest.mark.skipif(
    torch.__version__.startswith("2.11.") and not torch.cuda.is_available(),
    reason="where there is no GPU, torch 2.11 crashes as soon as a second thread exports",
)
def test_two_threads_can_build_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Torch traces by settings of the whole process."""
    monkeypatch.setenv("NEM_CACHE", str(tmp_path))
    monkeypatch.setattr(engines.trt_build, "_gpu", lambda: torch.device("cpu"))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    fake = install(monkeypatch)
    ready, built = threading.Barrier(2), []

    def build(seed: int) -> None:
        model = tiny_model(seed=seed)
        ready.wait(60)
        built.append(build_engine(model, BuildOptions((40, 60))))

    threads = [threading.Thread(target=build, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert sorted(built) == [b"engine 1", b"engine 2"]
    masks = [asked.outputs[0] for asked in fake.asked]
    assert (masks[0] - masks[1]).abs().max() > 0.01


def test_nothing_is_opened_while_a_model_is_compiled(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compilers time kernels, and wait for the whole GPU before, which breaks a capture."""
    opened, calls = [], []
    asked = ("cudaMalloc", "cudaStreamBeginCapture")
    opening = threading.Thread(target=lambda: opened.append(TrtRunner(engine_of(fakes))))

    def compile_slowly(*_: object) -> bytes:
        opening.start()
        opening.join(0.5)
        calls.append([fakes.cuda.calls[name] > 0 for name in asked])
        return b"package"

    monkeypatch.setattr("engines.inductor_build._compile", compile_slowly)
    build_package(FixedGraph(tiny_model()), 1, torch.device("cpu"), lambda _: None)
    opening.join(60)
    calls.append([fakes.cuda.calls[name] > 0 for name in asked])
    assert calls == [[False, False], [True, True]]
    assert_right(opened[0].run(some(1)), some(1))
    opened[0].close()
