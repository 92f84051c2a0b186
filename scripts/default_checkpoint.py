"""Checkpoints of the default backbone's training: one file, replaced after each epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nem.errors import TrainError

NAME = "backbone.safetensors"


def save(
    out: Path,
    recipe: dict[str, Any],
    epoch: int,
    model: nn.Module,
    ema: nn.Module,
    opt: torch.optim.Optimizer,
) -> None:
    """Keep in folder `out` what `resume` needs; `epoch` is how many are done."""
    state = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    state |= {f"ema.{k}": v.contiguous() for k, v in ema.state_dict().items()}
    moments = opt.state_dict()["state"]
    state |= {f"momentum.{k}": v["momentum_buffer"].contiguous() for k, v in moments.items()}
    meta = {"epoch": str(epoch), "recipe": json.dumps(recipe)}
    partial = out / f"{NAME}.partial"
    save_file(state, partial, metadata=meta)
    partial.replace(out / NAME)


def resume(
    out: Path, recipe: dict[str, Any], model: nn.Module, ema: nn.Module, opt: torch.optim.Optimizer
) -> int:
    """Load what folder `out` holds into the models and the optimiser; returns the epochs done.

    Raises:
        TrainError: it is of another recipe, or of more epochs.
    """
    path = out / NAME
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
    before, now = json.loads(meta.get("recipe", "{}")), json.loads(json.dumps(recipe))
    # Another number of epochs only re-plans what is left of the schedule.
    differ = [k for k in now if k != "epochs" and before.get(k) != now[k]]
    if differ or int(meta["epoch"]) > now["epochs"]:
        what = f"is of another {', '.join(differ)}" if differ else f"has {meta['epoch']} epochs"
        raise TrainError(f"{path} {what}; choose another --out or remove it")
    state = load_file(path)

    def part(name: str) -> dict[str, Tensor]:
        return {k[len(name) + 1 :]: v for k, v in state.items() if k.startswith(name + ".")}

    model.load_state_dict(part("model"))
    ema.load_state_dict(part("ema"))
    full = opt.state_dict()
    full["state"] = {int(k): {"momentum_buffer": v} for k, v in part("momentum").items()}
    opt.load_state_dict(full)
    return int(meta["epoch"])
