"""What the driver tells of the GPUs, and which engine `auto` then is."""

from __future__ import annotations

import ctypes
import enum
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from engines import Choice, EngineInfo, EngineUnavailable, Gpu, OptionError, choose_engine
from engines import gpus as asked
from engines.gpus import find_gpu, find_gpus

H100 = Gpu(0, "NVIDIA H100", "9.0", "580.65.06")


class Status(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803


def fake_driver(count: int, status: Status = Status.CUDA_SUCCESS) -> ModuleType:
    """The part of cuda.bindings.driver that is asked, with `count` GPUs of two kinds."""
    ok = Status.CUDA_SUCCESS
    kinds = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=75,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=76,
    )
    driver = ModuleType("cuda.bindings.driver")
    vars(driver).update(
        CUdevice_attribute=kinds,
        cuInit=lambda flags: (status,),
        cuDeviceGetCount=lambda: (ok, count),
        cuDriverGetVersion=lambda: (ok, 13010),
        cuDeviceGet=lambda index: (ok, 100 + index),
        cuDeviceGetName=lambda size, device: (ok, f"GPU {device}".encode().ljust(size, b"\0")),
        cuDeviceGetAttribute=lambda kind, device: (ok, {75: 8, 76: device - 94}[kind]),
    )
    return driver


@pytest.fixture
def driver_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with a driver and two GPUs; returns the file that tells the driver's version."""
    version = tmp_path / "version"
    monkeypatch.setattr(asked, "VERSION_FILE", version)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", fake_driver(2))
    return version


def test_gpus_are_told_by_the_driver(driver_there: Path) -> None:
    first, second = find_gpus()
    assert first == Gpu(0, "GPU 100", "8.6", "CUDA 13.1")
    assert (second.index, second.name, second.capability) == (1, "GPU 101", "8.7")


def test_the_full_version_of_the_driver_is_taken_where_it_is_told(driver_there: Path) -> None:
    driver_there.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul\n")
    assert find_gpus()[0].driver == "580.65.06"


@pytest.mark.parametrize(("device", "index"), [("auto", 0), ("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_is_found_by_its_name(driver_there: Path, device: str, index: int) -> None:
    assert find_gpu(device, "tensorrt").index == index


@pytest.mark.parametrize("device", ["cpu", "cuda:", "cuda:x", "gpu", "cuda:-1"])
def test_other_devices_are_refused(driver_there: Path, device: str) -> None:
    with pytest.raises(OptionError, match="allowed: auto, cuda, cuda:N"):
        find_gpu(device, "tensorrt")


def test_a_gpu_that_is_not_there(driver_there: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"cuda:2 asked for, the driver shows 2 GPU"):
        find_gpu("cuda:2", "tensorrt")


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(EngineUnavailable, match=r"no NVIDIA driver here \(libcuda"):
        find_gpus()
    with pytest.raises(EngineUnavailable, match="tensorrt: device cuda: no NVIDIA driver here"):
        find_gpu("cuda", "tensorrt")


def test_no_package_to_ask_with(driver_there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(EngineUnavailable, match="cuda-bindings is not installed"):
        find_gpus()


@pytest.mark.parametrize(
    ("status", "say"),
    [
        (Status.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "does not answer: CUDA_ERROR_SYSTEM_DRIVER_MI"),
        # Also where CUDA_VISIBLE_DEVICES hides all GPUs.
        (Status.CUDA_ERROR_NO_DEVICE, "shows no GPU; .* CUDA_VISIBLE_DEVICES"),
        (Status.CUDA_SUCCESS, "shows no GPU; look at nvidia-smi"),
    ],
)
def test_a_driver_that_fails(
    status: Status, say: str, driver_there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", fake_driver(0, status))
    with pytest.raises(EngineUnavailable, match=say):
        find_gpus()


def machine(
    monkeypatch: pytest.MonkeyPatch, gpus: tuple[Gpu, ...], *engines: str, builds: bool = True
) -> None:
    """A machine with these GPUs and these engines of a GPU; TensorRT's need torch to build."""

    def info(name: str) -> EngineInfo:
        lacking = None if builds or name == "inductor" else "torch is not installed"
        return EngineInfo(
            name, "", None if name in engines else f"{name} is not installed", lacking
        )

    names = ("tensorrt", "tensorrt-rtx", "inductor", "openvino")

    def find() -> tuple[Gpu, ...]:
        if not gpus:
            raise EngineUnavailable("the NVIDIA driver shows no GPU")
        return gpus

    monkeypatch.setattr("engines.choose.find_gpus", find)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("engines.choose.available_engines", lambda: [info(n) for n in names])


def test_the_fastest_engine_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for engines, name in (
        (("tensorrt", "tensorrt-rtx", "inductor"), "tensorrt"),
        (("tensorrt-rtx", "inductor"), "inductor"),
        (("tensorrt-rtx",), "tensorrt-rtx"),
        (("inductor",), "inductor"),
    ):
        machine(monkeypatch, (H100,), *engines)
        for device in ("auto", "cuda", "cuda:0"):
            choice = choose_engine(device)
            assert (choice.engine, choice.wanting) == (name, False)
            assert choice.device == ("cuda" if device == "auto" else device)
            assert choice.why.startswith("NVIDIA H100 is there")
    assert "tensorrt is not installed" in choice.why


def test_tensorrt_rtx_comes_before_inductor_on_a_gpu_that_it_is_made_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = Gpu(0, "NVIDIA GeForce RTX 4090", "8.9", "580.65.06")
    machine(monkeypatch, (card,), "tensorrt-rtx", "inductor")
    assert choose_engine().engine == "tensorrt-rtx"


def test_the_cpu_is_taken_where_no_gpu_is_or_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, ())
    assert choose_engine() == Choice("openvino", "cpu", "the NVIDIA driver shows no GPU")
    machine(monkeypatch, (H100,), "tensorrt")
    assert choose_engine("cpu") == Choice("openvino", "cpu", "the CPU was asked for")


def test_a_gpu_without_an_engine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, (H100,))
    choice = choose_engine()
    assert (choice.engine, choice.wanting) == ("openvino", True)
    assert "inductor is not installed" in choice.why
    with pytest.raises(EngineUnavailable, match="no engine can use it: tensorrt: tensorrt is not"):
        choose_engine("cuda")


def test_an_engine_that_can_not_be_built_is_not_taken_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, (H100,), "tensorrt", builds=False)
    choice = choose_engine()
    assert (choice.engine, choice.device, choice.wanting) == ("openvino", "cpu", True)
    assert "tensorrt: torch is not installed" in choice.why
    asked = choose_engine("cuda")  # then it may run what is built already
    assert (asked.engine, asked.device) == ("tensorrt", "cuda")
    assert "torch is not installed" in asked.why


@pytest.mark.skipif(sys.platform != "linux", reason="torch looks for them elsewhere")
@pytest.mark.parametrize(
    ("there", "variables", "say"),
    [
        ((), {}, r"C\+\+ compiler, and g\+\+ is not there"),
        (("g++", "nvcc"), {"CXX": "clang++-19 -g"}, r"and clang\+\+-19 is not there"),
        (("g++",), {}, "with the CUDA toolkit, which is not there"),
        (("g++", "nvcc"), {}, None),
        (("ccache",), {"CXX": "ccache g++", "CUDA_HOME": "/opt/cuda"}, None),
    ],
)
def test_inductor_is_not_taken_by_itself_without_its_tools(
    there: tuple[str, ...],
    variables: dict[str, str],
    say: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    machine(monkeypatch, (H100,), "inductor")
    monkeypatch.setattr("engines.choose.TOOLKIT", tmp_path / "cuda")
    monkeypatch.setattr("shutil.which", lambda name: name if name in there else None)
    for name in ("CXX", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    choice = choose_engine()
    assert choose_engine("cuda").engine == "inductor"  # it may run what is built already
    if say is None:
        assert (choice.engine, choice.wanting) == ("inductor", False)
    else:
        assert (choice.engine, choice.device, choice.wanting) == ("openvino", "cpu", True)
        assert re.search(say, choice.why)


def test_a_torch_for_cpus_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, (H100,), "inductor")
    monkeypatch.setattr("engines.choose.installed", lambda package: f"{package} 2.14.1+cpu")
    choice = choose_engine()
    assert (choice.engine, choice.wanting) == ("openvino", True)
    assert "is built for CPUs" in choice.why
