"""Engines on an NVIDIA GPU: the contract, the same answers as the reference, and trouble.

NEM_REQUIRE=cuda,tensorrt pytest -m gpu tests/gpu
"""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines import (
    Engine,
    EngineClosed,
    EngineError,
    EngineUnavailable,
    FrameError,
    OptionError,
    Store,
    compare,
    find_gpus,
    list_stored,
    open_engine,
)
from engines.golden import golden_frames
from engines.quant_check import LEAST_SAME
from nem.bundle import Bundle, open_bundle
from tests.engines.conftest import SIZE, random_frames
from tests.engines.new_process import masks_of_new_process
from tests.engines.test_engine_contract import *  # noqa: F403  run on the fixture `engine`
from tests.gpu.conftest import F16_BATCH_TOLERANCE, Kind, decided_frames
from tests.required import need

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]  # TensorRT may build for minutes

FRAMES = 100
MASK_MAX = {"f32": 2 / 255, "f16": 6 / 255}
"""Largest difference of a mask pixel; bf16's is in `engines.parity` alone."""
MARGINS = {"f32": 1e-4, "f16": 2e-3, "bf16": 2e-2}
"""Best classes nearer than this to the second best are near ties at the precision."""
THREADS, RUNS = 8, 1000


def test_tells_how_it_runs(kind: Kind, engine: Engine) -> None:
    assert (engine.device, engine.precision) == ("cuda:0", kind.precision)
    assert engine.input_size == engine.frame_size == (SIZE, SIZE)


def test_the_same_answers_as_the_reference(kind: Kind, bundle: Bundle) -> None:
    with open_engine(bundle, "eager", "cpu") as reference, kind.open(bundle) as engine:
        size = reference.input_size
        some = np.concatenate([golden_frames(size, 2 * FRAMES), random_frames(FRAMES, *size)])
        frames = decided_frames(reference, some, FRAMES, MARGINS[kind.precision])
        parity = compare(engine, reference, frames)
    assert parity.ok, str(parity)
    assert parity.mask_max <= MASK_MAX.get(kind.precision, parity.bound.mask_max), str(parity)
    assert (parity.frames, parity.top1) == (FRAMES, 1), str(parity)
    assert parity.mask_max > 0, "the engine that was compared is the reference itself"


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("tensorrt", "int8"), ("tensorrt", "fp8"), ("tensorrt-rtx", "fp8")],
)
def test_a_quantised_engine_explains_as_the_reference(
    engine: str, precision: str, tmp_path: Path
) -> None:
    for name in ("cuda", engine, "modelopt"):
        need(name)
    gpu = find_gpus()[0]
    if precision == "fp8" and float(gpu.capability) < 8.9:
        pytest.skip(f"needs fp8: {gpu.name} has compute capability {gpu.capability}, asked 8.9")
    bundle = open_bundle("nem-tiny")
    with open_engine(bundle, "eager", "cpu") as reference:
        some = golden_frames(reference.input_size, 4 * FRAMES)
        for index, frame in enumerate(some[: 3 * FRAMES]):
            cv2.imwrite(str(tmp_path / f"{index:03}.png"), frame[..., ::-1])
        with open_engine(bundle, engine, "cuda", precision, calibration=tmp_path) as quantised:
            parity = compare(quantised, reference, some[3 * FRAMES :])
    assert parity.ok, str(parity)
    assert parity.top1 >= LEAST_SAME, str(parity)


def test_frames_of_its_own_size_are_resized_in_the_graph(shaped: Kind, tiny: Bundle) -> None:
    size = (90, 160)
    frames = random_frames(4, *size)
    with (
        open_engine(tiny, "eager", "cpu") as reference,
        shaped.open(tiny, frame_size=size, batch=3) as engine,
    ):
        assert engine.frame_size == size
        found, expected = engine.run(frames), reference.run(frames)
    # The reference rounds resized frames to 8 bits.
    assert np.abs(found.mask - expected.mask).mean() <= 0.01
    assert np.abs(expected.mask[0] - expected.mask[1]).mean() > 0.03


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt-rtx"])
def test_a_dynamic_batch_takes_fewer_frames(engine: str, tiny: Bundle) -> None:
    need("cuda")
    need(engine)
    frames = random_frames(4, SIZE, SIZE)
    with (
        open_engine(tiny, engine, "cuda", "f16", batch=4, dynamic=True) as opened,
        open_engine(tiny, engine, "cuda", "f16") as single,
    ):
        for count in (1, 3, 4, 2, 4):
            found = opened.run(frames[:count], "class").mask
            for each, frame in zip(found, frames, strict=False):
                right = single.run(frame[None], "class").mask[0]
                np.testing.assert_allclose(each, right, atol=F16_BATCH_TOLERANCE)


def test_frames_on_the_gpu_give_the_same_and_stay_there(shaped: Kind, tiny: Bundle) -> None:
    import torch

    frames = random_frames(2, SIZE, SIZE)
    given = torch.from_numpy(frames).to("cuda:0")
    with shaped.open(tiny, batch=2) as engine:
        for explain, target in (("embedding", None), ("target", [3, -1]), ("class", None)):
            expected = engine.run(frames, explain, target)
            found = engine.run_on_device(given, explain, target)
            wanted = (expected.mask, expected.scores, expected.embedding)
            for got, right in zip(found, wanted, strict=True):
                array = torch.as_tensor(got, device="cuda:0").cpu().numpy()
                np.testing.assert_array_equal(array, right)
        single = engine.run_on_device(given[1:])
        assert single.map.shape == (1, SIZE, SIZE)
        with pytest.raises(FrameError, match="on the GPU"):
            engine.run_on_device(frames)
        for wrong in (given.float(), given[:, :8].contiguous(), given.repeat(2, 1, 1, 1), given[0]):
            with pytest.raises(FrameError, match=r"expected .* got"):
                engine.run_on_device(wrong)
        with pytest.raises(FrameError, match="contiguous"):
            engine.run_on_device(given.transpose(1, 2))
    with pytest.raises(EngineClosed, match="closed"):
        engine.run_on_device(given)


def test_many_threads_on_one_engine_get_their_own_answers(kind: Kind, tiny: Bundle) -> None:
    frames = random_frames(THREADS, SIZE, SIZE)
    wrong: list[str] = []
    with kind.open(tiny) as engine:
        expected = [engine.run(frame[None]) for frame in frames]

        def work(index: int) -> None:
            try:
                for run in range(RUNS):
                    found = engine.run(frames[index][None])
                    if not (
                        np.array_equal(found.mask, expected[index].mask)
                        and np.array_equal(found.scores, expected[index].scores)
                    ):
                        wrong.append(f"thread {index}, run {run}: another answer")
                        return
            except EngineError as error:
                wrong.append(f"thread {index}: {error}")

        threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert np.abs(expected[0].mask - expected[1].mask).max() > 0.1


def test_threads_can_open_engines_at_once(shaped: Kind, tiny: Bundle) -> None:
    """Each captures a graph, which a wait of another for the whole GPU would break."""
    frames = random_frames(1, SIZE, SIZE)
    with shaped.open(tiny) as engine:
        expected = engine.run(frames).mask
    wrong: list[str] = []

    def work() -> None:
        try:
            for _ in range(5):
                with shaped.open(tiny) as engine:
                    # It may have taken other kernels.
                    off = np.abs(engine.run(frames).mask - expected).max()
                if not off <= MASK_MAX.get(shaped.precision, 0.4):
                    wrong.append(f"off by {off}")
        except EngineError as error:
            wrong.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_two_engines_at_once_do_not_disturb_each_other(kind: Kind, tiny: Bundle) -> None:
    frames = random_frames(2, SIZE, SIZE)
    with kind.open(tiny) as one, kind.open(tiny) as other:
        expected = [one.run(frame[None]).mask for frame in frames]
        for _ in range(20):
            np.testing.assert_array_equal(other.run(frames[1][None]).mask, expected[1])
            np.testing.assert_array_equal(one.run(frames[0][None]).mask, expected[0])
        other.close()
        np.testing.assert_array_equal(one.run(frames[0][None]).mask, expected[0])


@pytest.mark.parametrize(
    ("device", "error"),
    [("cuda:99", EngineUnavailable), ("cuda:x", OptionError), ("gpu", OptionError)],
)
def test_a_device_that_is_not_there(
    device: str, error: type[EngineError], kind: Kind, tiny: Bundle
) -> None:
    with pytest.raises(error, match=f"engine {kind.engine}: device .*{device}"):
        open_engine(tiny, kind.engine, device, kind.precision)


def test_a_gpu_without_memory_is_one_line_and_spoils_nothing(kind: Kind, tiny: Bundle) -> None:
    import torch

    frames = random_frames(1, SIZE, SIZE)
    with kind.open(tiny) as engine:  # what it needs is built, and libraries are loaded
        expected = engine.run(frames).mask
    stored = {entry.key for entry in list_stored()}
    torch.cuda.empty_cache()
    hogs = []
    for size in (1 << 30, 1 << 26, 1 << 21):
        while True:
            try:
                hogs.append(torch.empty(size, dtype=torch.uint8, device="cuda:0"))
            except torch.OutOfMemoryError:
                break
    try:
        with pytest.raises(EngineError, match="memory") as caught:
            kind.open(tiny).run(np.concatenate([frames] * 256))
        assert "\n" not in str(caught.value)
    finally:
        hogs.clear()
        torch.cuda.empty_cache()
    assert {entry.key for entry in list_stored()} == stored, "taken for damage"
    with kind.open(tiny) as engine:
        np.testing.assert_array_equal(engine.run(frames).mask, expected)


def test_second_start_loads_what_the_first_built(
    shaped: Kind, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEM_CACHE", str(tmp_path))
    said: list[str] = []
    frames = random_frames(1, SIZE, SIZE)
    with shaped.open(tiny, say=said.append) as engine:
        expected = engine.run(frames)
    assert said, "a build tells what it does"
    said.clear()
    with shaped.open(tiny, say=said.append) as engine:
        found = engine.run(frames)
    assert not said
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.scores, expected.scores)
    (entry,) = list_stored(Store())
    facts = entry.facts
    assert (facts["engine"], facts["precision"]) == (shaped.engine, shaped.precision)
    assert {"GPU", "compute capability", "driver", "weights", "graph"} <= facts.keys()


def test_a_new_process_runs_what_this_one_built(
    shaped: Kind, tiny: Bundle, cache: Path, tmp_path: Path
) -> None:
    frames = random_frames(1, SIZE, SIZE)
    with shaped.open(tiny) as engine:
        expected = engine.run(frames).mask
    runs = (shaped.engine, "cuda", shaped.precision, 1)
    found = masks_of_new_process(tiny.path, runs, frames, cache, tmp_path)
    # It may have taken other kernels for the same package.
    assert np.abs(found - expected).max() <= MASK_MAX.get(shaped.precision, 0.4)


def test_a_damaged_entry_is_built_anew(
    shaped: Kind, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEM_CACHE", str(tmp_path))
    frames = random_frames(1, SIZE, SIZE)
    with shaped.open(tiny) as engine:
        expected = engine.run(frames).mask
    (entry,) = list_stored(Store())
    blob = Store().folder / f"{entry.key}.blob"
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    said: list[str] = []
    with shaped.open(tiny, say=said.append) as engine:
        found = engine.run(frames).mask
    # Built anew it may have taken other kernels.
    assert np.abs(found - expected).max() <= MASK_MAX.get(shaped.precision, 0.4)
    assert said
