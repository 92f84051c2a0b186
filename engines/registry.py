"""Which engines there are, which can run here, and why the others can't."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from engines.base import Engine
from engines.errors import EngineUnavailable, OptionError
from nem.bundle import Bundle, open_bundle


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine as `available_engines` tells of it.

    Attributes:
        name: what `open_engine` takes.
        summary: one line for people.
        reason: why it can't run here and the cure; None where it can.
    """

    name: str
    summary: str
    reason: str | None

    @property
    def available(self) -> bool:
        """Whether it can run here."""
        return self.reason is None


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where an engine's class is, and the packages it needs with how to get them."""

    module: str
    attribute: str
    summary: str
    packages: tuple[str, ...] = ()
    install: str = "nem-stream"


_ENGINES = {
    "openvino": _Entry(
        "engines.ov", "OpenVinoEngine", "OpenVINO, the default on a CPU", ("openvino",)
    ),
    "eager": _Entry(
        "engines.eager",
        "EagerEngine",
        "torch, the reference; CPU or GPU",
        ("torch", "timm", "safetensors"),
        "nem-stream[train]",
    ),
    "fake": _Entry("engines.fake", "FakeEngine", "no model, for tests: masks by brightness"),
}


def engine_names() -> list[str]:
    """What `open_engine` takes as `engine`: "auto" and all registered names."""
    return ["auto", *_ENGINES]


def available_engines() -> list[EngineInfo]:
    """All engines, with the reason where one can't run here. Loads no runtime."""
    return [EngineInfo(name, entry.summary, _missing(entry)) for name, entry in _ENGINES.items()]


def open_engine(
    bundle: Bundle | Path | str,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
) -> Engine:
    """Make a bundle runnable, with all its heads: what is explained is an argument of `run`.

    Args:
        bundle: opened, or what `nem.open_bundle` takes.
        engine: a name of `engine_names()`. "auto" is openvino, or eager where `device` names a
            GPU; when that one is missing it is an error, no other is taken.
        device: "auto", "cpu", or for the eager engine "cuda", "cuda:1", ...
        precision: "auto", "f32" or "bf16".

    Raises:
        OptionError: unknown engine, device or precision.
        EngineUnavailable: the engine, device or precision can't be had here.
        EngineError: the bundle's graph can't be compiled.
        BundleError: the bundle can't be opened.
    """
    if engine == "auto":
        engine = "eager" if device.startswith("cuda") else "openvino"
    entry = _ENGINES.get(engine)
    if entry is None:
        near = difflib.get_close_matches(engine, _ENGINES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        allowed = ", ".join(engine_names())
        raise OptionError(f"no engine called {engine!r}, allowed: {allowed}{hint}")
    reason = _missing(entry)
    if reason is not None:
        raise EngineUnavailable(f"engine {engine}: {reason}")
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    try:
        module = importlib.import_module(entry.module)
    except (ImportError, OSError) as error:  # installed, but its libraries don't load
        reason = " ".join(str(error).split())[:200]
        raise EngineUnavailable(
            f"engine {engine}: its runtime does not load ({reason}); "
            f"reinstall it: pip install --force-reinstall '{entry.install}'"
        ) from error
    made: Engine = getattr(module, entry.attribute)(opened, device=device, precision=precision)
    return made


def _missing(entry: _Entry) -> str | None:
    for package in entry.packages:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install '{entry.install}'"
    return None
