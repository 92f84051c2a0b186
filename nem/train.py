"""Training a decoder for a frozen model: `fit(TrainConfig(...))`."""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from nem.backbone import Backbone, create_backbone
from nem.bundle_io import load_backbone, state_sha256
from nem.checkpoint import SafetensorsIO, load_tree
from nem.config import CHECKPOINT, TrainConfig
from nem.data import Collection, check_there, collect, normalise
from nem.errors import DataError, TrainError, first_line
from nem.learner import Learner
from nem.logs import at_level
from nem.model import NEM
from nem.watch import Watch

__all__ = ["TrainConfig", "fit"]

_log = logging.getLogger(__name__)


def fit(
    config: TrainConfig,
    *,
    backbone: Backbone | None = None,
    begin_with: Mapping[str, Tensor] | None = None,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> NEM:
    """Train a decoder.

    Writes into `config.out`: a checkpoint, a log line and a picture of masks per epoch, and an
    early picture.

    Args:
        config: the settings.
        backbone: an existing backbone, instead of `config.model`.
        begin_with: weights of a decoder to begin with; those whose name or shape differs stay at
            random.
        progress: show a progress bar on stderr.
        say: is given a line for people at the start and at each epoch's end, of several processes
            in the first; default: the log.

    Returns:
        The model in eval mode on the CPU, float32.

    Raises:
        TrainError: `out` holds another training, a loss is not finite, or a setting clashes.
        ModelError: the backbone or the decoder can't be built.
        BundleError: the bundle can't be used.
        DataError: there is nothing to train on.
        KeyboardInterrupt: Ctrl-C, or the process was told to end; the last checkpoint stays.
    """
    out = Path(config.out)
    checkpoint = out / CHECKPOINT
    if checkpoint.exists() and not config.resume:
        raise TrainError(f"out {out}: holds a training; resume it, or give another folder")
    check_there(config.data)  # before a model is fetched
    _check_writable(out)
    backbone = _backbone(config, backbone)
    if config.grid is not None and config.grid > backbone.input_size:
        raise TrainError(f"grid {config.grid}: allowed are 2 to {backbone.input_size} cells a side")
    frozen = state_sha256(backbone.state_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = NEM(backbone, config.decoder, config.aims, **config.decoder_kwargs)
    fitting = _fitting(model.decoder.state_dict(), begin_with or {})
    model.decoder.load_state_dict(fitting, strict=False)
    before = _before(config, model, fitting)
    collection = _collect(config, backbone.input_size, progress)
    recipe = config.recipe() | {
        "backbone": frozen,
        "begun_with": state_sha256(fitting) if fitting else None,
        "pictures_seen": _digest(collection),
    }
    unit = _usual_lead(model.backbone, collection) if config.score == "logits" else 1.0
    learner = Learner(model, collection, config, recipe, unit, before)
    say = say or _log.info
    watch = Watch(out, collection, config.pictures, config.early_step, say)
    with _quiet_lightning():
        trainer, learner.steps = _trainer(config, watch, len(collection), progress)
        # They share the pictures, so that steps, and with them the learning rate, depend on it.
        recipe["processes"] = trainer.world_size
        if checkpoint.exists():
            _check_continues(checkpoint, recipe)
        if trainer.is_global_zero:
            say(f"training on {len(collection)} pictures")
        out.mkdir(parents=True, exist_ok=True)
        _run(trainer, learner, checkpoint if checkpoint.exists() else None)
    model.cpu().to(memory_format=torch.contiguous_format)
    if state_sha256(backbone.state_dict()) != frozen:
        raise TrainError("the frozen backbone changed during training; the result is not usable")
    return model.eval()


def _check_writable(out: Path) -> None:
    """Refuse a folder for the results before reading pictures takes its time."""
    there = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise TrainError(f"out {out}: {there} can't be written to; give another folder")


def _fitting(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The given weights that have a place of their name and shape."""
    return {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}


def _before(config: TrainConfig, model: NEM, given: Mapping[str, Tensor]) -> NEM | None:
    """The model as training begins, where heads are to keep what they draw."""
    if not config.hold:
        return None
    if missing := sorted(model.decoder.state_dict().keys() - given.keys()):
        raise TrainError(
            f"hold {', '.join(config.hold)}: needs a whole decoder to begin with; {len(missing)} "
            f"of its weights are missing or of another shape (first: {missing[0]})"
        )
    shared = {id(model.backbone): model.backbone}
    return copy.deepcopy(model, shared)


def _backbone(config: TrainConfig, given: Backbone | None) -> Backbone:
    if (given is None) == (config.model is None):
        raise TrainError("model: name one, or give fit a backbone; not both, not neither")
    if given is not None:
        return given
    assert config.model is not None
    if config.from_bundle:
        return load_backbone(config.model)
    weights = None if config.weights == "none" else config.weights or "timm"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return create_backbone(
            str(config.model), weights, input_size=config.input_size, **config.model_kwargs
        )


@torch.no_grad()
def _usual_lead(backbone: Backbone, collection: Collection, most: int = 256) -> float:
    """By how much the best logit leads the mean one, averaged over pictures evenly spaced."""
    spaced = np.linspace(0, len(collection) - 1, min(most, len(collection))).astype(int)
    leads = []
    for part in np.array_split(spaced, math.ceil(len(spaced) / 32)):
        pictures = torch.from_numpy(np.stack([collection.pixels(int(i)) for i in part]))
        logits = backbone(normalise(pictures, backbone.mean, backbone.std)).logits
        if logits is None:
            raise TrainError(f"score logits: {backbone.name} has no classes")
        leads.append(logits.max(1).values - logits.mean(1))
    return float(torch.cat(leads).mean())


class Bar(RichProgressBar):
    """Lightning's bar, with epochs counted from 1 as all that is told."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"


def _trainer(
    config: TrainConfig, watch: Watch, pictures: int, progress: bool
) -> tuple[pl.Trainer, int]:
    """A trainer and the number of optimiser steps it will make."""
    callbacks: list[pl.Callback] = [watch]
    if progress:
        callbacks.append(Bar(console_kwargs={"stderr": True}))
    trainer = pl.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        max_epochs=1,
        accumulate_grad_batches=config.accumulate,
        callbacks=callbacks,
        plugins=[SafetensorsIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=config.out,
    )
    # Known only now: how many processes share the data.
    share = math.ceil(pictures / trainer.world_size)
    if share < 2:  # one has no BatchNorm statistics where a map is a single place
        raise DataError(f"{pictures} usable picture(s): each process needs 2 at least; give more")
    batches = max(1, share // config.batch_size)
    per_epoch = math.ceil(batches / config.accumulate)
    steps = max(1, round(config.epochs * per_epoch))
    steps = min(steps, config.max_steps or steps)
    trainer.fit_loop.max_epochs = math.ceil(steps / per_epoch)
    return trainer, steps


def _run(trainer: pl.Trainer, learner: Learner, checkpoint: Path | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(learner, ckpt_path=None if checkpoint is None else str(checkpoint))
    except SystemExit as error:
        # Lightning turns Ctrl-C into an exit and leaves the signal ignored; the caller decides.
        signal.signal(signal.SIGINT, handler)
        if error.code == 128 + signal.SIGTERM:  # the caller's own answer to that
            raise
        raise KeyboardInterrupt from None
    except (DataError, OSError, RuntimeError) as error:
        raise _of_worker(error, learner.config.workers) from None


def _of_worker(error: Exception, workers: int) -> Exception:
    """What to tell of an error where processes load the data; else the error itself."""
    if not workers:
        return error
    if isinstance(error, DataError):  # torch puts the process's traceback before it
        return DataError(str(error).strip().rpartition("DataError: ")[2])
    hidden = error.__context__  # Lightning's cleaning up fails after it
    cause = hidden if hidden is not None and "combined_loader" in str(error) else error
    if cause is error and "DataLoader worker" not in str(error):
        return error
    return TrainError(
        f"workers {workers}: the processes that load data fail ({first_line(cause)}); take fewer, "
        "0 for none, or give them more memory (/dev/shm)"
    )


def _check_continues(checkpoint: Path, recipe: dict[str, Any]) -> None:
    before = load_tree(checkpoint).get("recipe", {})
    before.setdefault("processes", recipe["processes"])  # older ones did not tell
    differ = sorted(k for k in recipe.keys() | before.keys() if recipe.get(k) != before.get(k))
    if differ:
        first = differ[0]
        raise TrainError(
            f"checkpoint {checkpoint} is of another training: {', '.join(differ)} differ "
            f"({first}: {before.get(first)!r} then, {recipe.get(first)!r} now); "
            "use its settings or another folder"
        )


def _digest(collection: Collection) -> str:
    """What tells data apart but not its place: number, names and sizes of the files."""
    files = "\n".join(f"{Path(item.name).name} {item.size}" for item in collection.items)
    found = hashlib.sha256(os.fsencode(files)).hexdigest()  # names may hold bytes that are no text
    return f"{len(collection)} of SHA-256 {found[:16]}"


def _collect(config: TrainConfig, size: int, progress: bool) -> Collection:
    """The training's pictures; files that were skipped are listed in the log."""
    with Progress(console=Console(stderr=True), transient=True, disable=not progress) as bar:
        task = bar.add_task("reading pictures", total=None)
        collection = collect(
            config.data,
            size,
            every=config.every,
            keep_bytes=config.memory_mb << 20,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if collection.skipped:
        _log.warning("%d of the files were skipped:", len(collection.skipped))
        for skipped in collection.skipped:
            _log.warning("  %s: %s", skipped.path, skipped.reason)
    return collection


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's banners, and its advice on settings that were chosen on purpose."""
    quieter = at_level(logging.WARNING, "lightning.pytorch", "lightning.fabric")
    with quieter, warnings.catch_warnings():
        for text in (".*does not have many workers", ".*number of training batches",
                     ".*GPU available but not used", ".*LeafSpec",
                     "Found .* module.s. in eval mode"):  # fmt: skip
            warnings.filterwarnings("ignore", text)
        yield
