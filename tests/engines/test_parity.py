"""Engines against the eager reference, and the comparison itself."""

from __future__ import annotations

import numpy as np
import pytest

from engines import FakeEngine, OptionError, Parity, compare, open_engine
from nem.bundle import Bundle, list_bundles, open_bundle
from tests.engines.conftest import SIZE, open_by_kind, random_frames


@pytest.mark.parametrize("kind", ["openvino-f32", "openvino-bf16", "eager-bf16"])
def test_engine_agrees_with_eager(kind: str, bundle: Bundle) -> None:
    frames = random_frames(6, 90, 121)
    with open_by_kind(kind, bundle) as engine, open_engine(bundle, "eager", "cpu") as eager:
        parity = compare(engine, eager, frames)
        spread = eager.run(frames).mask.std()
    assert parity.ok, parity
    assert parity.frames == 6
    assert spread > 0.2, "a flat mask would agree with anything"


def test_f32_means_f32(bundle: Bundle) -> None:
    """bf16 keeps 8 bits: a wrong precision would be off by a thousand times this."""
    with open_engine(bundle, precision="f32") as engine, open_engine(bundle, "eager") as eager:
        parity = compare(engine, eager, random_frames(4, SIZE, SIZE))
    assert parity.mask_max < 1e-4
    assert parity.score_max < 1e-4


def test_bf16_keeps_fine_steps_in_mask_and_scores(bundle: Bundle) -> None:
    """Sigmoid and softmax are computed in float32, so values are not those of bf16."""
    with open_by_kind("openvino-bf16", bundle) as engine:
        explanation = engine.run(random_frames(1, SIZE, SIZE))
    for array in (explanation.mask, explanation.scores):
        low_bits = np.ascontiguousarray(array).view(np.uint32) & 0xFFFF
        assert np.count_nonzero(low_bits) > 0.5 * array.size


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_embedded_bundle_agrees(precision: str) -> None:
    if "nem-tiny" not in list_bundles():
        pytest.skip("the embedded bundle nem-tiny is not built yet")
    embedded = open_bundle("nem-tiny")
    with (
        open_by_kind(f"openvino-{precision}", embedded) as engine,
        open_engine(embedded, "eager", "cpu") as eager,
    ):
        parity = compare(engine, eager, random_frames(4, 240, 320))
    assert parity.ok, parity


class _Shifted(FakeEngine):
    """A fake engine whose mask is off by `shift` at one pixel."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def _run(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        mask, scores, embedding = super()._run(frames)
        mask[:, 3, 4] += self.shift
        return mask, scores, embedding


@pytest.mark.parametrize(
    ("shift", "ok"), [(0.0, True), (0.003, True), (0.005, False), (float("nan"), False)]
)
def test_one_pixel_decides(shift: float, ok: bool) -> None:
    parity = compare(_Shifted(shift), FakeEngine(), random_frames(2, 32, 32))
    assert parity.ok is ok
    np.testing.assert_allclose(parity.mask_max, shift, rtol=1e-3)
    assert ("DIFFERENT" in str(parity)) is not ok


def test_scores_decide_too() -> None:
    fields = {"frames": 1, "mask_max": 0.0, "mask_mean": 0.0, "top1": 1.0}
    assert Parity(precision="f32", score_max=0.0005, **fields).ok
    assert not Parity(precision="f32", score_max=0.002, **fields).ok
    assert Parity(precision="bf16", score_max=0.002, **fields).ok


def test_other_models_are_not_compared() -> None:
    with pytest.raises(OptionError, match="same model"):
        compare(FakeEngine(), FakeEngine(names=("a", "b", "c")), random_frames(1, 8, 8))


def test_without_classes() -> None:
    one, two = FakeEngine(names=()), FakeEngine(names=())
    parity = compare(one, two, random_frames(2, 8, 8))
    assert (parity.score_max, parity.top1, parity.ok) == (0.0, 1.0, True)
