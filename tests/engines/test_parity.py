"""Engines against the eager reference, and the comparison itself."""

from __future__ import annotations

import numpy as np
import pytest

from engines import FakeEngine, OptionError, Parity, compare, open_engine, resize
from engines.base import Arrays
from nem.bundle import Bundle, list_bundles, open_bundle
from nem.explanation import AIMS
from tests.engines.conftest import SIZE, open_by_kind, random_frames


@pytest.mark.parametrize("kind", ["openvino-f32", "openvino-bf16", "eager-bf16"])
def test_engine_agrees_with_eager(kind: str, bundle: Bundle) -> None:
    frames = random_frames(6, 90, 121)
    with open_by_kind(kind, bundle) as engine, open_engine(bundle, "eager", "cpu") as eager:
        parity = compare(engine, eager, frames)
        spread = min(eager.run(frames, aim).mask.std() for aim in eager.aims)
    assert parity.ok, parity
    assert parity.frames == 6
    assert parity.aims == AIMS
    assert spread > 0.1, "a flat mask would agree with anything"


def test_f32_means_f32(bundle: Bundle) -> None:
    """bf16 keeps 8 bits: a wrong precision would be off by a thousand times this."""
    with open_engine(bundle, precision="f32") as engine, open_engine(bundle, "eager") as eager:
        parity = compare(engine, eager, random_frames(4, SIZE, SIZE))
    assert parity.mask_max < 1e-4
    assert parity.rank_mean < 1e-5
    assert parity.score_max < 1e-4


@pytest.mark.parametrize("aim", ["embedding", "class", "target"])
def test_bf16_keeps_fine_steps_in_mask_and_scores(bundle: Bundle, aim: str) -> None:
    """Sigmoid and softmax are computed in float32, so values are not those of bf16."""
    with open_by_kind("openvino-bf16", bundle) as engine:
        explanation = engine.run(random_frames(1, SIZE, SIZE), aim)
    for array in (explanation.mask, explanation.scores):
        low_bits = np.ascontiguousarray(array).view(np.uint32) & 0xFFFF
        assert np.count_nonzero(low_bits) > 0.5 * array.size


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_embedded_bundle_agrees(precision: str) -> None:
    if "nem-tiny" not in list_bundles():
        pytest.skip("the embedded bundle nem-tiny is not built yet")
    data = pytest.importorskip("skimage.data", reason="needs the extra demo")
    # Photos: the bounds are those of real frames, on noise a trained net is less steady.
    photos = (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())
    frames = np.stack([resize(photo, (240, 320)) for photo in photos])
    embedded = open_bundle("nem-tiny")
    with (
        open_by_kind(f"openvino-{precision}", embedded) as engine,
        open_engine(embedded, "eager", "cpu") as eager,
    ):
        parity = compare(engine, eager, frames)
    assert parity.ok, parity


class _Shifted(FakeEngine):
    """A fake engine whose map of one aim is off by `shift` at one pixel."""

    def __init__(self, shift: float, aim: str) -> None:
        super().__init__()
        self.shift, self.aim = shift, aim

    def _run(self, frames: np.ndarray, aim: str, classes: np.ndarray | None) -> Arrays:
        found = super()._run(frames, aim, classes)
        if aim == self.aim:
            found.map[:, 3, 4] += self.shift
        return found


@pytest.mark.parametrize("aim", ["embedding", "class", "target"])
@pytest.mark.parametrize(
    ("shift", "ok"), [(0.0, True), (0.003, True), (0.005, False), (float("nan"), False)]
)
def test_one_pixel_of_any_mask_decides(shift: float, ok: bool, aim: str) -> None:
    parity = compare(_Shifted(shift, aim), FakeEngine(), random_frames(2, 32, 32))
    assert parity.ok is ok
    np.testing.assert_allclose(parity.mask_max, shift, rtol=1e-3)
    assert ("DIFFERENT" in str(parity)) is not ok
    assert parity.rank_mean == 0


@pytest.mark.parametrize("aim", ["embedding", "class", "target"])
def test_one_mask_that_is_off_everywhere_decides(aim: str) -> None:
    """By too little for any pixel: the others, which are right, are no excuse for it."""

    class Paler(FakeEngine):
        def _run(self, frames: np.ndarray, asked: str, classes: np.ndarray | None) -> Arrays:
            found = super()._run(frames, asked, classes)
            return found._replace(map=found.map - np.float32(2e-4)) if asked == aim else found

    parity = compare(Paler(), FakeEngine(), random_frames(2, 32, 32))
    assert not parity.ok
    assert parity.mask_max < parity.bound.mask_max
    assert parity.mask_mean == pytest.approx(2e-4, rel=1e-2)


def test_a_ranking_is_judged_by_its_ranks() -> None:
    class Reordered(FakeEngine):
        """Pixels of each row from right to left: other ranks, the same set of values."""

        def _run(self, frames: np.ndarray, aim: str, classes: np.ndarray | None) -> Arrays:
            found = super()._run(frames, aim, classes)
            return found._replace(map=found.map[:, :, ::-1]) if aim == "ranking" else found

    class Stretched(FakeEngine):
        """The same order with other values, as another runtime's rounding would never give."""

        def _run(self, frames: np.ndarray, aim: str, classes: np.ndarray | None) -> Arrays:
            found = super()._run(frames, aim, classes)
            return found._replace(map=2 * found.map + 5) if aim == "ranking" else found

    frames = random_frames(2, 32, 32)
    other = compare(Reordered(), FakeEngine(), frames)
    assert not other.ok
    assert other.rank_mean > 0.1
    assert other.mask_max == 0
    assert "ranks mean" in str(other)
    assert compare(Stretched(), FakeEngine(), frames).ok


def test_the_reference_decides_on_the_class() -> None:
    """A near tie that falls the other way is a difference of scores, not of maps."""

    class Undecided(FakeEngine):
        def _run(self, frames: np.ndarray, aim: str, classes: np.ndarray | None) -> Arrays:
            assert aim != "target" or (classes >= 0).all()
            return super()._run(frames, aim, classes)

    parity = compare(Undecided(), FakeEngine(), random_frames(3, 32, 32))
    assert (parity.ok, parity.aims) == (True, AIMS)


@pytest.mark.parametrize(("precision", "ok"), [("bf16", False), ("int8", True), ("fp8", True)])
def test_near_ties_that_eight_bits_turn_over_are_left_out(precision: str, ok: bool) -> None:
    class Turned(FakeEngine):
        """Decides the second frame the other way, and so draws another map."""

        def _run(self, frames: np.ndarray, aim: str, classes: np.ndarray | None) -> Arrays:
            found = super()._run(frames, aim, classes)
            turned = (frames == tied).all(axis=(1, 2, 3))
            found.scores[turned] = found.scores[turned][:, ::-1]
            found.map[turned] = 1 - found.map[turned]
            return found

    tied = np.repeat(np.uint8([0] * 16 + [255] * 15 + [0]), 32 * 3).reshape(32, 32, 3)
    tied[0, :10] = 255  # 48 % bright
    frames = np.concatenate([random_frames(1, 32, 32), tied[None]])
    engine = Turned()
    engine.precision = precision
    parity = compare(engine, FakeEngine(), frames)
    assert (parity.ok, parity.top1) == (ok, 0.5)
    assert parity.score_max <= 0.1
    alone = compare(engine, FakeEngine(), tied[None])
    assert not alone.ok
    assert bool(np.isnan(alone.mask_mean)) is (precision != "bf16")


def test_scores_decide_too() -> None:
    fields = {"frames": 1, "aims": ("embedding",), "mask_max": 0.0, "mask_mean": 0.0}
    fields |= {"rank_mean": 0.0, "top1": 1.0}
    assert Parity(precision="f32", score_max=0.0005, **fields).ok
    assert not Parity(precision="f32", score_max=0.002, **fields).ok
    assert Parity(precision="bf16", score_max=0.002, **fields).ok


def test_other_models_are_not_compared() -> None:
    for other in (
        FakeEngine(names=("a", "b", "c")),
        FakeEngine(aims=("embedding", "class")),
        FakeEngine(input_size=(16, 16)),
    ):
        with pytest.raises(OptionError, match="same model"):
            compare(FakeEngine(), other, random_frames(1, 8, 8))


def test_without_classes() -> None:
    one, two = FakeEngine(names=()), FakeEngine(names=())
    parity = compare(one, two, random_frames(2, 8, 8))
    assert (parity.score_max, parity.top1, parity.ok) == (0.0, 1.0, True)
