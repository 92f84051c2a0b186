"""The models of `check_models`, and what TensorRT makes of their graphs, asked of `trt-dryrun`.

That tool runs in an environment of its own, so this module imports nothing but what makes a graph.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engines.golden import golden_frames
from engines.graph import FrameGraph
from engines.trt_build import BuildOptions, make_graph
from nem.backbone import create_backbone
from nem.bundle_io import load_model
from nem.model import NEM

BACKBONES = (
    "resnet18", "resnet50", "convnext_tiny", "vgg16", "mobilenetv4_conv_small",
    "vit_small_patch16_224",
)  # fmt: skip
MODELS = ("nem-tiny", *BACKBONES)
HD = (1080, 1920)
SECONDS = 900
"""The longest that a check by `trt-dryrun` may take."""
HOME, MODEL, PRECISION = "TRT_DRYRUN_HOME", "NEM_CHECK_MODEL", "NEM_CHECK_PRECISION"
"""Variables: where the tool is, and what its process is to build."""


def build_model(name: str) -> NEM:
    """A bundle's model, or NEM-U with random weights on a timm backbone; always the same."""
    if name not in BACKBONES and (name == MODELS[0] or Path(name).is_dir()):
        return load_model(name)
    torch.manual_seed(0)
    return spread_mask(NEM(create_backbone(name)).eval())


@torch.no_grad()
def spread_mask(model: NEM) -> NEM:
    """Scale the head of a NEM-U so that its mask uses the whole range, as a trained one does."""
    size = model.backbone.input_size
    frames = torch.from_numpy(golden_frames((size, size), 2))
    logits = model.mask_logits(FrameGraph(model).prepare(frames))
    head: Any = model.decoder.head
    head.bias.copy_((head.bias - logits.mean()) * 2 / logits.std())
    head.weight.mul_(2 / logits.std())
    return model


def mask_case() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """For `trt-dryrun`: the graph of the model that the variables name, and its inputs."""
    return _case(overlay=False)


def overlay_case() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """For `trt-dryrun`: as `mask_case`, the overlay drawn."""
    from engines.trt_convert import register_uint8_output

    register_uint8_output()
    return _case(overlay=True)


def _case(*, overlay: bool) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    options = BuildOptions(HD, os.environ[PRECISION], overlay=overlay)
    graph = make_graph(build_model(os.environ[MODEL]), options)
    return graph, graph.example()


def check_tensorrt(name: str, precision: str, case: str, outputs: int) -> dict[str, Any]:
    """Let `trt-dryrun` convert and compile a case; `missed` tells what is not as asked for."""
    root = Path(__file__).resolve().parents[1]
    command = [
        str(Path(os.environ[HOME]) / "bin" / "trt-dryrun"), f"scripts.check_models_trt:{case}",
        "--flavour", "rtx", "--build", "--runtime", "engine", "--json",
    ]  # fmt: skip
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    chosen = {"PYTHONPATH": path, MODEL: name, PRECISION: precision}
    try:
        done = subprocess.run(
            command, cwd=root, env=os.environ | chosen, capture_output=True, text=True,
            timeout=SECONDS,
        )  # fmt: skip
        report = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"missed": [f"{case}: {command[0]} can't be run: {error}"]}
    except json.JSONDecodeError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return {"missed": [f"{case}: trt-dryrun gave up with status {done.returncode}: {last}"]}
    return judge_report(report, case, outputs)


def judge_report(report: Mapping[str, Any], case: str, outputs: int) -> dict[str, Any]:
    """What counts of a report of `trt-dryrun`.

    Args:
        report: as it printed it.
        case: for messages.
        outputs: how many the graph has.
    """
    blocks, built = report.get("trt_blocks", 0), report.get("build", [])
    missed = [f"{case}: {blocks} TensorRT blocks, asked for is 1"] if blocks != 1 else []
    for left in report.get("fallbacks", []):
        missed.append(f"{case}: {left['op']} is left to torch: {left['why']}")
    missed += [f"{case}: {f['message']}" for f in report.get("findings", []) if _is_error(f)]
    missed += [f"{case}: not built: {b.get('error', '?')}"[:300] for b in built if not b["ok"]]
    if not built:
        missed.append(f"{case}: nothing was built")
    elif blocks == 1 and (found := len(built[0].get("outputs", ()))) not in (0, outputs):
        missed.append(f"{case}: the engine has {found} outputs, the graph {outputs}")
    if not missed and not report.get("ok", False):
        missed.append(f"{case}: trt-dryrun says it is not ok")
    kept = {key: built[0].get(key) for key in ("layers", "engine_mb", "seconds")} if built else {}
    return {"blocks": blocks, **kept, "missed": missed}


def _is_error(finding: Mapping[str, str]) -> bool:
    """Whether a finding of `trt-dryrun` is more than a warning."""
    return finding["severity"] == "error"
