"""Supervised training of the default backbone from scratch, on CPU (bf16) or GPU, resumable.

Used by `scripts/train_default`. Progressive image size: most epochs run at a small size, the
last ones near the size of use, which buys accuracy per hour of CPU (Touvron et al. 2019, FixRes).
A third of the pictures is seen through random blob masks filled with the data mean, so that the
masked pictures an explanation is judged by are not foreign to the frozen model. A second, short
training (`tuned`) shows half of the objects small amid clutter and hides much less: a model that
can guess everything from any part of a picture leaves an explanation nothing to find.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nem.bundle_io import state_sha256
from nem.data import normalise
from nem.errors import DataError, ModelError, TrainError
from nem.pictures import squash
from scripts.default_checkpoint import resume, save
from scripts.default_data import (
    MEAN,
    STD,
    Split,
    blob_mask,
    clutter_of,
    jitter,
    on_clutter,
    random_crop,
)

AHEAD = 3
"""Batches that are prepared before they are asked for."""


@dataclass(frozen=True)
class BackboneConfig:
    """Recipe of the default backbone.

    `phases` maps the fraction of training done to image size. `teacher_share` is the part of the
    targets that a teacher gives, where there is one.
    """

    model: str = "resnet18d"
    layers: tuple[int, ...] = (1, 1, 2, 2)
    channels: tuple[int, ...] = (48, 64, 160, 256)
    stem_width: int = 16
    epochs: int = 64
    batch_size: int = 128
    lr: float = 0.2
    weight_decay: float = 5e-4
    warmup_epochs: int = 3
    label_smoothing: float = 0.1
    mix_probability: float = 0.5
    blob_probability: float = 0.33
    clutter_probability: float = 0.0
    ema_decay: float = 0.998
    teacher_share: float = 0.5
    phases: tuple[tuple[float, int], ...] = ((0.4, 96), (0.72, 112), (0.92, 128), (1.0, 144))
    seed: int = 0

    def image_size(self, epoch: int) -> int:
        """Side of the square training pictures at `epoch`, in pixels."""
        done = epoch / self.epochs
        return next((size for until, size in self.phases if done < until), self.phases[-1][1])

    def tuned(self, epochs: int) -> BackboneConfig:
        """The recipe of the training after this one, at the final size."""
        return replace(
            self,
            epochs=epochs,
            lr=self.lr / 5,
            warmup_epochs=1,
            blob_probability=0.08,
            clutter_probability=0.5,
            phases=((1.0, self.phases[-1][1]),),
        )

    def slimmed(self) -> BackboneConfig:
        """The recipe of a training that begins with weights cut out of a larger model."""
        phases = ((0.3, 112), (0.7, 128), (1.0, 144))
        return replace(self, lr=self.lr / 2, warmup_epochs=1, phases=phases)

    @property
    def kwargs(self) -> dict[str, Any]:
        """What timm is told beside the name."""
        return {
            "layers": list(self.layers),
            "channels": list(self.channels),
            "stem_width": self.stem_width,
        }

    def build(self, num_classes: int) -> nn.Module:
        """The timm model, randomly initialised."""
        return timm.create_model(self.model, num_classes=num_classes, **self.kwargs)


def mix(x: Tensor, target: Tensor, config: BackboneConfig, gen: torch.Generator) -> Tensor:
    """CutMix or mixup in place, half of the batches; returns the mixed targets."""
    if torch.rand((), generator=gen) > config.mix_probability:
        return target
    other = torch.randperm(len(x), generator=gen)
    share = float(torch.rand((), generator=gen))
    if torch.rand((), generator=gen) < 0.5:
        side = int(x.shape[-1] * (1 - share) ** 0.5)
        top, left = torch.randint(0, x.shape[-1] - side + 1, (2,), generator=gen).tolist()
        box = (slice(None), slice(None), slice(top, top + side), slice(left, left + side))
        x[box] = x[other][box]
        share = 1 - side**2 / x.shape[-1] ** 2
    else:
        share = 0.8 + 0.2 * share
        x.mul_(share).add_(x[other], alpha=1 - share)
    return target * share + target[other] * (1 - share)


def batches(
    images: list[np.ndarray],
    labels: np.ndarray,
    classes: int,
    config: BackboneConfig,
    epoch: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented batches, prepared ahead by one thread."""
    rng = np.random.default_rng((config.seed, epoch))
    gen = torch.Generator().manual_seed(config.seed * 10_000 + epoch)
    size, order = config.image_size(epoch), rng.permutation(len(images))

    def picture(index: int) -> np.ndarray:
        if rng.random() >= config.clutter_probability:
            return random_crop(images[index], size, rng)
        return on_clutter(images[index], clutter_of(images, size, rng), rng)

    def batch(start: int) -> tuple[Tensor, Tensor]:
        smooth, pick = config.label_smoothing, order[start : start + config.batch_size]
        raw = np.stack([picture(i) for i in pick])
        x = jitter(normalise(torch.from_numpy(raw), MEAN, STD), gen)
        target = F.one_hot(torch.from_numpy(labels[pick]), classes).float()
        target = mix(x, target * (1 - smooth) + smooth / classes, config, gen)
        hidden = torch.rand(len(x), generator=gen) < config.blob_probability
        if hidden.any():
            x[hidden] *= blob_mask(int(hidden.sum()), size, gen)
        return x.contiguous(memory_format=torch.channels_last), target

    ready: deque[Future[tuple[Tensor, Tensor]]] = deque()
    with ThreadPoolExecutor(1, "augment") as thread:
        for start in range(0, len(order) - config.batch_size + 1, config.batch_size):
            ready.append(thread.submit(batch, start))
            if len(ready) > AHEAD:
                yield ready.popleft().result()
        while ready:
            yield ready.popleft().result()


@torch.inference_mode()
def top1(model: nn.Module, split: Split, size: int) -> float:
    """Share of pictures, squashed to `size` as in use, whose best class is right."""
    images, labels = split.images, split.labels
    model.eval()
    device = next(model.parameters()).device
    right = 0
    for start in range(0, len(images), 128):
        raw = [squash(image, size) for image in images[start : start + 128]]
        x = normalise(torch.from_numpy(np.stack(raw)), MEAN, STD).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            guess = model(x).argmax(1).cpu().numpy()
        right += int((guess == labels[start : start + 128]).sum())
    return right / len(images)


def train_backbone(
    train: Split,
    validation: Split,
    out: Path,
    config: BackboneConfig,
    device: str = "cpu",
    start: Mapping[str, Tensor] | None = None,
    teacher: nn.Module | None = None,
) -> nn.Module:
    """Train on one split, judge on the other; resumes from `out` if a run was cut short.

    `start` are weights to begin with instead of random ones. `teacher` says what it sees in the
    very pictures the model is shown, mixed and masked as they are (Beyer et al. 2022). Returns the
    averaged (EMA) model in eval mode.

    Raises:
        DataError: fewer pictures than a batch.
        ModelError: `start` is of another model.
        TrainError: `out` holds another training, or the loss is not finite.
    """
    images, labels, names, digest = train
    steps = len(images) // config.batch_size
    if not steps:
        raise DataError(f"{len(images)} training pictures: {config.batch_size} at least")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    model = config.build(len(names)).to(device, memory_format=torch.channels_last)
    ema = config.build(len(names)).to(device, memory_format=torch.channels_last)
    if start is not None:
        try:
            model.load_state_dict(start)
        except RuntimeError as error:
            raise ModelError(
                f"weights to begin with: {' '.join(str(error).split())[:200]}"
            ) from None
    ema.load_state_dict(model.state_dict())
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decay}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(
        groups, lr=config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
    )
    recipe = asdict(config) | {"data": digest, "start": start and state_sha256(start)}
    recipe["teacher"] = teacher and state_sha256(teacher.state_dict())
    if teacher is not None:
        teacher = teacher.to(device, memory_format=torch.channels_last).eval()
    total, warm = steps * config.epochs, steps * config.warmup_epochs
    first = resume(out, recipe, model, ema, optimiser)
    for epoch in range(first, config.epochs):
        model.train()
        began, losses = time.monotonic(), []
        for i, (x, target) in enumerate(batches(images, labels, len(names), config, epoch)):
            step = epoch * steps + i
            progress = max(0.0, (step - warm) / max(1, total - warm))
            scale = min(1.0, (step + 1) / warm) * 0.5 * (1 + np.cos(np.pi * progress))
            for group in optimiser.param_groups:
                group["lr"] = config.lr * scale
            x, target = x.to(device), target.to(device)
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                logits = model(x)
                if teacher is not None:
                    with torch.no_grad():
                        seen = teacher(x).float().softmax(1)
                    target = target.lerp(seen, config.teacher_share)
            loss = F.cross_entropy(logits.float(), target)
            if not torch.isfinite(loss):
                raise TrainError(f"loss is {loss.item()} in epoch {epoch + 1}, batch {i + 1}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            _average(ema, model, min(config.ema_decay, (step + 1) / (step + 10)))
            losses.append(loss.item())
        save(out, recipe, epoch + 1, model, ema, optimiser)
        line = {
            "epoch": epoch + 1,
            "size": config.image_size(epoch),
            "loss": round(float(np.mean(losses)), 4),
            "top1_160": round(top1(ema, validation, 160), 4),
            "seconds": round(time.monotonic() - began, 1),
        }
        print(json.dumps(line), flush=True)
    return ema.eval()


@torch.no_grad()
def _average(ema: nn.Module, model: nn.Module, decay: float) -> None:
    for kept, new in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)
