"""Which engines there are, which can run here, and why the others can't."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.asked import pick_aim
from engines.base import Engine
from engines.changes import reinstall
from engines.cpu import usable_cores
from engines.errors import EngineUnavailable, OptionError
from engines.gpus import find_gpus
from nem.bundle import Bundle, open_bundle
from nem.explanation import Aim

PRECISION_NAMES = {"fp32": "f32", "fp16": "f16"}
"""Other names of precisions."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine as `available_engines` tells of it.

    Attributes:
        name: what `open_engine` takes.
        summary: one line for people.
        reason: why it can't run here and the cure; None where it can.
        no_build: why it can only run here what is built already, and the cure; None where it can
            build.
    """

    name: str
    summary: str
    reason: str | None
    no_build: str | None = None

    @property
    def available(self) -> bool:
        """Whether it can run here."""
        return self.reason is None

    @property
    def trouble(self) -> str | None:
        """What is in its way here, with the cure; None where nothing is."""
        if self.available and self.no_build is not None:
            return f"only runs what is built already: {self.no_build}"
        return self.reason


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where an engine's class is, and the packages it needs with how to get them.

    `builds`: packages without which it runs only what is built already; `takes`: what of
    `open_engine` goes to it, too, its name as `flavour`; `gpu`: it runs on NVIDIA GPUs only;
    `files`, `calls`: frames at once, and runs, with which it gets through a file quickest.
    """

    module: str
    attribute: str
    summary: str
    packages: tuple[str, ...] = ()
    builds: tuple[str, ...] = ()
    install: str = "nem-stream"
    takes: tuple[str, ...] = ()
    gpu: bool = False
    files: int = 1
    calls: int = 1


_BUILT = ("frame_size", "batch", "say")
"""What an engine takes that is built for a frame size and a batch."""


BUILD_TRT = ("torch", "timm", "torch_tensorrt")
"""What building an engine of TensorRT takes, beside what running one does."""

_ENGINES = {
    "tensorrt": _Entry(
        "engines.trt",
        "TensorRtEngine",
        "TensorRT, the fastest on an NVIDIA GPU",
        ("tensorrt", "cuda", "safetensors"),
        BUILD_TRT,
        "nem-stream[tensorrt]",
        (*_BUILT, "dynamic", "calibration", "flavour"),
        gpu=True,
    ),
    "tensorrt-rtx": _Entry(
        "engines.trt",
        "TensorRtEngine",
        "TensorRT for RTX, for GeForce and RTX cards",
        ("tensorrt_rtx", "cuda", "safetensors"),
        BUILD_TRT,
        "nem-stream[tensorrt-rtx]",
        (*_BUILT, "dynamic", "calibration", "flavour"),
        gpu=True,
    ),
    "tensorrt-module": _Entry(
        "engines.trt_module",
        "TensorRtModuleEngine",
        "TensorRT inside torch; compiled at each start",
        ("torch_tensorrt", "tensorrt", "timm", "safetensors"),
        install="nem-stream[tensorrt]",
        takes=_BUILT,
        gpu=True,
    ),
    "inductor": _Entry(
        "engines.inductor",
        "InductorEngine",
        "torch compiled ahead of time; GPU or CPU",
        ("torch", "timm", "safetensors"),
        install="nem-stream[train]",
        takes=_BUILT,
    ),
    "openvino": _Entry(
        "engines.ov",
        "OpenVinoEngine",
        "OpenVINO, the default on a CPU",
        ("openvino",),
        takes=("batch", "calls", "calibration", "aims", "say"),
        # Of `nem-tiny` 4 at once take 0.83 of the time of one after the other; 8 gain no more.
        files=4,
        # Two, of one core or more each, and not all cores in one: on two cores no thread of the
        # engine waits for the other, which was 4 % of the time with a large model.
        calls=2,
    ),
    "eager": _Entry(
        "engines.eager",
        "EagerEngine",
        "torch, the reference; CPU or GPU",
        ("torch", "timm", "safetensors"),
        install="nem-stream[train]",
        takes=("batch",),
    ),
    "fake": _Entry("engines.fake", "FakeEngine", "no model, for tests: masks by brightness"),
}


def engine_names() -> list[str]:
    """What `open_engine` takes as `engine`: "auto" and all registered names."""
    return ["auto", *_ENGINES]


def file_batch(engine: str) -> int:
    """Frames at once with which an engine gets through a file quickest.

    One picture does not keep all operations of a CPU's engine busy. Those of a GPU are built ahead
    for a batch, so theirs is the user's to choose.

    Args:
        engine: a name of `engine_names`.
    """
    entry = _ENGINES.get(engine)
    return 1 if entry is None else entry.files


def available_engines() -> list[EngineInfo]:
    """All engines, with the reason where one can't run here. Loads no runtime."""
    return [
        EngineInfo(name, entry.summary, _missing(entry), _absent(entry.builds, entry.install))
        for name, entry in _ENGINES.items()
    ]


def open_engine(
    bundle: Bundle | Path | str,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    *,
    frame_size: tuple[int, int] | None = None,
    batch: int | None = 1,
    calls: int | None = 1,
    dynamic: bool = False,
    calibration: Path | str | None = None,
    aims: Sequence[Aim] | None = None,
    say: Callable[[str], None] | None = None,
) -> Engine:
    """Make a bundle runnable, with all its heads: what is explained is an argument of `run`.

    Args:
        bundle: opened, or what `nem.open_bundle` takes.
        engine: a name of `engine_names()`; for "auto" see `engines.choose_engine`.
        device: "auto", "cpu", or for engines of a GPU "cuda", "cuda:1", ...
        precision: "auto", "f32", "f16", "bf16", "int8" or "fp8", as far as the engine has it;
            "fp32" and "fp16" are other names.
        frame_size: (height, width) of the frames that an engine of a GPU is built for; it resizes
            them itself. None: the model's input size.
        batch: frames computed at once; with 1, openvino takes any number at once, eager always.
            None: as many as get through a file quickest, see `file_batch`.
        calls: runs at the same time, each on its share of the cores, with openvino. None: as many
            as get through a file quickest; fewer at a time leave cores idle then.
        dynamic: of TensorRT: `batch` frames or fewer; fewer cost less, but all a little more.
        calibration: of int8 or fp8: pictures or videos to find ranges with.
        aims: what `run` will be asked to explain, None for all that the bundle explains. openvino
            leaves the other heads out, the other engines compute them all the same.
        say: is given lines about what takes long, such as a build.

    Raises:
        OptionError: unknown engine, device, precision or aim, or one that goes not with the engine
            or the bundle.
        EngineUnavailable: the engine, device or precision can't be had here.
        EngineError: the bundle's graph can't be compiled.
        BundleError: the bundle can't be opened.
    """
    if engine == "auto":
        from engines.choose import choose_engine  # it asks this module what is available

        choice = choose_engine(device)
        engine, device = choice.engine, choice.device
    entry = _ENGINES.get(engine)
    if entry is None:
        near = difflib.get_close_matches(str(engine), _ENGINES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        allowed = ", ".join(engine_names())
        raise OptionError(f"no engine called {engine!r}, allowed: {allowed}{hint}")
    reason = _missing(entry)
    if reason is not None:
        raise EngineUnavailable(f"engine {engine}: {reason}")
    options: dict[str, Any] = {}
    for name, value, neutral in (
        ("frame_size", frame_size, None),
        ("batch", entry.files if batch is None else batch, 1),
        ("calls", min(entry.calls, usable_cores()) if calls is None else calls, 1),
        ("dynamic", dynamic, False),
        ("calibration", None if calibration is None else Path(calibration), None),
        ("say", say, say),
        ("flavour", engine, engine),
    ):
        if name in entry.takes:
            options[name] = value
        elif value != neutral:
            able = ", ".join(other for other, one in _ENGINES.items() if name in one.takes)
            raise OptionError(
                f"engine {engine}: takes no {name.replace('_', ' ')}; leave it out; "
                f"allowed with {able}"
            )
    opened = open_bundle(bundle)
    if aims is not None:
        if not aims:
            raise OptionError("aims: none; name at least one, or leave it out for all")
        heads = opened.manifest.heads
        chosen = {pick_aim(heads, aim, None) for aim in aims}
        aims = tuple(aim for aim in heads if aim in chosen)
    if "aims" in entry.takes:
        options["aims"] = aims
    try:
        module = importlib.import_module(entry.module)
    except (ImportError, OSError) as error:  # installed, but its libraries don't load
        if isinstance(error.__cause__, KeyboardInterrupt | SystemExit):
            raise error.__cause__ from None  # what loads C++ makes an error even of Ctrl-C
        reason = " ".join(str(error).split())[:200]
        raise EngineUnavailable(
            f"engine {engine}: its runtime does not load ({reason}); "
            f"reinstall it: {reinstall(entry.packages[0])}"
        ) from error
    kind = getattr(module, entry.attribute)
    made: Engine = kind(
        opened, device=device, precision=PRECISION_NAMES.get(precision, precision), **options
    )
    if aims is not None:
        made.aims = aims
    return made


def _missing(entry: _Entry) -> str | None:
    absent = _absent(entry.packages, entry.install)
    if absent is not None:
        return absent
    if entry.gpu:
        try:
            find_gpus()
        except EngineUnavailable as error:
            return str(error)
    return None


def _absent(packages: tuple[str, ...], install: str) -> str | None:
    for package in packages:
        if _is_stand_in(package) or importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install '{install}'"
    return None


def _is_stand_in(package: str) -> bool:
    """Whether what is loaded as `package` is another one.

    Torch-TensorRT for RTX puts `tensorrt_rtx` in the place of `tensorrt` once it is imported.
    """
    own = getattr(sys.modules.get(package), "_package_name", package)
    return isinstance(own, str) and own != package
