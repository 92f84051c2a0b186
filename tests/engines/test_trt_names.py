"""Names of an engine's outputs where Torch-TensorRT numbers them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engines.trt_names import _teach_names, naming
from tests.engines.fake_torch_tensorrt import Fake, install


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    _teach_names.cache_clear()
    yield
    _teach_names.cache_clear()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    return install(monkeypatch, version="2.13.0")


def old(program: Any, **options: Any) -> None:
    """Has no keywords for names."""


def test_a_converter_that_takes_names_is_told_them(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(monkeypatch)
    with naming(fake.convert, ["frames"], ["map", "scores"]) as told:
        assert told == {
            "arg_input_binding_names": ("frames",),
            "output_binding_names": ("map", "scores"),
        }
        assert fake.numbered(2) == ("output0", "output1"), "it does that itself"


def test_numbered_outputs_are_renamed_meanwhile_and_not_later(fake: Fake) -> None:
    with naming(old, ["frames"], ["map", "scores"]) as told:
        assert told == {}
        assert fake.numbered(2) == ("map", "scores")
        with ThreadPoolExecutor(1) as others:
            left = others.submit(fake.numbered, 2).result()
        assert left == ("output0", "output1"), "another thread compiles something else"
    assert fake.numbered(2) == ("output0", "output1")
    with pytest.raises(KeyError), naming(old, [], ["gone"]):
        raise KeyError
    with naming(old, [], ["other"]):
        assert fake.numbered(1) == ("other",)


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_outputs_is_an_error(fake: Fake, count: int) -> None:
    with naming(old, [], ["map", "scores"]), pytest.raises(ValueError, match="zip"):
        fake.numbered(count)
