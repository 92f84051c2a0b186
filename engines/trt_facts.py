"""What a TensorRT engine depends on: the key it is stored under, and what changed since."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from engines.gpus import Gpu
from engines.store import Store
from engines.store_admin import list_stored
from engines.trt_api import Flavour
from nem.bundle import Bundle
from nem.manifest import GRAPH, WEIGHTS

RECIPE = "1"
"""Version of what `engines.fixed_graph`, `engines.trt_build` and `engines.golden` do; part of the
store's key."""

SAME = ("engine", "bundle", "precision", "frame", "batch")
"""Facts by which two stored engines are of one kind: they are what the user asked for."""

LONGEST_VALUE = 40
"""A longer value is a hash, of which the beginning tells enough."""

_log = logging.getLogger(__name__)


def engine_facts(
    bundle: Bundle,
    *,
    flavour: Flavour,
    precision: str,
    frame_size: tuple[int, int],
    batch: int,
    dynamic: bool = False,
    trt: str,
    gpu: Gpu,
    calibration: str | None = None,
) -> dict[str, str]:
    """All that an engine depends on, by name. Imports no runtime.

    Args:
        bundle: what is explained.
        flavour: of TensorRT.
        precision: of the arithmetic.
        frame_size: (height, width) of the frames.
        batch: frames per call.
        dynamic: whether a call may have fewer.
        trt: TensorRT's version.
        gpu: where it runs.
        calibration: hash of the pictures of a quantised engine; None for others.
    """
    quantised = {}
    if calibration is not None:
        quantised = {"calibration": calibration, "modelopt": installed("nvidia-modelopt")}
    files = bundle.manifest.files
    return {
        "engine": flavour,
        "bundle": bundle.manifest.name,
        "weights": files[WEIGHTS],
        "graph": files[GRAPH],
        "recipe": RECIPE,
        "precision": precision,
        **quantised,
        "frame": f"{frame_size[1]}x{frame_size[0]}",
        "batch": f"1 to {batch}" if dynamic else str(batch),
        "TensorRT": trt,
        "torch": installed("torch"),
        "Torch-TensorRT": installed(f"torch-{flavour}"),
        **gpu.facts,
        "system": f"{platform.system()} {platform.machine()}",
    }


def what_changed(store: Store, facts: Mapping[str, str]) -> str | None:
    """How the nearest stored engine of the same kind differs, as "driver 550.54 -> 580.65".

    None where there is none of the kind, or the store can't be read.
    """
    try:
        entries = list_stored(store)
    except OSError as error:
        _log.debug("engine store %s can't be read: %s", store.folder, error)
        return None
    found: list[list[str]] = []
    for entry in entries:
        if all(entry.facts.get(name) == facts[name] for name in SAME):
            names = [*facts, *(name for name in entry.facts if name not in facts)]
            changes = [
                f"{name} {_short(entry.facts.get(name))} -> {_short(facts.get(name))}"
                for name in names
                if entry.facts.get(name) != facts.get(name)
            ]
            if changes:
                found.append(changes)
    if not found:
        return None
    nearest: list[str] = min(found, key=len)  # of equals the last used
    return ", ".join(nearest)


def _short(value: str | None) -> str:
    if value is None:
        return "unknown"
    return value if len(value) <= LONGEST_VALUE else f"{value[:12]}..."


def installed(package: str) -> str:
    """The version of a package, "none" without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
