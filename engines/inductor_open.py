"""From a wish to a running package: loaded from the store, else compiled, and always checked.

A package is only handed out when its answer to the golden frames is the right one. A stored one
that fails is damage, which the store moves aside; one just built that fails is an error.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

from engines.alone import alone
from engines.base import Frames
from engines.batches import fitting_batch
from engines.changes import installed, what_changed
from engines.cpu import cpu_model, flags_digest
from engines.cuda_memory import DeviceMemoryError
from engines.errors import EngineError, StoreError
from engines.golden import GoldenEngine, check, decided, golden_frames, pack, reference, unpack
from engines.gpus import Gpu
from engines.inductor_run import CpuProgram, CudaProgram, Program, load_package
from engines.onnx_passes import SCORES, graph_outputs
from engines.parity import find_bound
from engines.store import Store
from engines.torch_devices import forget_error, free_memory, memory_told
from nem.bundle import Bundle
from nem.errors import first_line
from nem.manifest import GRAPH, WEIGHTS

RECIPE = "3"
"""Version of what `nem.model`, `engines.fixed_graph`, `engines.inductor_build` and `engines.golden`
do; part of the store's key."""

NAME = "inductor"

CURE = "end what else uses it, or use a smaller batch, precision f16 or --device cpu"

SPARE = 256 << 20
"""Bytes that torch's libraries take on a GPU beside a package's weights, and some for passing
results. With less than this free a failure is put down to memory."""

WAIT_SECONDS = 900.0
"""How long to wait for another process that compiles the same: minutes, on a busy CPU."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What package is wanted, but for the frames per call.

    Attributes:
        bundle: what is explained.
        precision: of the arithmetic.
        frame_size: (height, width) of the frames.
        device: where it is to run.
        gpu: the same as the driver tells of it; None on the CPU.
    """

    bundle: Bundle
    precision: str
    frame_size: tuple[int, int]
    device: torch.device
    gpu: Gpu | None


def open_program(wish: Wish, batch: int, store: Store, say: Say) -> tuple[int, Program]:
    """A checked program for `batch` frames, or for half as many, and so on, where memory is short.

    Args:
        wish: what is wanted.
        batch: frames per call.
        store: where packages are kept.
        say: told in a line what takes long or was changed.

    Returns:
        The frames per call, and the program.

    Raises:
        EngineUnavailable: it has to be built, and a compiler or toolkit is missing.
        EngineError: it can't be built or run here, or what was built gives wrong answers.
    """
    return fitting_batch(NAME, batch, lambda count: _Opening(wish, count, store, say).fetch(), say)


def package_facts(wish: Wish, batch: int) -> dict[str, str]:
    """All that a package depends on, by name."""
    files = wish.bundle.manifest.files
    facts = {
        "engine": NAME,
        "bundle": wish.bundle.manifest.name,
        "weights": files[WEIGHTS],
        "graph": files[GRAPH],
        "heads": " ".join(wish.bundle.manifest.heads),
        "recipe": RECIPE,
        "precision": wish.precision,
        "frame": f"{wish.frame_size[1]}x{wish.frame_size[0]}",
        "batch": str(batch),
        "torch": torch.__version__,
        "timm": installed("timm"),
        "device": wish.device.type,
        "system": f"{platform.system()} {platform.machine()}",
    }
    # A GPU's package, too, has code for the very CPU that it was compiled on.
    facts |= {"CPU": cpu_model(), "CPU flags": flags_digest()}
    return facts if wish.gpu is None else facts | wish.gpu.facts


class _Opening:
    """One attempt; see `open_program`."""

    built: GoldenEngine

    def __init__(self, wish: Wish, batch: int, store: Store, say: Say) -> None:
        self.wish, self.batch, self.store, self.say = wish, batch, store, say
        self.facts = package_facts(wish, batch)

    def fetch(self) -> Program:
        return self.store.fetch(
            self.facts,
            build=self._build,
            dump=lambda _: pack(self.built),
            load=self._load,
            wait=WAIT_SECONDS,
            say=self.say,
        )

    def _build(self) -> Program:
        # Running needs neither the compiler nor the model in torch, both seconds to import.
        from engines.fixed_graph import FixedGraph
        from engines.inductor_build import build_package
        from nem.bundle_io import load_model

        wish = self.wish
        changed = what_changed(self.store, self.facts)
        if changed is not None and not re.search(r"\bdevice ", changed):  # else of another kind
            self.say(f"engine {NAME}: building anew, changed since the stored one: {changed}")
        model = load_model(wish.bundle)
        expected = reference(model, self._frames())
        graph = FixedGraph(model, wish.frame_size, wish.precision)
        package = build_package(graph, self.batch, wish.device, self.say)
        self.built = GoldenEngine(package, expected)
        try:
            program, reason = self._start(self.built)
        except RuntimeError as error:
            raise EngineError(
                f"engine {NAME}: the package just built does not run on {wish.device}: "
                f"{first_line(error)}; use engine eager"
            ) from None
        if reason is not None:
            raise EngineError(
                f"engine {NAME}: the package just built does not compute what the model does: "
                f"{reason}; use another precision, or engine eager"
            )
        return program

    def _load(self, blob: bytes) -> Program:
        kept = unpack(blob)
        try:
            program, reason = self._start(kept)
        except RuntimeError as error:
            raise StoreError(f"torch can't run it: {first_line(error)}") from None
        if reason is not None:
            raise StoreError(f"its answer to the golden frame is wrong: {reason}")
        return program

    def _start(self, kept: GoldenEngine) -> tuple[Program, str | None]:
        """A program, and what is wrong with its answer, in which case it is closed."""
        device = self.wish.device
        try:
            with memory_told(f"engine {NAME}", device, CURE):
                program = self._program(kept)
                reason = self._wrong(program, kept)
        except torch.AcceleratorError as error:  # the trouble is the GPU's, not the package's
            raise EngineError(f"engine {NAME}: {device} fails: {first_line(error)}") from None
        except RuntimeError:
            forget_error(device)
            # A package tells only that a call failed, so ask what there was for it.
            if device.type == "cuda" and free_memory(device) < 2 * len(kept.engine) + SPARE:
                raise DeviceMemoryError(
                    f"engine {NAME}: {device} has too little free memory; {CURE}"
                ) from None
            raise
        if reason is not None:
            program.close()
        return program, reason

    def _program(self, kept: GoldenEngine) -> Program:
        wish = self.wish
        aims = wish.bundle.manifest.heads
        names = graph_outputs(aims, scores=SCORES in kept.expected)
        shape, targeted = (self.batch, *wish.frame_size, 3), "target" in aims
        shapes = {name: kept.expected[name].shape for name in names}
        if wish.device.type == "cpu":
            loader = load_package(kept.engine, wish.device)
            return CpuProgram(loader, shapes, shape, targeted=targeted)
        with alone:
            return CudaProgram(
                load_package(kept.engine, wish.device),
                shapes,
                shape,
                targeted=targeted,
                device=wish.device,
                exact=wish.precision == "f32",
            )

    def _wrong(self, program: Program, kept: GoldenEngine) -> str | None:
        found = program.run(self._frames(), decided(kept.expected), program.shapes)
        return check(found, kept.expected, find_bound(NAME, self.wish.precision))

    def _frames(self) -> Frames:
        return golden_frames(self.wish.frame_size, self.batch)
