"""AOTInductor packages for the benchmark of GPUs, built ahead and side by side.

One takes a minute or more, mostly of a single core, and nothing may be timed meanwhile.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import torch

from engines import EngineError
from engines.cpu import usable_cores
from engines.inductor_build import build_package
from scripts.gpu_calls import make_graph, make_model


class Wanted(NamedTuple):
    """What a package is for: case, (height, width) of the frames, precision, frames per call."""

    case: str
    size: tuple[int, int]
    precision: str
    batch: int


Packages = dict[Wanted, bytes | EngineError]


def build_ahead(
    model: str, wanted: Sequence[Wanted], device: str, jobs: int, say: Callable[[str], None]
) -> Packages:
    """Build packages in processes of their own.

    Args:
        model: timm name of the backbone.
        wanted: which.
        device: that they are for, with its number.
        jobs: how many at once.
        say: told of each that is done.

    Returns:
        By what they are for; an error in the place of what can't be built.
    """
    made: Packages = {}
    context = multiprocessing.get_context("spawn")  # CUDA does not outlive a fork
    threads = max(1, usable_cores() // jobs)
    with ProcessPoolExecutor(jobs, context, initializer=_limit, initargs=(threads,)) as pool:
        futures = {one: pool.submit(_build, model, one, device) for one in wanted}
        for one, future in futures.items():
            made[one] = _result(future)
            height, width = one.size
            what = f"{one.case}, {width}x{height}, batch {one.batch}, {one.precision}"
            outcome = "failed" if isinstance(made[one], EngineError) else "compiled"
            say(f"inductor: {what}: {outcome} ({len(made)} of {len(wanted)})")
    return made


def _limit(threads: int) -> None:
    """Share the cores: each package compiles its kernels in as many processes."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def _build(model: str, one: Wanted, device: str) -> bytes:
    graph = make_graph(make_model(model), one.case, one.size, one.precision)
    return build_package(graph, one.batch, torch.device(device), lambda _: None)


def _result(future: Future[bytes]) -> bytes | EngineError:
    try:
        return future.result()
    except EngineError as error:
        return error
    except BrokenProcessPool:
        return EngineError("inductor: a building process ended; build with fewer at once (--jobs)")
