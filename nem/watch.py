"""What a training shows of itself: pictures of masks, a log, checkpoints."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from nem.data import Collection, normalise
from nem.explanation import Aim
from nem.model import NEM
from nem.pictures import Picture
from nem.topk import percentile

CHECKPOINT = "last.safetensors"
LOG = "log.jsonl"


class Watch(pl.Callback):
    """Writes into `out`: `masks-early.png`, and per epoch a picture, a log line, a checkpoint.

    Args:
        out: the folder.
        collection: pictures to choose the fixed set from, evenly spaced.
        count: how many.
        early_step: optimiser step of the first picture.
    """

    def __init__(self, out: Path, collection: Collection, count: int, early_step: int) -> None:
        self.out, self.early_step = out, early_step
        spaced = np.linspace(0, len(collection) - 1, min(count, len(collection)))
        self.pictures = np.stack([collection.pixels(int(i)) for i in spaced])
        self.began = time.monotonic()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the epoch's clock."""
        self.began = time.monotonic()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The early picture."""
        path = self.out / "masks-early.png"
        early = trainer.global_step == self.early_step and not path.exists()
        if early and trainer.is_global_zero:
            write_masks(pl_module.model, self.pictures, path)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Checkpoint, picture and log line of an epoch."""
        # All processes take part in saving; Lightning writes from the first.
        trainer.save_checkpoint(self.out / CHECKPOINT)
        if not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch + 1
        write_masks(pl_module.model, self.pictures, self.out / f"masks-epoch-{epoch:03d}.png")
        metrics = trainer.callback_metrics
        line = {"epoch": epoch, "steps": trainer.global_step}
        means = {k.removesuffix("_epoch"): v for k, v in metrics.items() if k.endswith("_epoch")}
        line |= {k: round(float(v), 5) for k, v in means.items()}
        line["seconds"] = round(time.monotonic() - self.began, 1)
        with (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@torch.no_grad()
def explain_pictures(model: NEM, pictures: Picture, batch: int = 16) -> dict[Aim, np.ndarray]:
    """Maps float32 in [0, 1], (N, S, S), of uint8 RGB pictures (N, S, S, 3), by aim.

    A ranking is shown by percentile. Leaves the mode as it was.
    """
    device = next(model.parameters()).device
    backbone, training = model.backbone, model.training
    model.eval()
    maps: dict[Aim, list[Tensor]] = {aim: [] for aim in model.aims}
    for start in range(0, len(pictures), batch):
        x = torch.from_numpy(pictures[start : start + batch]).to(device)
        output = model(normalise(x, backbone.mean, backbone.std))
        for aim, value in output.maps.items():
            value = percentile(value) if aim == "ranking" else value
            maps[aim].append(value[:, 0].float().cpu())
    model.train(training)
    return {aim: torch.cat(parts).numpy() for aim, parts in maps.items()}


def write_masks(model: NEM, pictures: Picture, path: Path, columns: int = 8) -> None:
    """Write a PNG: each picture, below it each head's map in colours and what it keeps."""
    maps = explain_pictures(model, pictures)
    mean = np.asarray(model.backbone.mean, np.float32) * 255
    rows = []
    for start in range(0, len(pictures), columns):
        strips = []
        for index in range(start, min(start + columns, len(pictures))):
            strip = [pictures[index]]
            for values in maps.values():
                mask = values[index]
                grey = np.round(mask * 255).astype(np.uint8)
                strip.append(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1])
                kept = pictures[index] * mask[..., None] + mean * (1 - mask[..., None])
                strip.append(kept.astype(np.uint8))
            strips.append(np.concatenate(strip))
        strips += [np.zeros_like(strips[0])] * (min(columns, len(pictures)) - len(strips))
        rows.append(np.concatenate(strips, 1))
    sheet = np.ascontiguousarray(np.concatenate(rows)[..., ::-1])
    partial = path.with_name(f".{path.name}")
    partial.write_bytes(cv2.imencode(".png", sheet)[1].tobytes())
    partial.replace(path)
