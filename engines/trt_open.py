"""From a wish to a running TensorRT engine: loaded from the store, else built, and always checked.

An engine is only handed out when its answer to the golden frames is the right one. A stored one
that fails is damage, which the store moves aside; one just built that fails is an error.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from engines.batches import fill_classes, fitting_batch
from engines.calibration import hash_files, read_pictures
from engines.changes import as_made, installed, what_changed
from engines.cuda_memory import CudaError
from engines.errors import EngineError, EngineUnavailable, FrameError, StoreError
from engines.golden import GoldenEngine, check, decided, golden_frames, pack, reference, unpack
from engines.gpus import Gpu
from engines.onnx_passes import CLASSES, FRAMES
from engines.parity import find_bound
from engines.quant_check import HeldOut
from engines.store import Store
from engines.trt_api import INSTALL, load_trt, trt_version
from engines.trt_build import BuildOptions
from engines.trt_runner import TrtRunner
from nem.bundle import Bundle
from nem.manifest import GRAPH, WEIGHTS

Say = Callable[[str], None]

RECIPE = "3"
"""Version of what `engines.fixed_graph`, `engines.trt_build` and `engines.golden` do; part of the
store's key."""

BUILD_SECONDS = 1800.0
"""How long to wait for another process that builds the same engine; a build takes minutes."""


def open_runner(
    bundle: Bundle, options: BuildOptions, gpu: Gpu, store: Store, say: Say
) -> tuple[int, TrtRunner]:
    """A checked runner for the batch, or for half of it, and so on, where memory is short.

    Args:
        bundle: what is explained.
        options: what it is built for; the batch is the most frames per launch, the calibration
            where the pictures are.
        gpu: where it is to run.
        store: where engines are kept.
        say: told in a line what takes long or was changed.

    Returns:
        The frames per launch, and the runner.

    Raises:
        EngineUnavailable: a package is missing.
        EngineError: it can't be built or run here, or what was built gives wrong answers.
    """

    def attempt(batch: int) -> TrtRunner:
        smaller = replace(options, batch=batch, dynamic=options.dynamic and batch > 1)
        return _Opening(bundle, smaller, gpu, store, say).fetch()

    return fitting_batch(options.flavour, options.batch, attempt, say)


class _Opening:
    """One attempt; see `open_runner`."""

    built: GoldenEngine

    def __init__(
        self, bundle: Bundle, options: BuildOptions, gpu: Gpu, store: Store, say: Say
    ) -> None:
        self.bundle, self.options, self.gpu = bundle, options, gpu
        self.store, self.say = store, say
        self.facts = as_made(store, self._facts())

    def fetch(self) -> TrtRunner:
        return self.store.fetch(
            self.facts,
            build=self._build,
            dump=lambda _: pack(self.built),
            load=self._load,
            wait=BUILD_SECONDS,
            say=self.say,
        )

    def _facts(self) -> dict[str, str]:
        """All that the engine depends on, by name."""
        manifest, options, flavour = self.bundle.manifest, self.options, self.options.flavour
        trt, quantised = trt_version(load_trt(flavour)), {}
        if isinstance(options.calibration, Path):
            quantised = {
                "calibration": hash_files(options.calibration),
                "modelopt": installed("nvidia-modelopt"),
            }
        height, width = self._size
        return {
            "engine": flavour,
            "bundle": manifest.name,
            "weights": manifest.files[WEIGHTS],
            "graph": manifest.files[GRAPH],
            "recipe": RECIPE,
            "precision": options.precision,
            **quantised,
            "frame": f"{width}x{height}",
            "batch": options.frames,
            "TensorRT": trt,
            "torch": installed("torch"),
            "Torch-TensorRT": installed(f"torch-{flavour}"),
            **self.gpu.facts,
            "system": f"{platform.system()} {platform.machine()}",
        }

    def _build(self) -> TrtRunner:
        options, name = self.options, self.options.flavour
        changed = what_changed(self.store, self.facts)
        if changed is not None:
            self.say(f"engine {name}: building anew, changed since the stored one: {changed}")
        try:
            from engines.trt_build import build_engine
            from nem.bundle_io import load_model

            model = load_model(self.bundle)
            expected = reference(model, self._frames())
            held_out = None
            if isinstance(options.calibration, Path):
                size = self.bundle.manifest.input_size
                pictures = read_pictures(options.calibration, size, self.say)
                held_out = HeldOut.of(model, pictures.held_out, self._size)
                options = replace(options, calibration=pictures)
            with _torch_on(self.gpu.index):
                engine = build_engine(model, options, self.say)
        except ModuleNotFoundError as error:
            raise EngineUnavailable(
                f"engine {name}: building one needs {error.name}, which is not installed: "
                f"{INSTALL[name.replace('-', '_')]}"
            ) from None
        self.built = GoldenEngine(engine, expected)
        runner, reason = self._start(self.built, held_out)
        if reason is not None:
            cure = "use another precision, or another version of TensorRT"
            if held_out is not None:
                cure = "calibrate with more pictures, such as will be looked at, or use f16"
            raise EngineError(
                f"engine {name}: the engine just built does not compute what the model does: "
                f"{reason}; {cure}"
            )
        return runner

    def _load(self, blob: bytes) -> TrtRunner:
        kept = unpack(blob)
        try:
            runner, reason = self._start(kept)
        except (CudaError, EngineUnavailable):  # the trouble is this machine's, not the engine's
            raise
        except EngineError as error:
            raise StoreError(str(error)) from None
        if reason is not None:
            raise StoreError(f"its answer to the golden frame is wrong: {reason}")
        return runner

    def _start(
        self, kept: GoldenEngine, held_out: HeldOut | None = None
    ) -> tuple[TrtRunner, str | None]:
        """A runner, and what is wrong with its answer, in which case it is closed."""
        runner = TrtRunner(kept.engine, flavour=self.options.flavour, device=self.gpu.index)
        try:
            reason = self._wrong(runner, kept)
            if reason is None and held_out is not None:
                reason = held_out.wrong(
                    partial(golden_answer, runner),
                    self.options.batch,
                    self.bundle.manifest.heads,
                    engine=self.options.flavour,
                    precision=self.options.precision,
                )
        except BaseException:
            runner.close()
            raise
        if reason is not None:
            runner.close()
        return runner, reason

    def _wrong(self, runner: TrtRunner, kept: GoldenEngine) -> str | None:
        # Another number of frames may be computed by other kernels: both ends are looked at.
        batch = self.options.batch
        for count in (batch, 1) if self.options.dynamic else (batch,):
            expected = {name: value[:count] for name, value in kept.expected.items()}
            try:
                found = golden_answer(runner, self._frames()[:count], expected)
            except FrameError as error:  # it is for other frames
                return str(error)
            bound = find_bound(self.options.flavour, self.options.precision)
            reason = check(found, expected, bound)
            if reason is not None:
                return reason
        return None

    def _frames(self) -> Any:
        return golden_frames(self._size, self.options.batch)

    @property
    def _size(self) -> tuple[int, int]:
        return self.options.frame_size or (self.bundle.manifest.input_size,) * 2


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
