"""What a GPU makes of the engines: time from a frame on the GPU to its mask, and what limits it.

    python -m scripts.bench_engine --device cuda --json gpu.json

For each engine that can run, precision, batch and frame size, one graph without and one with the
explanation (one head on the lite decoder) is built, checked against float32, and timed in turns by
CUDA events: from before the call until its outputs are complete on the GPU. Frames are uint8 and on
the GPU already, at the model's size and native. In the same run the rates of one large product and
one large copy are measured; `roof` is the share of the time that those would leave. Random weights:
they cost the same. Needs `pip install '.[tensorrt]'`, or `[train]` without TensorRT.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import EngineUnavailable, Gpu, available_engines, find_gpus
from engines.cpu import usable_cores
from scripts.ending import count, launch, new_file, repeats
from scripts.gpu_report import Report, place, table

if TYPE_CHECKING:
    from scripts.gpu_roofline import Roof

MODEL = "resnet50"
ENGINES = ("tensorrt", "tensorrt-rtx", "inductor", "eager")
PRECISIONS = ("f16", "bf16")
BATCHES = (1, 8, 32)
NATIVE = (1080, 1920)
JOBS = max(1, min(12, usable_cores() * 3 // 4))
"""Builds at once: each takes a core or more, and some gigabytes."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure.

    Attributes:
        model: timm name of the backbone.
        engines, precisions, batches: which.
        native: (height, width) of the large frames.
        repeats: timed calls of each case.
        jobs: packages of `inductor` that are built at once.
        json: file for the figures.
    """

    model: str = MODEL
    engines: Sequence[str] = ENGINES
    precisions: Sequence[str] = PRECISIONS
    batches: Sequence[int] = BATCHES
    native: tuple[int, int] = NATIVE
    repeats: int = 300
    jobs: int = JOBS
    json: Path | None = None


def usable(asked: Sequence[str], report: Report) -> list[str]:
    """Those of the engines that can run here; why the others can't goes into the report."""
    reasons = {info.name: info.reason for info in available_engines()}
    report.missing += [f"{name}: {reasons[name]}" for name in asked if reasons[name] is not None]
    return [name for name in asked if reasons[name] is None]


def run(options: Options) -> int:
    """Measure and print.

    Returns:
        0, or 1 where an answer was wrong or nothing could be measured.

    Raises:
        SystemExit: there is no GPU, or torch can't use it; the reason in a line.
    """
    gpu = _gpu()
    import torch

    from scripts.gpu_measure import measure_all, measure_roof

    report = Report()
    engines = usable(options.engines, report)
    print(f"{gpu.name}, driver {gpu.driver}, torch {torch.__version__}, {options.model}")
    roofs = {precision: measure_roof(precision) for precision in options.precisions}
    for precision, roof in roofs.items():
        print(_roof_line(precision, roof))

    def keep() -> None:
        if options.json:
            options.json.write_text(json.dumps(_figures(gpu, roofs, report), indent=2) + "\n")

    measure_all(options, engines, roofs, report, partial(print, flush=True), keep)
    keep()
    lines = [*table(report), *report.asked(options.native)]
    print("\n".join([*lines, *(f"not measured: {line}" for line in report.missing)]))
    return int(not report.rows or any(row.wrong for row in report.rows))


def main() -> None:
    """Parse, measure, print."""
    faulthandler.enable()  # what an engine's machine code breaks ends without a traceback
    parser = argparse.ArgumentParser(description="Measure the engines of a GPU.")
    parser.add_argument("--model", default=MODEL, help=f"timm name (default {MODEL})")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--batches", nargs="+", type=count, default=BATCHES)
    parser.add_argument("--repeats", type=repeats, default=300, help="timed calls (default 300)")
    parser.add_argument(
        "--jobs", type=count, default=JOBS, help=f"builds of inductor at once (default here {JOBS})"
    )
    parser.add_argument("--json", type=new_file, help="write the figures here")
    args = parser.parse_args()
    raise SystemExit(run(Options(**vars(args))))


def _gpu() -> Gpu:
    try:
        gpus = find_gpus()
        import torch

        if not torch.cuda.is_available():
            raise EngineUnavailable(f"torch {torch.__version__} can't use {gpus[0].name}")
    except ImportError as error:  # which EngineUnavailable is, too
        raise SystemExit(f"nothing measured: {error}") from None
    return gpus[0]


def _roof_line(precision: str, roof: Roof) -> str:
    return (
        f"{precision}: a large product {2 * roof.multiply_adds / 1e12:.0f} TFLOP/s, "
        f"a large copy {roof.bytes / 1e9:.0f} GB/s"
    )


def _figures(gpu: Gpu, roofs: dict[str, Roof], report: Report) -> dict[str, Any]:
    return {
        "gpu": asdict(gpu),
        "roofs": {precision: asdict(roof) for precision, roof in roofs.items()},
        "rows": [asdict(row) for row in report.rows],
        "overheads": [
            {"row": list(place(row)), "ratio": ratio} for row, ratio in report.overheads()
        ],
        "missing": report.missing,
    }


if __name__ == "__main__":
    launch(main)
