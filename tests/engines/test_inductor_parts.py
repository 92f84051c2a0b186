"""What is around an AOTInductor package: options, sizes, memory, errors. Nothing is compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engines import EngineError, EngineUnavailable, OptionError, Store, open_engine
from engines.fixed_graph import FixedGraph
from engines.gpus import Gpu
from engines.inductor import InductorEngine
from engines.inductor_build import CONFIG, build_package
from engines.inductor_open import Wish, package_facts
from engines.store_files import key_of
from nem.bundle import Bundle
from tests.engines.conftest import SIZE, random_frames
from tests.engines.fake_inductor import H100, Torch, install

T4 = Gpu(0, "Tesla T4", "7.5", "580.65.06")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Torch:
    return install(monkeypatch)


def test_frames_of_its_own_size_are_resized_in_the_graph(
    fake: Torch, bundle: Bundle, store: Store
) -> None:
    size = (90, 160)
    frames = random_frames(3, *size)
    with (
        InductorEngine(bundle, device="cpu", store=store, frame_size=size, batch=2) as engine,
        open_engine(bundle, "eager", "cpu") as eager,
    ):
        assert (engine.frame_size, engine.input_size) == (size, (SIZE, SIZE))
        found, expected = engine.run(frames), eager.run(frames)
        assert fake.shapes[-1] == (2, *size, 3)
        assert found.mask.shape == (3, SIZE, SIZE)
        # The reference rounds resized frames to 8 bits.
        np.testing.assert_allclose(found.mask, expected.mask, atol=0.02)
        assert np.abs(expected.mask[0] - expected.mask[1]).max() > 0.1
        fake.shapes.clear()
        assert engine.run(random_frames(1, 33, 47)).mask.shape == (1, SIZE, SIZE)
        assert fake.shapes == [(2, *size, 3)]


def test_each_frame_keeps_its_class_in_a_batch(fake: Torch, bundle: Bundle, store: Store) -> None:
    frames = random_frames(3, SIZE, SIZE)
    with (
        InductorEngine(bundle, device="cpu", store=store, batch=2) as engine,
        open_engine(bundle, "eager", "cpu") as eager,
    ):
        for target in ([4, -1, 2], [1, 1, 1], None):
            found = engine.run(frames, "target", target)
            expected = eager.run(frames, "target", target)
            np.testing.assert_array_equal(found.target, expected.target)
            np.testing.assert_allclose(found.mask, expected.mask, atol=1e-4)


def test_a_batch_that_does_not_fit_is_halved_and_said(
    fake: Torch, bundle: Bundle, store: Store
) -> None:
    fake.most, said = 3, []
    with InductorEngine(bundle, device="cpu", store=store, batch=8, say=said.append) as engine:
        assert engine.batch == 2
        assert len(engine.run(random_frames(5, SIZE, SIZE)).mask) == 5
    assert ["batch 8 does not fit" in said[0], "batch 4 does not fit" in said[1]] == [True, True]
    assert "going on with batch 2" in said[1]
    fake.most = 0
    with pytest.raises(EngineError, match=r"too little free memory .* or --device cpu"):
        InductorEngine(bundle, device="cpu", store=store)


@pytest.mark.parametrize(
    ("error", "say"),
    [
        (
            RuntimeError("run_func_(...) API call failed\nat line 2"),
            "the run failed on cpu: run_fu",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "too little free memory .*smaller batch"),
    ],
)
def test_a_run_that_fails_is_one_line(
    error: Exception, say: str, fake: Torch, bundle: Bundle, store: Store
) -> None:
    with InductorEngine(bundle, device="cpu", store=store) as engine:
        fake.fails = error
        with pytest.raises(EngineError, match=say) as caught:
            engine.run(random_frames(1, SIZE, SIZE))
        assert "\n" not in str(caught.value)


def test_a_package_that_does_not_run_is_no_engine(
    fake: Torch, bundle: Bundle, store: Store
) -> None:
    fake.fails = RuntimeError("symbol not found\nmore")
    with pytest.raises(EngineError, match="just built does not run on cpu: symbol not found; use"):
        InductorEngine(bundle, device="cpu", store=store)


@pytest.mark.parametrize(
    ("options", "say"),
    [
        ({"precision": "f16"}, "precision 'f16' on cpu, allowed there: auto, f32, bf16"),
        ({"precision": "int8"}, "precision 'int8' on cpu, allowed there"),
        ({"device": "toaster"}, "device 'toaster', allowed: auto, cpu"),
        ({"batch": 0}, "batch 0: frames per call, from 1"),
        ({"frame_size": (0, 5)}, "height and width from 1"),
    ],
)
def test_refuses_other_options(options: dict[str, Any], say: str, bundle: Bundle) -> None:
    with pytest.raises(OptionError, match=f"engine inductor: .*{say}"):
        InductorEngine(bundle, **{"device": "cpu"} | options)


def test_a_gpu_that_triton_does_not_compile_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.init", lambda: None)
    monkeypatch.setattr("engines.inductor.find_gpu", lambda *_: T4)
    with pytest.raises(EngineUnavailable, match=r"bf16 needs .* 8.0, Tesla T4 has 7.5; use f16"):
        InductorEngine(bundle, device="cuda", precision="bf16")
    old = Gpu(0, "Tesla P100", "6.0", "580.65.06")
    monkeypatch.setattr("engines.inductor.find_gpu", lambda *_: old)
    with pytest.raises(EngineUnavailable, match=r"f16 needs .* 7.0, .* 6.0; use engine eager"):
        InductorEngine(bundle, device="cuda")


def test_packages_that_differ_are_stored_apart(bundle: Bundle) -> None:
    cuda, cpu = torch.device("cuda", 0), torch.device("cpu")
    newer = Gpu(0, H100.name, H100.capability, "590.1")
    wishes = [
        (Wish(bundle, "f16", (SIZE, SIZE), cuda, H100), 1),
        (Wish(bundle, "f16", (SIZE, SIZE), cuda, H100), 8),
        (Wish(bundle, "f16", (SIZE, 2 * SIZE), cuda, H100), 1),
        (Wish(bundle, "f16", (2 * SIZE, SIZE), cuda, H100), 1),
        (Wish(bundle, "f32", (SIZE, SIZE), cuda, H100), 1),
        (Wish(bundle, "f16", (SIZE, SIZE), cuda, T4), 1),
        (Wish(bundle, "f16", (SIZE, SIZE), cuda, newer), 1),
        (Wish(bundle, "f32", (SIZE, SIZE), cpu, None), 1),
    ]
    facts = [package_facts(*wish) for wish in wishes]
    assert len({key_of(each) for each in facts}) == len(wishes)
    assert facts[0]["torch"] == torch.__version__
    assert facts[0]["GPU"] == H100.name
    assert facts[-1]["CPU"]


@pytest.mark.parametrize(
    ("text", "kind", "say"),
    [
        ("x.cpp:3: fatal error: cuda.h: No such file", EngineUnavailable, "toolkit is missing"),
        ("CUDA_HOME environment variable is not set.", EngineUnavailable, "set CUDA_HOME"),
        ("/usr/bin/ld: cannot find -lcuda", EngineUnavailable, "toolkit is missing"),
        ("main.c:2: fatal error: Python.h: No such file", EngineUnavailable, "python3-dev"),
        ("crt/host_defines.h: No such file", EngineUnavailable, "toolkit is missing"),
        ("Failed to find C compiler. Please specify", EngineUnavailable, "apt install g"),
        ("Cannot find a working triton installation.", EngineUnavailable, "pip install triton"),
        ("CUDA out of memory. Tried to", EngineError, "cpu has too little free memory to build"),
        (
            "g++ -lcuda a.o\n x.cpp:7: error: no match\n",
            EngineError,
            "x.cpp:7: error: no match; use",
        ),
        (
            "Unsupported operator",
            EngineError,
            "resnet18 can't be compiled: the compiler gave up; use",
        ),
    ],
)
def test_a_failed_build_names_the_cure(
    text: str, kind: type[Exception], say: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        try:
            raise RuntimeError(text)
        except RuntimeError as error:
            raise RuntimeError("the compiler gave up") from error

    from nem.bundle_io import load_model

    monkeypatch.setattr("engines.inductor_build._compile", fail)
    graph, said = FixedGraph(load_model(bundle)), []
    with pytest.raises(kind, match=say) as caught:
        build_package(graph, 1, torch.device("cpu"), said.append)
    assert type(caught.value) is not RuntimeError
    assert "\n" not in str(caught.value)
    assert len(said) == 1


def test_a_folder_for_temporary_files_that_compilers_do_not_take_is_named(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("\nC++ compile error\n\nCommand: g++ ...\n error: input is output")

    from nem.bundle_io import load_model

    monkeypatch.setattr("engines.inductor_build._compile", fail)
    monkeypatch.setattr("tempfile.tempdir", "/tmp/of someone")
    with pytest.raises(EngineUnavailable, match=r"no spaces in '/tmp/of someone'.*set TMPDIR"):
        build_package(FixedGraph(load_model(bundle)), 1, torch.device("cpu"), print)


@pytest.mark.slow
def test_compilers_of_kernels_leave_nothing_behind() -> None:
    """As on a GPU, where Triton's workers are started; that no thread is left is always checked."""
    from torch._inductor import config
    from torch._inductor.async_compile import AsyncCompile, shutdown_compile_workers

    with config.patch(CONFIG | {"compile_threads": 2}):
        try:
            assert AsyncCompile.process_pool().submit(abs, -3).result(60) == 3
        finally:
            shutdown_compile_workers()
