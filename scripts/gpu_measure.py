"""The measuring itself: graphs built, checked and timed in turns; rates of the GPU. Needs one."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines import EngineError
from engines.fixed_graph import DTYPES
from engines.golden import check, golden_frames
from engines.parity import find_bound
from engines.torch_devices import exact_sums
from nem.model import NEM
from scripts.gpu_calls import CASES, Call, make_call, make_graph, make_model
from scripts.gpu_packages import Packages, Wanted, build_ahead
from scripts.gpu_report import Report, Row, lines, percentiles
from scripts.gpu_roofline import Roof, Work, copy_rate, count_work, product_rate

if TYPE_CHECKING:
    from scripts.bench_gpu import Options

Array = NDArray[Any]

DEVICE = "cuda"
WARM_UPS = 20
PRODUCT = 8192
"""Side of the matrices of the measured product."""
COPY = 1 << 30
"""Bytes of the measured copy."""
ROUNDS = 30
"""How often both are timed."""


def measure_roof(precision: str) -> Roof:
    """The GPU's rates: medians of some rounds, of one large product and one large copy."""
    left = torch.randn(PRODUCT, PRODUCT, device=DEVICE, dtype=DTYPES[precision])
    right, product = torch.randn_like(left), torch.empty_like(left)
    source = torch.empty(COPY, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    samples = time_in_turns(
        {
            "product": lambda: torch.mm(left, right, out=product),
            "copy": lambda: target.copy_(source),
        },
        warmup=5,
        repeats=ROUNDS,
    )
    times = {name: percentiles(values)[0] for name, values in samples.items()}
    return Roof(product_rate(PRODUCT, times["product"]), copy_rate(COPY, times["copy"]))


def time_in_turns(
    calls: Mapping[str, Callable[[], object]], *, warmup: int, repeats: int
) -> dict[str, list[float]]:
    """Milliseconds of each call by CUDA events, taken in turns."""
    for _ in range(warmup):
        for call in calls.values():
            call()
    torch.cuda.synchronize()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            samples[name].append(_elapsed(call))
    return samples


def measure_all(
    options: Options,
    engines: Sequence[str],
    roofs: Mapping[str, Roof],
    report: Report,
    say: Callable[[str], None],
    keep: Callable[[], None],
) -> None:
    """Fill the report; what can't be built or run is noted in it.

    Args:
        options: what to measure.
        engines: those that can run here.
        roofs: the GPU's rates, by precision.
        report: to be filled.
        say: told of each package that is built, and of each row.
        keep: called after each row: not all may come to their end.
    """
    model = make_model(options.model)
    model_size = (model.backbone.input_size,) * 2
    sizes = tuple(dict.fromkeys((model_size, options.native)))
    packages: Packages = {}
    if "inductor" in engines:
        every = itertools.product(CASES, sizes, options.precisions, options.batches)
        wanted = [Wanted(*one) for one in every]
        packages = build_ahead(options.model, wanted, f"{DEVICE}:0", options.jobs, say)
    for size in sizes:
        for batch in options.batches:
            frames = golden_frames(size, batch)
            expected = _expected(model, size, frames)
            for precision in options.precisions:
                for engine in engines:
                    what = f"{engine} {precision}, batch {batch}, {size[1]}x{size[0]}"
                    try:
                        rows = _pair(
                            model, engine, precision, frames, expected, roofs, options, packages
                        )
                        report.rows += rows
                        for line in lines(Report(rows)):
                            say(line)
                    except (EngineError, RuntimeError) as error:  # of torch: of any kind
                        report.missing.append(f"{what}: {str(error).splitlines()[0]}")
                        say(f"not measured: {report.missing[-1]}")
                    keep()
                    gc.collect()
                    torch.cuda.empty_cache()


def _pair(
    model: NEM,
    engine: str,
    precision: str,
    frames: Array,
    expected: Mapping[str, Array],
    roofs: Mapping[str, Roof],
    options: Options,
    packages: Packages,
) -> list[Row]:
    """Both cases of one engine, timed in turns."""
    size, batch = frames.shape[1:3], len(frames)
    given = torch.from_numpy(frames).to(DEVICE)
    calls: dict[str, Call] = {}
    works: dict[str, Work] = {}
    wrong: dict[str, str | None] = {}
    try:
        for case in CASES:
            graph = make_graph(model, case, size, precision)
            works[case] = count_work(graph, graph.example(batch))
            wanted = Wanted(case, size, precision, batch)
            package = packages[wanted] if engine == "inductor" else None
            if isinstance(package, EngineError):
                raise package
            calls[case] = make_call(engine, graph, batch, package)
            found = {name: _host(value) for name, value in calls[case].run(given).items()}
            right = {name: expected[name] for name in graph.outputs}
            wrong[case] = check(found, right, find_bound(engine, precision))
        samples = time_in_turns(
            {case: lambda call=call: call.run(given) for case, call in calls.items()},
            warmup=WARM_UPS,
            repeats=options.repeats,
        )
        rows = []
        for case, call in calls.items():
            p50, p95 = percentiles(samples[case])
            whole = _elapsed(lambda call=call: [call.run(given) for _ in range(options.repeats)])
            roof = roofs[precision]
            rows.append(
                Row(
                    engine,
                    precision,
                    batch,
                    size,
                    case,
                    p50=p50,
                    p95=p95,
                    fps=1000 * batch * options.repeats / whole,
                    share=roof.share(works[case], p50),
                    bound=roof.bound_by(works[case]),
                    wrong=wrong[case],
                )
            )
        return rows
    finally:
        for call in calls.values():
            call.close()


def _expected(model: NEM, size: tuple[int, int], frames: Array) -> dict[str, Array]:
    """What float32 gives, frame by frame: a whole batch of it may not fit."""
    graph = make_graph(model, "lite", size, "f32").to(DEVICE)
    with torch.inference_mode(), exact_sums():
        parts = [[_host(v) for v in graph(torch.from_numpy(f[None]).to(DEVICE))] for f in frames]
    return {n: np.concatenate([part[i] for part in parts]) for i, n in enumerate(graph.outputs)}


def _elapsed(call: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def _host(value: Any) -> Array:
    array: Array = torch.as_tensor(value, device=DEVICE).cpu().numpy()
    return array
