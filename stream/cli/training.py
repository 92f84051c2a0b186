"""`nem-stream train`: train a decoder, then write the bundle."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nem.config import CHECKPOINT, TrainConfig
from nem.errors import TrainError
from stream.cli.console import PROGRAM, Console
from stream.errors import UsageError

NEEDED = ("torch", "timm", "lightning", "prodigyopt", "safetensors", "onnx", "onnxscript")
"""What training and export import; all in the extra `train`."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""What a manifest takes as a name; asked before the training, not after it."""


def train_bundle(
    settings: Mapping[str, Any],
    *,
    out: Path | None,
    name: str | None,
    progress: bool,
    console: Console,
) -> int:
    """Train as `settings` say and write the bundle to `out`/bundle.

    Args:
        settings: of `nem.config.TrainConfig`, without `out`; `devices` as text.
        out: folder, or None for runs/MODEL-DECODER.
        name: of the bundle, or None for the name of `out`.
        progress: show a progress bar.
        console: where to tell of it.

    Raises:
        UsageError: a setting can't be met, or the extra is missing.
        NemError: see `nem.train.fit`.
        EngineError, BundleError: the model can't be exported or written.
    """
    out = out or Path("runs") / f"{Path(settings['model']).name}-{settings['decoder']}"
    folder = out / "bundle"
    devices = settings["devices"]
    if devices != "auto" and not devices.isdecimal():
        raise UsageError(f"--devices {devices}: give a number or auto")
    choices = {**settings, "devices": devices if devices == "auto" else int(devices)}
    try:
        config = TrainConfig(**choices, out=out)
    except TrainError as error:
        raise UsageError(str(error)) from None
    missing = [package for package in NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise UsageError(
            f"training needs {', '.join(missing)}, not installed: pip install 'nem-stream[train]'"
        )
    name = name or re.sub(r"[^A-Za-z0-9_.-]", "-", out.resolve().name).lstrip("_.-") or "nem"
    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name}: letters, digits and . _ - only, a letter or digit first")
    if folder.exists() and not config.resume:
        raise UsageError(f"{folder}: exists already; give another --out, or move it away")
    if (out / CHECKPOINT).exists() and not config.resume:
        raise UsageError(f"{out}: holds a training; go on with --resume, or give another --out")
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # of several processes that train together
    if first:
        console.say(f"training {config.decoder} for {config.model}, into {out}")
        console.detail(f"{config}")

    from engines.export import save_bundle
    from nem.bundle_io import installed_versions
    from nem.train import fit

    told = {
        "command": shlex.join([PROGRAM, *sys.argv[1:]]),
        "recipe": {k: v for k, v in config.recipe().items() if v is not None},
        "data": [str(path) for path in config.data],
        "versions": installed_versions(),
    }
    shown = progress and console.verbosity >= 0 and console.interactive
    try:
        model = fit(config, progress=shown, say=console.say)
        if not first:
            return 0
        bundle = save_bundle(
            model,
            folder,
            name=name,
            training=told,
            fill=config.fill,
            overwrite=config.resume,
        )
    except (KeyboardInterrupt, SystemExit):
        kept = (out / CHECKPOINT).exists()
        cure = "the same command with --resume goes on from the last checkpoint"
        console.say(f"stopped; {cure if kept else 'before the first checkpoint'}")
        raise
    use = shlex.join([PROGRAM, "clip.mp4", "--model", str(bundle.path)])
    console.say(f"written: {bundle.path}; use it with {use}")
    return 0
