"""How packages come from the store on a GPU, or don't: keys, what is told, trouble. None is run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines import EngineError, Store, list_stored
from engines.alone import alone
from engines.cuda_memory import DeviceMemoryError
from engines.golden import golden_frames
from engines.inductor import InductorEngine
from engines.inductor_open import Wish, package_facts
from engines.inductor_run import CpuProgram
from engines.store_files import key_of
from nem.bundle import Bundle
from tests.engines.conftest import SIZE, random_frames, tiny_model
from tests.engines.fake_inductor import H100, Torch, install
from tests.nem.toys import write_tiny_bundle

CUDA = torch.device("cuda", 0)


class Gpu:
    """Stands for a GPU: programs run on the CPU.

    Attributes:
        opened: settings of each program, and what its first run was asked for.
        closed: programs.
        free: bytes of memory.
        forgot: how often the last error was taken.
        off: added to all answers.
    """

    def __init__(self) -> None:
        self.seen, self.free = H100, 1 << 40
        self.opened: list[dict[str, Any]] = []
        self.closed, self.forgot, self.off = 0, 0, 0.0

    def program(self, loader: Any, *shapes: Any, targeted: bool, **options: Any) -> CpuProgram:
        gpu, told = self, options | {"alone": not can_take(alone)}
        self.opened.append(told)

        class Program(CpuProgram):
            def run(self, frames: Any, classes: Any, wanted: Any) -> dict[str, np.ndarray]:
                told.setdefault("classes", classes)
                found = super().run(frames, classes, wanted)
                return {name: value + gpu.off for name, value in found.items()}

            def close(self) -> None:
                gpu.closed += 1

        return Program(loader, *shapes, targeted=targeted)

    def forget(self, device: torch.device) -> None:
        assert device == CUDA
        self.forgot += 1


def can_take(lock: Any) -> bool:
    """Whether another thread can."""
    found: list[bool] = []

    def take() -> None:
        found.append(lock.acquire(blocking=False))
        if found[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Torch:
    return install(monkeypatch)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.init", lambda: None)
    monkeypatch.setattr("engines.inductor.find_gpu", lambda *_: made.seen)
    monkeypatch.setattr("engines.inductor_open.CudaProgram", made.program)
    monkeypatch.setattr("engines.inductor_open.free_memory", lambda _: made.free)
    monkeypatch.setattr("engines.inductor_open.forget_error", made.forget)
    monkeypatch.setattr("engines.torch_devices.forget_error", made.forget)
    return made


Open = Callable[..., InductorEngine]


@pytest.fixture
def opened(fake: Torch, gpu: Gpu, bundle: Bundle, store: Store) -> Open:
    return lambda **options: InductorEngine(bundle, store=store, **{"device": "cuda"} | options)


def test_opens_alone_and_in_full_precision_where_that_is_asked(opened: Open, gpu: Gpu) -> None:
    for precision in ("f32", "f16"):
        opened(precision=precision).close()
    assert [each["exact"] for each in gpu.opened] == [True, False]
    assert all(each["alone"] and each["device"] == CUDA for each in gpu.opened)
    assert can_take(alone)


def test_the_golden_frame_asks_for_the_class_that_the_reference_decides_on(
    opened: Open, gpu: Gpu, fake: Torch
) -> None:
    with opened(precision="f32", batch=2) as engine:
        frames = golden_frames((SIZE, SIZE), 2)
        np.testing.assert_array_equal(gpu.opened[0]["classes"], engine.run(frames).scores.argmax(1))


def test_a_model_without_classes(fake: Torch, store: Store, tmp_path: Path) -> None:
    model = tiny_model(classes=())
    bundle = write_tiny_bundle(tmp_path / "plain", model, classes=())
    with InductorEngine(bundle, device="cpu", store=store) as engine:
        found = engine.run(random_frames(1, SIZE, SIZE))
    assert (found.scores, engine.names, found.mask.shape) == (None, (), (1, SIZE, SIZE))


def test_an_answer_off_by_more_than_its_precision_allows_is_refused_and_closed(
    opened: Open, gpu: Gpu, store: Store
) -> None:
    gpu.off = 0.01  # within the bound of bf16
    with pytest.raises(EngineError, match="just built does not compute what the model does"):
        opened(precision="f32")
    assert (gpu.closed, list_stored(store)) == (1, [])


def test_another_driver_is_told_and_another_device_is_not(opened: Open, gpu: Gpu) -> None:
    said: list[str] = []
    opened(device="cpu", precision="f32", say=said.append)
    opened(precision="f32", say=said.append)
    assert [", kept in " in line for line in said] == [True, True]
    gpu.seen = replace(H100, driver="590.1")
    opened(precision="f32", say=said.append)
    [_, _, line, _] = said
    assert line.endswith(f"changed since the stored one: driver {H100.driver} -> 590.1")


@pytest.mark.parametrize("free", [100, 1 << 40])
def test_a_call_that_fails_is_put_down_to_memory_only_where_there_is_little(
    opened: Open, gpu: Gpu, fake: Torch, store: Store, free: int
) -> None:
    opened()
    gpu.free, fake.fails = free, RuntimeError("run_func_(...) API call failed")
    kind, say = (DeviceMemoryError, "little free memory; end") if free == 100 else (EngineError, "")
    with pytest.raises(kind, match=say or "just built does not run on cuda:0: run_func_"):
        opened()
    assert gpu.forgot
    assert bool(list(store.folder.glob("*.damaged"))) == (free > 100)
    assert len(list_stored(store)) == (free == 100)


def test_a_gpu_that_fails_is_no_damage(opened: Open, fake: Torch, store: Store) -> None:
    opened()
    fake.fails = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nx")
    with pytest.raises(EngineError, match=r"cuda:0 fails: CUDA error: an illegal .*encountered$"):
        opened()
    fake.fails = None
    assert len(list_stored(store)) == 1
    assert not list(store.folder.glob("*.damaged"))


def test_all_that_a_package_is_made_of_counts(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(**files: str) -> str:
        manifest = bundle.manifest
        changed = manifest.model_copy(update={"files": manifest.files | files})
        wish = Wish(Bundle(bundle.path, changed), "f16", (SIZE, SIZE), CUDA, H100)
        return key_of(package_facts(wish, 1))

    keys = [key(), key(**{"weights.safetensors": "0"}), key(**{"graph.onnx": "0"})]
    for name in ("flags_digest", "cpu_model", "installed"):
        with monkeypatch.context() as patch:
            patch.setattr(f"engines.inductor_open.{name}", lambda *_: "another")
            keys.append(key())
    with monkeypatch.context() as patch:
        patch.setattr("torch.__version__", "9.9")
        keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
