"""Where torch runs: names of devices, memory that runs out, sums in full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engines import EngineError, EngineUnavailable, OptionError, open_engine
from engines.torch_devices import exact_sums, find_device, forget_error, memory_told, torch_told
from nem.bundle import Bundle

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let torch say that it sees some GPUs."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: request.param)
    monkeypatch.setattr("torch.cuda.is_available", lambda: request.param > 0)
    monkeypatch.setattr("torch.cuda.init", lambda: None)
    return request.param


@pytest.mark.parametrize(
    ("gpus", "asked", "found"),
    [
        (0, "auto", "cpu"),
        (2, "auto", "cuda:0"),
        (2, "cpu", "cpu"),
        (2, "cpu:0", "cpu"),
        (2, "cuda", "cuda:0"),
        (2, "cuda:1", "cuda:1"),
    ],
    indirect=["gpus"],
)
def test_names_of_devices(gpus: int, asked: str, found: str) -> None:
    assert str(find_device("eager", asked)) == found


@pytest.mark.parametrize(
    ("gpus", "asked", "kind", "say"),
    [
        (1, "cuda:1", EngineUnavailable, "engine x: device cuda:1 asked for, torch sees 1 CUDA"),
        (0, "cuda", EngineUnavailable, "sees 0 CUDA device.*use --device cpu"),
        (1, "toaster", OptionError, "device 'toaster', allowed: auto, cpu, cuda, cuda:N"),
        (1, "meta", OptionError, "device 'meta', allowed"),
        (1, "", OptionError, "device '', allowed"),
    ],
    indirect=["gpus"],
)
def test_devices_that_are_not_there(gpus: int, asked: str, kind: type[Exception], say: str) -> None:
    with pytest.raises(kind, match=say) as caught:
        find_device("x", asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gpus", [1], indirect=True)
def test_a_gpu_that_torch_counts_but_can_not_use(
    gpus: int, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch counts them with NVML, which an old driver answers, too."""

    def refuse() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020).\n.")

    monkeypatch.setattr("torch.cuda.init", refuse)
    say = r"engine eager: torch can't use cuda: .*is too old \(found .*\)\.; update .*--device cpu"
    with pytest.raises(EngineUnavailable, match=say) as caught:
        open_engine(bundle, "eager", "cuda")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee the manual."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"),
    ],
    ids=["torch", "below torch"],
)
def test_memory_that_runs_out_is_a_line_with_the_cure(error: Exception) -> None:
    say = r"engine x: cpu has too little free memory \(.*out of memory[^\n]*\); buy more"
    with pytest.raises(EngineError, match=say), memory_told("engine x", CPU, "buy more"):
        raise error


def test_other_errors_of_torch_pass() -> None:
    with pytest.raises(RuntimeError, match="no kernel"), memory_told("engine x", CPU, "buy more"):
        raise RuntimeError("no kernel")


def test_an_error_that_was_left_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only starting a kernel asks for it."""
    left = [RuntimeError("CUDA error: out of memory")]

    def ones(*_: object, device: torch.device) -> None:
        assert device == GPU
        if left:
            raise left.pop()

    monkeypatch.setattr("torch.ones", ones)
    forget_error(CPU)
    assert left
    with pytest.raises(EngineError, match="too little free memory"), memory_told("x", GPU, ""):
        raise RuntimeError("CUDA error: out of memory")
    assert not left
    left = [RuntimeError("CUDA error: out of memory")]
    with pytest.raises(EngineError, match="failed on cuda:0"), torch_told("x", GPU, "it", ""):
        raise RuntimeError("run_func_(...) API call failed")
    assert not left
    forget_error(GPU)


def precisions() -> list[object]:
    found: list[object] = [torch.backends.cuda.matmul.fp32_precision]
    found += [torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cudnn.allow_tf32]
    try:
        found.append(torch.get_float32_matmul_precision())
    except RuntimeError:
        found.append("mixed")
    return found


@pytest.mark.parametrize("setting", ["highest", "high", "medium", "newer"])
def test_sums_are_exact_inside_and_as_they_were_after(setting: str) -> None:
    before = torch.backends.cuda.matmul.fp32_precision
    if setting == "newer":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    else:
        torch.set_float32_matmul_precision(setting)
    try:
        outside = precisions()
        with exact_sums():
            assert precisions()[0] == "ieee"
            assert precisions()[2:] == [False, "highest"]
            assert torch.backends.cudnn.enabled
        assert precisions() == outside
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.fp32_precision = before


def test_eager_computes_in_f16_on_a_gpu_only(bundle: Bundle) -> None:
    with pytest.raises(OptionError, match="f16 on the CPU, allowed there: auto, f32, bf16"):
        open_engine(bundle, "eager", "cpu", "f16")


def test_eager_tells_when_memory_runs_out(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    with open_engine(bundle, "eager", "cpu") as engine:
        frames = np.zeros((1, 8, 8, 3), np.uint8)
        with monkeypatch.context() as patch:
            patch.setattr("engines.graph.FrameGraph.prepare", full)
            with pytest.raises(EngineError, match=r"engine eager: .* run fewer frames at once"):
                engine.run(frames)
        assert len(engine.run(frames).mask) == 1  # it goes on


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("CUDA error: an illegal memory access was encountered\nSearch for", "start it anew"),
        ("CUDA error: no kernel image is available for execution", "install a torch built for"),
    ],
)
def test_eager_tells_of_a_gpu_that_fails(
    text: str, cure: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    def fail(*_: object) -> None:
        raise torch.AcceleratorError(text)

    with open_engine(bundle, "eager", "cpu") as engine:
        monkeypatch.setattr("engines.graph.FrameGraph.prepare", fail)
        said = f"engine eager: the run failed on cpu: CUDA error: .*; .*{cure}"
        with pytest.raises(EngineError, match=said) as caught:
            engine.run(np.zeros((1, 8, 8, 3), np.uint8))
        assert "\n" not in str(caught.value)


def test_sums_are_exact_where_the_newer_way_of_setting_them_was_used() -> None:
    """In a process of its own: what it sets can't be taken back."""
    code = """
import torch
from engines.torch_devices import exact_sums
conv = torch.backends.cudnn.conv
for what, setting in (conv, "ieee"), (torch.backends, "tf32"):
    what.fp32_precision = setting
    before = conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    with exact_sums():
        print(conv.fp32_precision != "tf32", torch.backends.cuda.matmul.fp32_precision)
    print(before == (conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["True", "ieee", "True"] * 2
