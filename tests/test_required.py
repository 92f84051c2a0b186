"""`NEM_REQUIRE` itself: a missing thing skips, a required one fails, and names are checked."""

from __future__ import annotations

import pytest

from engines import EngineUnavailable
from engines.gpus import Gpu
from tests import required
from tests.required import THINGS, VARIABLE, need

OUTCOMES = (pytest.skip.Exception, pytest.fail.Exception)


@pytest.fixture(autouse=True)
def things(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(THINGS, "cuda", lambda: "no driver; install one")
    monkeypatch.setitem(THINGS, "tensorrt", lambda: None)


def test_what_is_there_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    need("tensorrt")
    monkeypatch.setenv(VARIABLE, "tensorrt")
    need("tensorrt")


@pytest.mark.parametrize("listed", [None, "", "tensorrt", "tensorrt, nvdec"])
def test_what_is_missing_skips_with_the_reason(
    listed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if listed is not None:
        monkeypatch.setenv(VARIABLE, listed)
    with pytest.raises(pytest.skip.Exception, match="needs cuda: no driver; install one"):
        need("cuda")


@pytest.mark.parametrize("listed", ["cuda", "tensorrt,cuda", " cuda , tensorrt", "cuda,"])
def test_what_is_required_fails_with_the_reason(
    listed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, listed)
    with pytest.raises(OUTCOMES, match="asks for cuda, which is missing: no driver") as caught:
        need("cuda")
    assert caught.type is pytest.fail.Exception


@pytest.mark.parametrize("listed", ["cdua", "cuda,tensorrt 11", "CUDA"])
def test_names_that_nobody_knows_are_an_error(listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, listed)
    with pytest.raises(pytest.UsageError, match=r"NEM_REQUIRE: unknown .*, allowed: cuda, tensor"):
        need("tensorrt")
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(pytest.UsageError, match="unknown, allowed: cuda"):
        need(listed)


def test_a_gpu_that_torch_can_not_use_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> tuple[Gpu, ...]:
        raise EngineUnavailable("no NVIDIA driver answers")

    gpu = Gpu(0, "H100", "9.0", "580")
    for find, there, say in (
        (none, True, "no NVIDIA driver answers"),
        (lambda: (gpu,), False, "can't use H100; install a build for CUDA"),
    ):
        monkeypatch.setattr(required, "find_gpus", find)
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        assert say in (required._no_cuda() or "")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert required._no_cuda() is None


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_building_for_tensorrt_takes_its_converter(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = required._no_builder(name, "torch_tensorrt_that_is_not_there")
    monkeypatch.setattr(required, "_no_engine", lambda _: "no GPU")
    assert reason() == "no GPU"
    monkeypatch.setattr(required, "_no_engine", lambda _: None)
    assert reason() == (
        f"torch_tensorrt_that_is_not_there is not installed: pip install 'nem-stream[{name}]'"
    )
    assert required._no_builder(name, "pytest")() is None


@pytest.mark.parametrize("name", ["nvdec", "nvenc"])
def test_every_other_thing_answers(name: str) -> None:
    reason = THINGS[name]()
    assert reason is None or "\n" not in reason
