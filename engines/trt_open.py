"""From a wish to a running TensorRT engine: loaded from the store, else built, and always checked.

An engine is only handed out when its answer to the golden frames is the right one. A stored one
that fails is damage, which the store moves aside; one just built that fails is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from engines.batches import fill_classes, fitting_batch
from engines.calibration import hash_files, read_pictures
from engines.changes import what_changed
from engines.cuda_memory import CudaError
from engines.errors import EngineError, EngineUnavailable, FrameError, StoreError
from engines.golden import GoldenEngine, check, decided, golden_frames, pack, reference, unpack
from engines.gpus import Gpu
from engines.onnx_passes import CLASSES, FRAMES
from engines.parity import find_bound
from engines.quant_check import HeldOut, check_golden
from engines.store import Store
from engines.trt_api import INSTALL, Flavour, load_trt, trt_version
from engines.trt_facts import engine_facts
from engines.trt_quant import QUANTISED
from engines.trt_runner import TrtRunner
from nem.bundle import Bundle

Say = Callable[[str], None]

BUILD_SECONDS = 1800.0
"""How long to wait for another process that builds the same engine; a build takes minutes."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What engine is wanted, but for the frames per launch.

    Attributes:
        bundle: what is explained.
        flavour: of TensorRT.
        precision: of the arithmetic.
        frame_size: (height, width) of the frames.
        gpu: where it is to run.
        dynamic: whether a launch may have fewer frames than the batch.
        calibration: where the pictures of a quantised engine are; None for others.
    """

    bundle: Bundle
    flavour: Flavour
    precision: str
    frame_size: tuple[int, int]
    gpu: Gpu
    dynamic: bool = False
    calibration: Path | None = None


class _Ready(NamedTuple):
    runner: TrtRunner
    kept: GoldenEngine


def open_runner(wish: Wish, batch: int, store: Store, say: Say) -> tuple[int, TrtRunner]:
    """A checked runner for `batch` frames, or for half as many, and so on, where memory is short.

    Args:
        wish: what is wanted.
        batch: frames per launch.
        store: where engines are kept.
        say: told in a line what takes long or was changed.

    Returns:
        The frames per launch, and the runner.

    Raises:
        EngineUnavailable: a package is missing.
        EngineError: it can't be built or run here, or what was built gives wrong answers.
    """
    return fitting_batch(
        wish.flavour, batch, lambda count: _Opening(wish, count, store, say).fetch(), say
    )


class _Opening:
    """One attempt; see `open_runner`."""

    def __init__(self, wish: Wish, batch: int, store: Store, say: Say) -> None:
        self.wish, self.batch, self.store, self.say = wish, batch, store, say
        self.dynamic = wish.dynamic and batch > 1
        self.facts = engine_facts(
            wish.bundle,
            flavour=wish.flavour,
            precision=wish.precision,
            frame_size=wish.frame_size,
            batch=batch,
            dynamic=self.dynamic,
            trt=trt_version(load_trt(wish.flavour)),
            gpu=wish.gpu,
            calibration=None if wish.calibration is None else hash_files(wish.calibration),
        )

    def fetch(self) -> TrtRunner:
        ready = self.store.fetch(
            self.facts,
            build=self._build,
            dump=lambda made: pack(made.kept),
            load=self._load,
            wait=BUILD_SECONDS,
        )
        return ready.runner

    def _build(self) -> _Ready:
        wish, name = self.wish, self.wish.flavour
        changed = what_changed(self.store, self.facts)
        if changed is not None:
            self.say(f"engine {name}: building anew, changed since the stored one: {changed}")
        try:
            from engines.trt_build import BuildOptions, build_engine
            from nem.bundle_io import load_model

            model = load_model(wish.bundle)
            expected = reference(model, self._frames())
            pictures, held_out = None, None
            if wish.calibration is not None:
                pictures = read_pictures(
                    wish.calibration, wish.bundle.manifest.input_size, self.say
                )
                held_out = HeldOut.of(model, pictures.held_out, wish.frame_size)
            options = BuildOptions(
                wish.frame_size,
                wish.precision,
                self.batch,
                name,
                dynamic=self.dynamic,
                calibration=pictures,
            )
            with _torch_on(wish.gpu.index):
                engine = build_engine(model, options, self.say)
        except ModuleNotFoundError as error:
            raise EngineUnavailable(
                f"engine {name}: building one needs {error.name}, which is not installed: "
                f"{INSTALL[name.replace('-', '_')]}"
            ) from None
        kept = GoldenEngine(engine, expected)
        runner, reason = self._start(kept, held_out)
        if reason is not None:
            cure = "use another precision, or another version of TensorRT"
            if held_out is not None:
                cure = "calibrate with more pictures, such as will be looked at, or use f16"
            raise EngineError(
                f"engine {name}: the engine just built does not compute what the model does: "
                f"{reason}; {cure}"
            )
        return _Ready(runner, kept)

    def _load(self, blob: bytes) -> _Ready:
        kept = unpack(blob)
        try:
            runner, reason = self._start(kept)
        except (CudaError, EngineUnavailable):  # the trouble is this machine's, not the engine's
            raise
        except EngineError as error:
            raise StoreError(str(error)) from None
        if reason is not None:
            raise StoreError(f"its answer to the golden frame is wrong: {reason}")
        return _Ready(runner, kept)

    def _start(
        self, kept: GoldenEngine, held_out: HeldOut | None = None
    ) -> tuple[TrtRunner, str | None]:
        """A runner, and what is wrong with its answer, in which case it is closed."""
        runner = TrtRunner(kept.engine, flavour=self.wish.flavour, device=self.wish.gpu.index)
        try:
            reason = self._wrong(runner, kept)
            if reason is None and held_out is not None:
                reason = self._wrong_held_out(runner, held_out)
        except BaseException:
            runner.close()
            raise
        if reason is not None:
            runner.close()
        return runner, reason

    def _wrong(self, runner: TrtRunner, kept: GoldenEngine) -> str | None:
        # Another number of frames may be computed by other kernels: both ends are looked at.
        for count in (self.batch, 1) if self.dynamic else (self.batch,):
            expected = {name: value[:count] for name, value in kept.expected.items()}
            try:
                found = golden_answer(runner, self._frames()[:count], expected)
            except FrameError as error:  # it is for other frames
                return str(error)
            flavour, precision = self.wish.flavour, self.wish.precision
            if precision in QUANTISED:
                reason = check_golden(found, expected, self.wish.bundle.manifest.heads, precision)
            else:
                reason = check(found, expected, find_bound(flavour, precision))
            if reason is not None:
                return reason
        return None

    def _wrong_held_out(self, runner: TrtRunner, held_out: HeldOut) -> str | None:
        return held_out.wrong(
            lambda frames, expected: golden_answer(runner, frames, expected),
            self.batch,
            self.wish.bundle.manifest.heads,
            engine=self.wish.flavour,
            precision=self.wish.precision,
        )

    def _frames(self) -> Any:
        return golden_frames(self.wish.frame_size, self.batch)


def golden_answer(runner: TrtRunner, frames: Any, expected: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's outputs for some frames whose right answer is known."""
    inputs: dict[str, Any] = {FRAMES: frames}
    if CLASSES in runner.inputs:
        dtype = runner.inputs[CLASSES].dtype
        inputs[CLASSES] = fill_classes(decided(expected), len(frames), dtype)
    return runner.run(inputs)


@contextmanager
def _torch_on(index: int) -> Iterator[None]:
    """Torch builds for the current GPU; what memory it took for that is given back."""
    import torch

    if not torch.cuda.is_available():  # the build says so, where it needs one
        yield
        return
    with torch.cuda.device(index):
        try:
            yield
        finally:
            torch.cuda.empty_cache()
