"""What a training shows of itself: pictures of masks, a log, checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from nem.config import CHECKPOINT, Fill
from nem.data import Collection, normalise
from nem.errors import WriteError
from nem.explanation import AIMS, Aim
from nem.gauge import Gauge, gauge
from nem.model import NEM
from nem.pictures import Picture
from nem.quiet import quiet
from nem.ranks import percentiles

LOG = "log.jsonl"

TOLD = {
    "kept": "kept", "control": "random", "drop": "drop", "rest": "rest", "area": "area",
    "absent_area": "absent",
}  # fmt: skip
"""Of a head's values those that tell how good it is, and what they are called to people."""


class Watch(pl.Callback):
    """Writes into `out`: `masks-early.png`, and per epoch a picture, a log line, a checkpoint.

    Of the embedding's head the log has, beside the means over the epoch, what `nem.gauge` says of
    the fixed set at its end: "gauge_kept", "gauge_control" etc. These are told.

    Args:
        out: the folder.
        collection: pictures to choose the fixed set from, evenly spaced.
        count: how many.
        early_step: optimiser step of the first picture.
        say: is given a line for people at each epoch's end, by the first process only.
    """

    def __init__(
        self,
        out: Path,
        collection: Collection,
        count: int,
        early_step: int,
        say: Callable[[str], None],
    ) -> None:
        self.out, self.early_step, self.say = out, early_step, say
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
            maps = explain_pictures(pl_module.model, self.pictures)
            write_masks(pl_module.model, self.pictures, maps, path)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Picture, log line, checkpoint and told line of an epoch."""
        epoch, values = trainer.current_epoch + 1, {}
        pl_module.check_weights()
        metrics = trainer.callback_metrics  # means over all processes: each has to ask
        if trainer.is_global_zero:
            try:
                values = self._write(epoch, metrics, trainer, pl_module)
            except OSError as error:
                raise WriteError(f"out {self.out}: can't be written: {error}") from None
        # Last, so that whatever ends the process here, nothing is missing of a finished epoch. All
        # processes take part in saving; Lightning writes from the first.
        trainer.save_checkpoint(self.out / CHECKPOINT)
        if trainer.is_global_zero:
            self.say(epoch_line(epoch, trainer.max_epochs, values))

    def _write(
        self, epoch: int, metrics: Mapping[str, Any], trainer: Any, pl_module: Any
    ) -> dict[str, float]:
        """Picture and log line of an epoch; returns its values."""
        model = pl_module.model
        maps = explain_pictures(model, self.pictures)
        write_masks(model, self.pictures, maps, self.out / f"masks-epoch-{epoch:03d}.png")
        line = {"epoch": epoch, "steps": trainer.global_step}
        means = {k.removesuffix("_epoch"): v for k, v in metrics.items() if k.endswith("_epoch")}
        values = {k: float(v) for k, v in means.items() if math.isfinite(float(v))}  # else of 0
        if "embedding" in maps:
            found = gauge_pictures(model, self.pictures, maps["embedding"], pl_module.config.fill)
            prefix = "embedding_" if len(maps) > 1 else ""
            values |= {f"{prefix}gauge_{k}": v for k, v in found.items()}
        line |= {k: round(v, 5) for k, v in values.items()}
        line["seconds"] = round(time.monotonic() - self.began, 1)
        log = self.out / LOG
        # Without the line of an epoch whose checkpoint was not written, and that is run again.
        before = log.read_text("utf-8").splitlines()[: epoch - 1] if log.exists() else []
        partial = log.with_name(f".{LOG}")
        partial.write_text("".join(f"{text}\n" for text in (*before, json.dumps(line))), "utf-8")
        partial.replace(log)
        return values


def epoch_line(epoch: int, epochs: int, values: Mapping[str, float]) -> str:
    """What an epoch came to, for people: the loss, then each head's figures.

    Args:
        epoch: counted from 1.
        epochs: of the whole training.
        values: by name as `nem.learner.Learner` and `Watch` have them. Of a head with a gauge, the
            gauge's are told, as only they compare with the control.
    """
    heads = list(dict.fromkeys(name.partition("_")[0] for name in values))
    heads = [head for head in heads if head in AIMS]
    parts = [f"epoch {epoch}/{epochs}: loss {values['loss']:.3f}"]
    for head in heads or [""]:
        own = {k.removeprefix(f"{head}_"): v for k, v in values.items() if k.startswith(head)}
        own |= {k.removeprefix("gauge_"): v for k, v in own.items() if k.startswith("gauge_")}
        told = [f"{word} {own[name]:.2f}" for name, word in TOLD.items() if name in own]
        parts.append(" ".join([head, *told] if head else told))
    return " | ".join(parts)


def explain_pictures(model: NEM, pictures: Picture, batch: int = 16) -> dict[Aim, np.ndarray]:
    """Maps float32 in [0, 1], (N, S, S), of uint8 RGB pictures (N, S, S, 3), by aim.

    A ranking is shown by percentile. Leaves the mode as it was.
    """
    device = next(model.parameters()).device
    backbone = model.backbone
    maps: dict[Aim, list[Tensor]] = {aim: [] for aim in model.aims}
    with quiet(model):
        for start in range(0, len(pictures), batch):
            x = torch.from_numpy(pictures[start : start + batch]).to(device)
            output = model(normalise(x, backbone.mean, backbone.std))
            for aim, value in output.maps.items():
                maps[aim].append(value[:, 0].float().cpu())
    found = {aim: torch.cat(parts).numpy() for aim, parts in maps.items()}
    return {a: percentiles(m) if a == "ranking" else m for a, m in found.items()}


def gauge_pictures(
    model: NEM, pictures: Picture, masks: np.ndarray, fill: Fill = "mean", batch: int = 16
) -> dict[str, float]:
    """Means of `nem.gauge` over uint8 RGB pictures (N, S, S, 3) and their masks (N, S, S).

    The same at each call: chance comes from a generator of its own. Leaves the mode as it was.
    """
    device = next(model.parameters()).device
    backbone, generator = model.backbone, torch.Generator(device).manual_seed(0)
    parts = []
    with quiet(model):
        for start in range(0, len(pictures), batch):
            x = torch.from_numpy(pictures[start : start + batch]).to(device)
            mask = torch.from_numpy(masks[start : start + batch, None]).to(device)
            x = normalise(x, backbone.mean, backbone.std)
            parts.append(gauge(model, x, mask, fill=fill, generator=generator))
    return {k: float(torch.cat([p._asdict()[k] for p in parts]).mean()) for k in Gauge._fields}


def write_masks(
    model: NEM, pictures: Picture, maps: Mapping[Aim, np.ndarray], path: Path, columns: int = 8
) -> None:
    """Write a PNG: each picture, below it each head's map in colours and what it keeps."""
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
