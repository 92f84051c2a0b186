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

from nem.data import Collection, Picture, normalise
from nem.model import NEM

CHECKPOINT = "last.safetensors"
LOG = "log.jsonl"
_VALUES = ("loss", "kept", "binarity", "area")


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
        line |= {k: round(float(metrics[f"{k}_epoch"]), 5) for k in _VALUES}
        line["seconds"] = round(time.monotonic() - self.began, 1)
        with (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@torch.no_grad()
def explain_pictures(model: NEM, pictures: Picture, batch: int = 16) -> np.ndarray:
    """Masks float32 (N, S, S) of uint8 RGB pictures (N, S, S, 3); leaves the mode as it was."""
    device = next(model.parameters()).device
    backbone, training = model.backbone, model.training
    model.eval()
    masks = []
    for start in range(0, len(pictures), batch):
        x = torch.from_numpy(pictures[start : start + batch]).to(device)
        masks.append(model(normalise(x, backbone.mean, backbone.std)).mask[:, 0].float().cpu())
    model.train(training)
    return torch.cat(masks).numpy()


def write_masks(model: NEM, pictures: Picture, path: Path, columns: int = 8) -> None:
    """Write a PNG: each picture, below it its mask in colours, below that what is kept."""
    masks = explain_pictures(model, pictures)
    mean = np.asarray(model.backbone.mean, np.float32) * 255
    rows = []
    for start in range(0, len(pictures), columns):
        strips = []
        for picture, mask in zip(
            pictures[start : start + columns], masks[start : start + columns], strict=True
        ):
            grey = np.round(mask * 255).astype(np.uint8)
            colours = cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]
            kept = picture * mask[..., None] + mean * (1 - mask[..., None])
            strips.append(np.concatenate([picture, colours, kept.astype(np.uint8)]))
        strips += [np.zeros_like(strips[0])] * (min(columns, len(pictures)) - len(strips))
        rows.append(np.concatenate(strips, 1))
    sheet = np.ascontiguousarray(np.concatenate(rows)[..., ::-1])
    partial = path.with_name(f".{path.name}")
    partial.write_bytes(cv2.imencode(".png", sheet)[1].tobytes())
    partial.replace(path)
