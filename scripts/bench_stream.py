"""End-to-end speed: this pipeline beside the loops people write, in one run on one machine.

    python -m scripts.bench_stream --rounds 3 --calibrate PICTURES --json stream.json

Decodes a generated H.264 clip, explains and draws every frame, writes H.264 (x264 ultrafast). Each
case runs in a process of its own; rounds interleave the cases, so a noisy machine hits all alike.
`core-ms` is processor time of the whole process per frame; `efficiency` is the frame rate over
what those core-ms allow on all cores: 1.0 means that no core ever waited.

Cases: the pipeline with the default bundle and with random-weight ResNet50 bundles; the same models
in a plain loop (cv2.VideoCapture, eager torch, numpy overlay, cv2.VideoWriter); and that loop with
pytorch-grad-cam on ResNet50. Needs `pip install '.[eval]'`. `--calibrate` adds the
pipeline with its models in int8, and needs `[int8]`. On an NVIDIA GPU
`--device cuda --decode cuda --codec h264_nvenc --only nem-tiny` measures the pipeline there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from engines.cpu import usable_cores
from scripts.ending import launch, new_file
from scripts.make_clip import frame_size, make_clip

PIPELINE = ("nem-tiny", "resnet50-lite", "resnet50-paper")
ROUNDED = tuple(f"{case}:int8" for case in PIPELINE)
LOOPS = ("nem-tiny:eager", "resnet50-lite:eager", "resnet50-paper:eager", "resnet50:grad-cam")
# (numerator, denominator, ratio of frame rates asked for)
RATIOS = (
    ("resnet50-lite", "resnet50:grad-cam", 9.0),
    ("resnet50-paper", "resnet50:grad-cam", 5.0),
    ("nem-tiny", "nem-tiny:eager", 6.0),
    ("resnet50-lite", "resnet50-lite:eager", None),
    ("resnet50-paper", "resnet50-paper:eager", None),
    ("resnet50-lite:int8", "resnet50:grad-cam", None),
    ("resnet50-paper:int8", "resnet50:grad-cam", None),
    ("nem-tiny:int8", "nem-tiny:eager", None),
)
EFFICIENCY = 0.93


def peak_mb() -> float:
    """Largest resident set of this process in MB; ru_maxrss would count the parent's, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measured(work: Callable[[], int]) -> dict[str, float]:
    """Run `work`, which returns how many frames it did, and say what they cost."""
    wall, cores = time.perf_counter(), time.process_time()
    frames = work()
    wall, cores = time.perf_counter() - wall, time.process_time() - cores
    fps, core_ms = frames / wall, 1000 * cores / frames
    return {
        "fps": fps,
        "core_ms": core_ms,
        "efficiency": fps / (1000 * usable_cores() / core_ms),
        "rss_mb": peak_mb(),
        "frames": frames,
    }


def run_pipeline(
    model: str,
    clip: Path,
    out: Path,
    calibration: Path | None,
    device: str,
    decode: Literal["cpu", "cuda"],
    codec: str,
    on_frame: Callable[[object], None] | None = None,
) -> dict[str, float]:
    """The product: all cores share the stages, YUV overlay, sound copied; int8 where calibrated.

    `on_frame` is called after each frame written.
    """
    from stream.heap import one_heap

    one_heap()  # as the command, before any thread

    from engines import open_engine
    from nem.bundle import open_bundle
    from stream.cli.options import engine_wishes
    from stream.label import letters_ahead
    from stream.overlay import Overlay
    from stream.pipeline import Pipeline
    from stream.sinks.file import FileSink
    from stream.sources import open_source

    bundle, precision = open_bundle(model), "int8" if calibration else "auto"
    source = open_source(clip, decode=decode)
    sink = FileSink(out, codec=codec, copy_from=clip, overwrite=True)
    with letters_ahead(source.info.height, source.info.width):
        engine = open_engine(
            bundle,
            device=device,
            precision=precision,
            calibration=calibration,
            **engine_wishes(None, bundle.manifest.heads[0], watched=False),
        )
    with engine:
        pipeline = Pipeline(source, engine, [sink], overlay=Overlay("heat"))
        return measured(lambda: pipeline.run(on_frame).frames_out)


def run_loop(model: str, kind: str, clip: Path, out: Path, limit: int | None) -> dict[str, float]:
    """The loop people write, with the NEM in eager torch or with Grad-CAM."""
    import cv2
    import numpy as np
    import torch

    if kind == "grad-cam":
        explain = _grad_cam()
    else:
        from nem.bundle import open_bundle
        from nem.bundle_io import load_model

        bundle = open_bundle(model)
        nem, size = load_model(bundle).eval(), bundle.manifest.input_size
        mean, std = np.array(bundle.manifest.mean), np.array(bundle.manifest.std)

        def explain(rgb: np.ndarray) -> np.ndarray:
            small = cv2.resize(rgb, (size, size)).astype(np.float32) / 255
            x = torch.from_numpy(((small - mean) / std).astype(np.float32)).permute(2, 0, 1)
            with torch.inference_mode():
                return nem(x[None]).mask[0, 0].numpy()

    def work() -> int:
        capture = cv2.VideoCapture(str(clip))
        width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"mp4v"), 30, (width, height))
        count = 0
        while limit is None or count < limit:
            ok, bgr = capture.read()
            if not ok:
                break
            mask = cv2.resize(explain(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)), (width, height))
            heat = cv2.applyColorMap(np.uint8(255 * mask), cv2.COLORMAP_JET)
            mixed = np.float32(heat) / 255 + np.float32(bgr) / 255
            writer.write(np.uint8(255 * mixed / mixed.max()))
            count += 1
        writer.release()
        capture.release()
        return count

    explain(np.zeros((64, 64, 3), np.uint8))
    return measured(work)


def _grad_cam() -> Callable:
    import cv2
    import numpy as np
    import timm
    import torch
    from pytorch_grad_cam import GradCAM

    net = timm.create_model("resnet50", pretrained=False).eval()
    cam = GradCAM(model=net, target_layers=[net.layer4[-1]])
    mean, std = np.array(net.default_cfg["mean"]), np.array(net.default_cfg["std"])

    def explain(rgb: np.ndarray) -> np.ndarray:
        small = cv2.resize(rgb, (224, 224)).astype(np.float32) / 255
        x = torch.from_numpy(((small - mean) / std).astype(np.float32)).permute(2, 0, 1)
        return cam(input_tensor=x[None], targets=None)[0]

    return explain


def make_bundles(folder: Path) -> None:
    """ResNet50 with random weights, `lite` and `paper` decoder, exported as bundles."""
    from engines.export import save_bundle
    from nem.model import NEM
    from scripts.bench_engine import random_backbone

    for kind in ("lite", "paper"):
        name = f"resnet50-{kind}"
        model = NEM(random_backbone("resnet50"), kind).eval()
        save_bundle(model, folder / name, name=name)


def run_case(case: str, clip: Path, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Measure one case in a process of its own, in `folder`, where the bundles are."""
    command = [sys.executable, "-m", "scripts.bench_stream", "--case", case, "--clip", str(clip)]
    command += ["--folder", str(folder)]
    if args.loop_frames:
        command += ["--loop-frames", str(args.loop_frames)]
    command += ["--device", args.device, "--decode", args.decode, "--codec", args.codec]
    if args.calibrate:
        command += ["--calibrate", str(args.calibrate)]
    own_store = os.environ | {"NEM_CACHE": str(folder / "cache")}  # of models that no one has again
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own_store)
    if done.returncode:
        sys.exit(f"{case} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def report(table: dict[str, dict[str, float]]) -> list[str]:
    """The printed table: cases, then figures asked for and measured."""
    lines = [f"{'case':24}{'fps':>8}{'core-ms':>9}{'efficiency':>12}{'MB':>7}"]
    for case, row in table.items():
        lines.append(
            f"{case:24}{row['fps']:8.1f}{row['core_ms']:9.1f}{row['efficiency']:12.2f}"
            f"{row['rss_mb']:7.0f}"
        )
    for case in PIPELINE + ROUNDED:
        if case in table:
            lines.append(f"efficiency {case}: {table[case]['efficiency']:.2f} (asked {EFFICIENCY})")
    for top, bottom, asked in RATIOS:
        if top in table and bottom in table:
            ratio = table[top]["fps"] / table[bottom]["fps"]
            lines.append(
                f"{top} / {bottom}: {ratio:.1f} x" + (f" (asked {asked})" if asked else "")
            )
    return lines


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description="Measure end-to-end speed beside plain loops.")
    parser.add_argument(
        "--size", type=frame_size, default="1280x720", help="of the clip (default 1280x720)"
    )
    parser.add_argument("--frames", type=int, default=300, help="of the clip (default 300)")
    parser.add_argument(
        "--loop-frames",
        type=int,
        help="plain loops end after so many: quicker done, though they begin slowly "
        "(default: the whole clip, as the pipeline)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="the median counts (default 3)")
    parser.add_argument(
        "--calibrate", type=Path, metavar="PATH", help="measure int8, too; pictures for its ranges"
    )
    parser.add_argument(
        "--only", nargs="+", choices=PIPELINE + ROUNDED + LOOPS, help="these cases only"
    )
    parser.add_argument("--device", default="auto", help="of the pipeline's engine")
    parser.add_argument(
        "--decode", choices=("cpu", "cuda"), default="cpu", help="of the pipeline (default cpu)"
    )
    parser.add_argument(
        "--codec", default="libx264", help="of the pipeline (default libx264, ultrafast)"
    )
    parser.add_argument("--json", type=new_file, help="write the medians here")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--clip", type=Path, help="use this clip instead of a generated one")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        name, _, kind = args.case.partition(":")
        own, out = args.folder / name, args.folder / "out.mp4"
        model = str(own) if own.exists() else name
        if kind in ("", "int8"):
            pictures = args.calibrate if kind else None
            how = args.device, args.decode, args.codec
            print(json.dumps(run_pipeline(model, args.clip, out, pictures, *how)))
        else:
            print(json.dumps(run_loop(model, kind, args.clip, out, args.loop_frames)))
        return
    cases = tuple(args.only or PIPELINE + ROUNDED * bool(args.calibrate) + LOOPS)
    if not args.calibrate and any(case in ROUNDED for case in cases):
        parser.error("int8 needs --calibrate PICTURES")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = args.clip or folder / "clip.mp4"
        if not args.clip:
            width, height = args.size
            make_clip(clip, width=width, height=height, frames=args.frames, fps=30)
        if any(case.startswith("resnet50-") for case in cases):
            make_bundles(folder)
        rows: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
        for number in range(args.rounds):
            for case in cases:
                rows[case].append(run_case(case, clip, folder, args))
                print(
                    f"round {number + 1} {case}: {rows[case][-1]['fps']:.1f} fps", file=sys.stderr
                )
    table = {
        case: {key: statistics.median(r[key] for r in runs) for key in runs[0]}
        for case, runs in rows.items()
    }
    print("\n".join(report(table)))
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    launch(main)
