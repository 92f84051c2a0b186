"""What the driver is asked when something on the GPU has failed."""

import re

import pytest

from stream import nvidia
from stream.nvidia import decoder_trouble, driver_trouble, encoder_trouble


class FakeDriver:
    """Acts as `libcuda`."""

    def __init__(self, init: int = 0, count: int = 1) -> None:
        self._init, self._count = init, count

    def cuInit(self, flags):  # noqa: N802
        return self._init

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = self._count
        return 0


def install(monkeypatch, **libraries):
    """Only these libraries can be loaded, by their name in `stream.nvidia`."""
    present = {getattr(nvidia, name): library for name, library in libraries.items()}
    monkeypatch.setattr(nvidia, "_load", present.get)


@pytest.mark.parametrize("ask", [driver_trouble, decoder_trouble, encoder_trouble])
@pytest.mark.parametrize(
    ("libraries", "said"),
    [
        ({}, "no NVIDIA driver here .*install it, in a container pass --gpus all"),
        ({"DRIVER": FakeDriver(init=100)}, r"reaches no GPU \(CUDA error 100\).*nvidia-smi"),
        ({"DRIVER": FakeDriver(count=0)}, "shows no GPU; look at CUDA_VISIBLE_DEVICES"),
    ],
)
def test_no_gpu(monkeypatch, ask, libraries, said):
    install(monkeypatch, **libraries)
    assert re.search(said, ask() or "")


@pytest.mark.parametrize(
    ("ask", "library", "other"),
    [(decoder_trouble, "DECODER", "ENCODER"), (encoder_trouble, "ENCODER", "DECODER")],
)
def test_a_container_without_the_video_libraries(monkeypatch, ask, library, other):
    install(monkeypatch, DRIVER=FakeDriver(), **{other: object()})
    assert driver_trouble() is None
    reason = ask()
    assert getattr(nvidia, library) in reason
    assert "NVIDIA_DRIVER_CAPABILITIES=all" in reason
    install(monkeypatch, DRIVER=FakeDriver(), **{library: object()})
    assert ask() is None


def test_a_library_that_is_nowhere_is_just_missing():
    assert nvidia._load("libnothing-of-this-name.so.1") is None
