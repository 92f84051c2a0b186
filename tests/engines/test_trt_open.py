"""What a stored TensorRT engine depends on, and on which GPU it is built and run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines import EngineUnavailable, Store, list_stored
from engines.cuda_memory import CudaError
from engines.store_files import key_of
from engines.trt import TensorRtEngine
from engines.trt_build import BuildOptions
from engines.trt_open import _Opening, golden_answer
from nem.bundle import Bundle
from tests.engines.conftest import SIZE
from tests.engines.fake_cuda import cudaError_t
from tests.engines.fake_tensorrt import GPU, Fakes, install, make_fakes


def test_all_that_an_engine_is_made_of_counts(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, make_fakes("tensorrt-rtx"))
    install(monkeypatch, make_fakes())

    def key(made_by: str = "", **asked: Any) -> str:
        files = bundle.manifest.files | asked.pop("files", {})
        found = Bundle(bundle.path, bundle.manifest.model_copy(update={"files": files}))
        options = BuildOptions(**{"frame_size": (SIZE, SIZE)} | asked)
        monkeypatch.setattr("engines.trt_open.installed", lambda name: f"1{name == made_by}")
        return key_of(_Opening(found, options, GPU, Store(tmp_path), print).facts)

    keys = [key(), key("torch"), key("torch-tensorrt"), key(precision="f32"), key(batch=2)]
    keys += [key(frame_size=(SIZE, SIZE + 1)), key(frame_size=(SIZE + 1, SIZE))]
    keys += [key(batch=2, dynamic=True), key(flavour="tensorrt-rtx")]
    keys += [key(files={name: "0"}) for name in ("weights.safetensors", "graph.onnx")]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]


def test_it_is_built_and_run_on_the_gpu_that_was_asked_for(
    bundle: Bundle, fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, used = [0], []

    @contextmanager
    def device(index: int) -> Iterator[None]:
        current.append(index)
        yield
        current.pop()

    def build(*given: Any) -> bytes:
        used.append(("build", current[-1]))
        return fakes.build(*given)

    fakes.gpus.append(replace(GPU, index=1))
    fakes.cuda.devices = 2
    take = fakes.cuda.cudaMalloc

    def taken(size: int) -> Any:
        used.append(("run", fakes.cuda._thread.device))
        return take(size)

    monkeypatch.setattr(fakes.cuda, "cudaMalloc", taken)
    monkeypatch.setattr("engines.trt_build.build_engine", build)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device", device)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: used.append(("free", current[-1])))
    TensorRtEngine(bundle, device="cuda:1", store=Store(tmp_path)).close()
    # What the build took is given back before the engine takes its own.
    assert used[:2] == [("build", 1), ("free", 1)]
    assert set(used[2:]) == {("run", 1)}


def test_what_is_stored_outlives_runs_that_fail_and_they_leave_nothing(
    bundle: Bundle, fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    TensorRtEngine(bundle, store=store).close()
    fakes.cuda.fail["cudaGraphLaunch"] = cudaError_t.cudaErrorInvalidValue
    with pytest.raises(CudaError, match="InvalidValue"):
        TensorRtEngine(bundle, store=store)
    assert fakes.cuda.leaks() == 0
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(EngineUnavailable, match="cuda-bindings is not installed"):
        TensorRtEngine(bundle, store=store)
    assert len(list_stored(store)) == len(fakes.builds) == 1
    assert not list(tmp_path.glob("*.damaged"))


def test_the_golden_frame_asks_for_the_class_that_the_reference_decides_on() -> None:
    """A near tie may be decided otherwise by the engine."""
    port = SimpleNamespace(dtype=np.dtype(np.int64))
    runner: Any = SimpleNamespace(inputs={"frames": None, "target": port}, run=dict)
    expected = {"scores": np.array([[0.2, 0.7, 0.1], [0.1, 0.1, 0.8]], np.float32)}
    given = golden_answer(runner, np.zeros((2, 4, 4, 3), np.uint8), expected)
    assert (given["target"].tolist(), given["target"].dtype) == ([1, 2], np.int64)
