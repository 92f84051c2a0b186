"""What explaining costs on top of the model, and all heads on top of one, in one run.

    python -m scripts.bench_engine --json engine.json

For each backbone the same exported graph is compiled by OpenVINO with and without its maps:

    backbone    without any map, and so without what only the maps need
    lite        one head (`embedding`, NEM-U) on the lite decoder
    all heads   the lite decoder with all four heads, `target` included; asked <= 1.15 x lite
    paper       one head on the paper's decoder
    lite int8   with `--calibrate PICTURES`: `lite` rounded by NNCF

Calls alternate, so that what disturbs one disturbs all. A ratio compares the fastest deciles; the
median and the distance of the quartiles tell how quiet the machine was. Random weights: they cost
the same. Needs `pip install '.[train]'`, for int8 `[int8]`. With `--device cuda` it is
`scripts.bench_gpu`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engines import Latency, export_onnx, measure
from engines.calibration import Pictures, read_pictures
from engines.cpu import cpu_model
from engines.onnx_passes import CLASSES, FRAMES
from engines.ov import find_precision
from engines.ov_graph import cut_resize, fix_sizes, has_port, keep_maps, make_config
from engines.ov_int8 import round_graph
from engines.ov_runtime import openvino as ov
from engines.signal_stack import kept_signal_stack
from nem.backbone import Backbone, create_backbone
from nem.bundle_io import load_model, round_weights_
from nem.explanation import AIMS, Aim
from nem.model import NEM
from scripts import bench_gpu
from scripts.ending import launch, new_file, repeats

ASKED = {"resnet50": 1.10, "nem-tiny": 1.35}
"""Lite by backbone: what was asked for."""
HEADS_ASKED = 1.15
"""All heads by lite: what was asked for."""
CASES: dict[str, tuple[str, tuple[Aim, ...]]] = {
    "lite": ("lite", AIMS[:1]),
    "all heads": ("lite", AIMS),
    "paper": ("paper", AIMS[:1]),
}


@kept_signal_stack()
def compiled(
    graph: Path,
    backbone: Backbone,
    precision: str,
    *,
    maps: bool = True,
    pictures: Pictures | None = None,
) -> Callable[[], object]:
    """One inference of the graph on a random frame of model size, for the most probable class.

    In int8 where there are `pictures` to find ranges on.
    """
    size = backbone.input_size
    core = ov.Core()
    model = core.read_model(graph)
    cut_resize(model)
    if not maps:
        keep_maps(model, ())
    fix_sizes(model, 1, (size, size))
    if pictures is not None:
        model = round_graph(model, pictures, backbone.num_classes)
    config = make_config(find_precision(core, precision))
    request = core.compile_model(model, "CPU", config).create_infer_request()
    frames = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    request.set_tensor(FRAMES, ov.Tensor(frames))
    if has_port(model.inputs, CLASSES):
        request.get_tensor(CLASSES).data[:] = -1
    return request.infer


def random_backbone(name: str) -> Backbone:
    """A timm model as after training: what is made to begin at nothing costs nothing in int8."""
    backbone = create_backbone(name)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.any():
            nn.init.constant_(module.weight, 0.5)
    return backbone


def times(latency: Latency) -> dict[str, float]:
    """Milliseconds: the fastest decile (undisturbed, yet no single lucky call), median, IQR."""
    seconds = {
        "p10": statistics.quantiles(latency.samples, n=10, method="inclusive")[0],
        "p50": latency.median,
        "iqr": latency.iqr,
    }
    return {name: round(1000 * value, 4) for name, value in seconds.items()}


@kept_signal_stack()  # freeing the compiled models replaces it, too
def bench(
    name: str, backbone: Callable[[], Backbone], kwargs: dict[str, Any], args: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Times of all cases for one model."""
    calls: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in args.cases:
            kind, aims = CASES[case]
            model = NEM(backbone(), kind, aims, **(kwargs if kind == "lite" else {})).eval()
            round_weights_(model)
            graph = export_onnx(model, Path(folder) / f"{len(calls)}.onnx")
            size = model.backbone.input_size
            if not calls:
                calls["backbone"] = compiled(graph, model.backbone, args.precision, maps=False)
            calls[case] = compiled(graph, model.backbone, args.precision)
            if case == "lite" and args.calibrate:
                pictures = read_pictures(args.calibrate, size, print)
                calls["lite int8"] = compiled(
                    graph, model.backbone, args.precision, pictures=pictures
                )
        found = measure(calls, warmup=20, repeats=args.repeats)
    rows = {case: times(latency) for case, latency in found.items()}
    print(f"{name}, {size} px")
    for line in report(rows, ASKED.get(name)):
        print(f"  {line}")
    return rows


def report(rows: dict[str, dict[str, float]], asked: float | None) -> list[str]:
    """The times as a table, and below it what was asked for: lite by backbone, heads by lite."""
    lines = [f"{'ms':<10}" + "".join(f"{column:>9}" for column in ("p10", "median", "IQR"))]
    for case, row in rows.items():
        lines.append(f"{case:<10}" + "".join(f"{value:9.2f}" for value in row.values()))
    for one, other, limit in (
        ("lite", "backbone", asked),
        ("all heads", "lite", HEADS_ASKED),
        ("paper", "backbone", None),
        ("lite int8", "lite", None),
    ):
        if one in rows and other in rows:
            line = f"{one} {rows[one]['p10'] / rows[other]['p10']:.3f} x {other}"
            lines.append(line + (f" (asked <= {limit:.2f})" if limit else ""))
    return lines


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description="Measure the cost of the explanation.")
    parser.add_argument(
        "--models",
        nargs="+",
        default=["nem-tiny", "resnet50"],
        help="bundles or timm names (default nem-tiny resnet50)",
    )
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), help="default: all of them"
    )
    parser.add_argument("--precision", default="auto", help="f32, bf16 or auto (default)")
    parser.add_argument(
        "--calibrate", type=Path, metavar="PATH", help="measure int8, too; pictures for its ranges"
    )
    parser.add_argument("--repeats", type=repeats, default=300, help="timed calls (default 300)")
    parser.add_argument("--json", type=new_file, help="write the milliseconds here")
    parser.add_argument(
        "--device",
        default="cpu",
        choices=("cpu", "cuda"),
        help="cuda is the first GPU (for another one set CUDA_VISIBLE_DEVICES); see "
        "scripts.bench_gpu for all of it",
    )
    args = parser.parse_args()
    if args.device != "cpu":
        raise SystemExit(bench_gpu.run(bench_gpu.Options(repeats=args.repeats, json=args.json)))
    print(f"{cpu_model()}, OpenVINO {ov.get_version()}, precision {args.precision}")
    table = {}
    for name in args.models:
        if name == "nem-tiny" or Path(name).is_dir():
            model = load_model(name)
            kwargs = model.decoder_kwargs if model.decoder_kind == "lite" else {}
            table[name] = bench(name, lambda model=model: model.backbone, kwargs, args)
        else:
            table[name] = bench(name, lambda name=name: random_backbone(name), {}, args)
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    launch(main)
