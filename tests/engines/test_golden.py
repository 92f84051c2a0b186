"""Golden frames, how their answers are judged, and the blob that keeps an engine with them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from engines import StoreError
from engines.golden import GoldenEngine, check, golden_frames, pack, reference, unpack
from engines.parity import BOUNDS, ENGINE_BOUNDS, find_bound
from nem.explanation import AIMS
from tests.engines.conftest import NAMES, SIZE, tiny_model

NAMES_OF_OUTPUTS = [*(f"mask_{aim}" for aim in AIMS), "scores", "embedding"]


def test_golden_frames_are_the_same_everywhere() -> None:
    frames = golden_frames((48, 64), 2)
    assert (frames.shape, frames.dtype) == ((2, 48, 64, 3), np.uint8)
    digest = hashlib.sha256(frames.tobytes()).hexdigest()
    assert digest.startswith("b04b5edb9433"), "stored engines know the answer to other frames"
    np.testing.assert_array_equal(golden_frames((48, 64), 1), frames[:1])


def test_golden_frames_are_like_pictures() -> None:
    """Edges, flat parts and all levels; not noise, on which a trained model is less steady."""
    for size in ((240, 320), (1080, 1920), (224, 224)):
        one, two = golden_frames(size, 2).astype(np.float32)
        assert np.abs(one - two).mean() > 10
        assert one.std() > 30
        assert one.min() < 60
        assert one.max() > 200
        steps = np.abs(np.diff(one, axis=1))
        assert np.median(steps) < 4
        assert steps.max() > 60
    for size in ((1, 1), (2, 300), (7, 5)):
        assert golden_frames(size, 3).shape == (3, *size, 3)


def test_the_reference_is_the_model_in_float32() -> None:
    model, frames = tiny_model(), golden_frames((SIZE, SIZE), 2)
    found = reference(model.half(), frames)  # whatever it was converted to, and left so
    assert next(model.parameters()).dtype.itemsize == 2
    assert list(found) == NAMES_OF_OUTPUTS
    assert found["scores"].shape == (2, len(NAMES))
    assert found["mask_embedding"].shape == (2, SIZE, SIZE)
    np.testing.assert_allclose(found["scores"].sum(1), 1, atol=1e-6)
    assert list(reference(tiny_model(()), frames)) == ["mask_embedding", "embedding"]


def answer() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    found = {name: random.random((2, 9, 9)).astype(np.float32) for name in NAMES_OF_OUTPUTS[:4]}
    scores = np.full((2, 4), 0.25, np.float32)
    return found | {"scores": scores, "embedding": 100 * random.random((2, 6)).astype(np.float32)}


@pytest.mark.parametrize("name", NAMES_OF_OUTPUTS)
def test_each_output_is_judged(name: str) -> None:
    expected, found = answer(), answer()
    bound = BOUNDS["f32"]
    assert check(found, expected, bound) is None
    if name == "mask_ranking":
        found[name] = 3 * found[name] + 7  # the order is what counts
        assert check(found, expected, bound) is None
        found[name] = found[name][:, ::-1]
    else:
        least = {"scores": bound.score_max, "embedding": 100 * bound.mask_max}
        found[name] = found[name].copy()
        found[name].flat[3] += 0.2 * least.get(name, bound.mask_max)
        assert check(found, expected, bound) is None
        found[name].flat[3] += 2 * least.get(name, bound.mask_max)
    reason = check(found, expected, bound)
    assert reason is not None
    assert reason.startswith(f"{name}: ")
    assert "allowed" in reason
    found[name] = np.full_like(found[name], np.nan)
    assert check(found, expected, bound) == f"{name}: not finite"
    found[name] = found[name][:1]
    assert f"{name}: shape" in check(found, expected, bound)
    del found[name]
    assert check(found, expected, bound) == f"it has no output {name}"


def test_a_mask_that_is_off_everywhere_is_found_by_its_mean() -> None:
    expected, found = answer(), answer()
    found["mask_class"] = found["mask_class"] + np.float32(1e-3)
    assert "mask_class: mean difference 0.001, allowed 0.0002" in check(
        found, expected, BOUNDS["f32"]
    )
    assert check(found, expected, BOUNDS["f16"]) is None


def test_near_ties_may_be_decided_otherwise() -> None:
    expected, found = answer(), answer()
    expected["scores"], found["scores"] = (
        np.array([[0.5, 0.5 - step], [0.9, 0.1]], np.float32) for step in (1e-4, -1e-4)
    )
    for name in ("mask_embedding", "mask_class", "mask_ranking"):
        found[name] = found[name].copy()
        found[name][0] = found[name][0, ::-1]  # it rightly explains the other class
    assert check(found, expected, BOUNDS["f32"]) is None
    found["mask_class"][1, 0] += 0.1
    assert "mask_class: largest" in str(check(found, expected, BOUNDS["f32"]))
    found["scores"][0] = 0.4, 0.6
    found["mask_class"][1] = expected["mask_class"][1]
    assert "scores: largest" in str(check(found, expected, BOUNDS["f32"]))


def test_bounds_of_precisions_and_engines() -> None:
    f16, bf16 = BOUNDS["f16"], BOUNDS["bf16"]
    assert f16.mask_max == 6 / 255
    assert f16.mask_mean < bf16.mask_mean
    assert find_bound("tensorrt", "f16") is f16
    assert find_bound("openvino", "f32") is BOUNDS["f32"]
    assert find_bound("tensorrt", "f32").mask_max == 2 / 255
    assert all(precision in BOUNDS for _, precision in ENGINE_BOUNDS)


def test_what_is_packed_is_unpacked() -> None:
    kept = GoldenEngine(b"\0engine\xff", answer())
    found = unpack(pack(kept))
    assert found.engine == kept.engine
    assert list(sorted(found.expected)) == sorted(kept.expected)
    for name, value in kept.expected.items():
        np.testing.assert_array_equal(found.expected[name], value)
        assert found.expected[name].dtype == np.float32


def damage(blob: bytes) -> dict[str, bytes]:
    from safetensors.numpy import save

    return {
        "empty": b"",
        "cut": blob[:-5],
        "header cut": blob[:20],
        "longer": blob + b"\0",
        "another length": b"\xff" * 8 + blob[8:],
        "text": b"no engine at all" * 9,
        "no engine": save({"expected.scores": np.zeros(3, np.float32)}),
        "empty engine": save(
            {"engine": np.zeros(0, np.uint8), "expected.a": np.zeros(3, np.float32)}
        ),
        "no answer": save({"engine": np.zeros(3, np.uint8)}),
    }


@pytest.mark.parametrize("kind", damage(b"12345678"))
def test_a_damaged_blob_is_one_line(kind: str) -> None:
    blob = damage(pack(GoldenEngine(b"engine", answer())))[kind]
    with pytest.raises(StoreError) as caught:
        unpack(blob)
    assert "\n" not in str(caught.value)
