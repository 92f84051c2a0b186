"""What the explanation costs on top of the model: backbone alone, + lite, + paper, in one run.

    python -m scripts.bench_engine --json engine.json

For each backbone the same exported graph is compiled by OpenVINO with and without its mask output;
without it, everything that only the mask needs falls away. Calls alternate, so that what disturbs
one disturbs all; ratios compare the fastest decile. Random weights: they cost the same. Needs
`pip install 'nem-stream[train]'`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engines import Latency, measure, save_bundle
from engines.cpu import cpu_model
from engines.ov import PRECISIONS, cut_resize, find_precision
from engines.ov_runtime import openvino as ov
from nem.backbone import Backbone, create_backbone
from nem.bundle import open_bundle
from nem.bundle_io import load_model
from nem.model import NEM

ASKED = {"resnet50": 1.10, "nem-tiny": 1.35}


def compiled(graph: Path, size: int, precision: str, *, mask: bool) -> Callable[[], object]:
    """One inference of the graph on a random frame of model size."""
    core = ov.Core()
    model = core.read_model(graph)
    cut_resize(model)
    if not mask:
        for result in model.get_results():
            if "mask" in result.input(0).get_source_output().get_names():
                model.remove_result(result)
    model.reshape([1, size, size, 3])
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISIONS[find_precision(core, precision)],
    }
    request = core.compile_model(model, "CPU", hints).create_infer_request()
    frames = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    request.set_input_tensor(ov.Tensor(frames))
    return request.infer


def low(latency: Latency) -> float:
    """Tenth percentile in milliseconds: undisturbed, yet no single lucky call."""
    return 1000 * statistics.quantiles(latency.samples, n=10, method="inclusive")[0]


def bench(
    name: str, backbone: Callable[[], Backbone], kwargs: dict[str, int], args: argparse.Namespace
) -> dict[str, float]:
    """Milliseconds of backbone, lite and paper for one model."""
    calls: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("lite", "paper"):
            model = NEM(backbone(), kind, **(kwargs if kind == "lite" else {}))
            bundle = save_bundle(model.eval(), Path(folder) / kind, name=kind)
            size = bundle.manifest.input_size
            if not calls:
                calls["backbone"] = compiled(bundle.graph_path, size, args.precision, mask=False)
            calls[kind] = compiled(bundle.graph_path, size, args.precision, mask=True)
        times = measure(calls, warmup=20, repeats=args.repeats)
    row = {kind: low(latency) for kind, latency in times.items()}
    print(f"{name} ({size} px): " + ", ".join(f"{k} {v:.2f} ms" for k, v in row.items()))
    asked = ASKED.get(name)
    print(
        f"  lite {row['lite'] / row['backbone']:.3f} x backbone"
        + (f" (asked <= {asked:.2f})" if asked else "")
        + f", paper {row['paper'] / row['backbone']:.3f} x"
    )
    return row


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description="Measure the cost of the explanation.")
    parser.add_argument(
        "--models",
        nargs="+",
        default=["nem-tiny", "resnet50"],
        help="bundles or timm names (default nem-tiny resnet50)",
    )
    parser.add_argument("--precision", default="auto", help="f32, bf16 or auto (default)")
    parser.add_argument("--repeats", type=int, default=300, help="timed calls (default 300)")
    parser.add_argument("--json", type=Path, help="write the milliseconds here")
    args = parser.parse_args()
    print(f"{cpu_model()}, OpenVINO {ov.get_version()}, precision {args.precision}")
    table = {}
    for name in args.models:
        if name == "nem-tiny" or Path(name).is_dir():
            model = load_model(open_bundle(name))
            kwargs = model.decoder_kwargs if model.decoder_kind == "lite" else {}
            table[name] = bench(name, lambda model=model: model.backbone, kwargs, args)
        else:
            table[name] = bench(name, lambda name=name: create_backbone(name), {}, args)
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
