"""Engines on an NVIDIA GPU: the contract, the same answers as the reference, and trouble.

    NEM_REQUIRE=cuda,tensorrt pytest -m gpu tests/gpu

Three packages of each engine are built: for the first test, for the default model and for frames
of another size; what needs the first alone comes first. Processes with an engine and precision each
(OMP_NUM_THREADS=4 pytest -m gpu tests/gpu -k inductor-f16) can run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
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
    verify_stored,
)
from engines.golden import golden_frames
from engines.parity import find_bound
from engines.quant_check import LEAST_SAME
from engines.store_files import key_of, write_entry
from nem.bundle import Bundle, open_bundle
from tests.engines.conftest import SIZE, random_frames
from tests.engines.new_process import masks_of_new_process
from tests.engines.test_engine_contract import *  # noqa: F403  run on the fixture `engine`
from tests.gpu.conftest import (
    BATCH,
    F16_BATCH_TOLERANCE,
    THREADS,
    Kind,
    decided_frames,
    entry_of,
    shaped,
    wrong_of_threads,
)
from tests.required import need

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]  # TensorRT may build for minutes

FRAMES = 100
MASK_MAX = {"f32": 2 / 255, "f16": 6 / 255}
"""Largest difference of a mask pixel; bf16's is in `engines.parity` alone."""
RUNS = 1000
WIDE, WIDE_BATCH = (90, 160), 3


def same_answers(kind: Kind, engine: Engine, bundle: Bundle) -> None:
    with open_engine(bundle, "eager", "cpu") as reference:
        size = reference.input_size
        some = np.concatenate([golden_frames(size, 2 * FRAMES), random_frames(FRAMES, *size)])
        margin = find_bound(kind.engine, kind.precision).score_max
        frames = decided_frames(reference, some, FRAMES, margin)
        parity = compare(engine, reference, frames)
    assert parity.ok, str(parity)
    assert parity.mask_max <= MASK_MAX.get(kind.precision, parity.bound.mask_max), str(parity)
    assert (parity.frames, parity.top1) == (FRAMES, 1), str(parity)
    assert parity.mask_max > 0, "the engine that was compared is the reference itself"


def test_tells_how_it_runs(kind: Kind, engine: Engine) -> None:
    assert (engine.device, engine.precision) == ("cuda:0", kind.precision)
    assert engine.input_size == engine.frame_size == (SIZE, SIZE)


@pytest.mark.parametrize(
    ("device", "error"),
    [("cuda:99", EngineUnavailable), ("cuda:x", OptionError), ("gpu", OptionError)],
)
def test_a_device_that_is_not_there(
    device: str, error: type[EngineError], kind: Kind, tiny: Bundle
) -> None:
    with pytest.raises(error, match=f"engine {kind.engine}: device .*{device}"):
        open_engine(tiny, kind.engine, device, kind.precision)


def test_the_same_answers_as_the_reference(kind: Kind, engine: Engine, tiny: Bundle) -> None:
    same_answers(kind, engine, tiny)


@shaped
def test_frames_on_the_gpu_give_the_same_and_stay_there(kind: Kind, engine: Engine) -> None:
    import torch

    frames = random_frames(2, SIZE, SIZE)
    given = torch.from_numpy(frames).to("cuda:0")
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
    engine.close()
    with pytest.raises(EngineClosed, match="closed"):
        engine.run_on_device(given)


def test_two_engines_at_once_do_not_disturb_each_other(
    kind: Kind, engine: Engine, tiny: Bundle
) -> None:
    frames = random_frames(2, SIZE, SIZE)
    expected = [engine.run(frame[None]).mask for frame in frames]
    with kind.open(tiny) as other:
        for _ in range(20):
            np.testing.assert_array_equal(other.run(frames[1][None]).mask, expected[1])
            np.testing.assert_array_equal(engine.run(frames[0][None]).mask, expected[0])
    np.testing.assert_array_equal(engine.run(frames[0][None]).mask, expected[0])


@shaped
def test_second_start_loads_what_the_first_built(kind: Kind, engine: Engine, tiny: Bundle) -> None:
    said: list[str] = []
    frames = random_frames(1, SIZE, SIZE)
    expected = engine.run(frames)
    with kind.open(tiny, say=said.append) as opened:
        found = opened.run(frames)
    assert not said
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.scores, expected.scores)
    facts = entry_of(kind).facts
    assert {"GPU", "compute capability", "driver", "weights", "graph"} <= facts.keys()


@shaped
def test_a_new_process_runs_what_this_one_built(
    kind: Kind, engine: Engine, tiny: Bundle, cache: Path, tmp_path: Path
) -> None:
    frames = random_frames(1, SIZE, SIZE)
    runs = (kind.engine, "cuda", kind.precision, BATCH)
    found = masks_of_new_process(tiny.path, runs, frames, cache, tmp_path)
    # It may have taken other kernels for the same package.
    assert np.abs(found - engine.run(frames).mask).max() <= MASK_MAX.get(kind.precision, 0.4)


@shaped
def test_threads_can_open_engines_at_once(kind: Kind, engine: Engine, tiny: Bundle) -> None:
    """Each captures a graph, which a wait of another for the whole GPU would break."""
    frames = random_frames(1, SIZE, SIZE)
    expected = engine.run(frames).mask

    def work(_: int) -> str | None:
        for _ in range(2):
            with kind.open(tiny) as opened:
                # It may have taken other kernels.
                off = np.abs(opened.run(frames).mask - expected).max()
            if not off <= MASK_MAX.get(kind.precision, 0.4):
                return f"off by {off}"
        return None

    assert not wrong_of_threads(work)


def test_many_threads_on_one_engine_get_their_own_answers(engine: Engine) -> None:
    frames = random_frames(THREADS, SIZE, SIZE)
    expected = [engine.run(frame[None]) for frame in frames]

    def work(index: int) -> str | None:
        for run in range(RUNS):
            found = engine.run(frames[index][None])
            if not (
                np.array_equal(found.mask, expected[index].mask)
                and np.array_equal(found.scores, expected[index].scores)
            ):
                return f"run {run}: another answer"
        return None

    assert not wrong_of_threads(work)
    assert np.abs(expected[0].mask - expected[1].mask).max() > 0.1


def test_the_default_model_gives_the_same_answers(kind: Kind) -> None:
    bundle = open_bundle("nem-tiny")
    with kind.open(bundle, batch=1) as engine:
        same_answers(kind, engine, bundle)


@shaped
@pytest.mark.usefixtures("engine")
def test_a_damaged_entry_is_built_anew(
    kind: Kind, tiny: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    """One is put where the engine for wide frames will be, which the next test runs."""
    wide = {"frame": f"{WIDE[1]}x{WIDE[0]}", "batch": str(WIDE_BATCH)}
    facts, folder = entry_of(kind).facts | wide, Store().folder
    key = key_of(facts)
    write_entry(folder, facts, b"engine")
    (folder / f"{key}.blob").write_bytes(b"Engine")
    said: list[str] = []
    kind.open(tiny, WIDE_BATCH, frame_size=WIDE, say=said.append).close()
    assert said, "a build tells what it does"
    assert f"stored engine {key[:12]} is damaged" in caplog.text
    assert [entry.problem for entry in verify_stored() if entry.key == key] == [None]


@shaped
def test_frames_of_its_own_size_are_resized_in_the_graph(kind: Kind, tiny: Bundle) -> None:
    frames = random_frames(WIDE_BATCH + 1, *WIDE)
    with (
        open_engine(tiny, "eager", "cpu") as reference,
        kind.open(tiny, WIDE_BATCH, frame_size=WIDE) as engine,
    ):
        assert engine.frame_size == WIDE
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
        open_engine(tiny, engine, "cuda", "f16", batch=BATCH) as single,
    ):
        for count in (1, 3, 4, 2, 4):
            found = opened.run(frames[:count], "class").mask
            for each, frame in zip(found, frames, strict=False):
                right = single.run(frame[None], "class").mask[0]
                np.testing.assert_allclose(each, right, atol=F16_BATCH_TOLERANCE)


def test_a_gpu_without_memory_is_one_line_and_spoils_nothing(
    kind: Kind, have_gpu_alone: Callable[[], None]
) -> None:
    import torch

    bundle = open_bundle("nem-tiny")  # for single frames: no smaller batch is built instead
    have_gpu_alone()
    with kind.open(bundle, batch=1) as engine:  # what it needs is built, and libraries are loaded
        frames = random_frames(1, *engine.input_size)
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
            kind.open(bundle, batch=1).run(np.concatenate([frames] * 256))
        assert "\n" not in str(caught.value)
    finally:
        hogs.clear()
        torch.cuda.empty_cache()
    assert {entry.key for entry in list_stored()} == stored, "taken for damage"
    with kind.open(bundle, batch=1) as engine:
        np.testing.assert_array_equal(engine.run(frames).mask, expected)


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
